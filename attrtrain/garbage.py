"""Python's garbage collector, out of the way of what makes a million objects of which none is garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keeps the collector from walking, again and again, through the new objects of the block.

    Of importing torch and what comes with it that is a tenth of the time, of reading a label file a fifth.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Keeps the collector from the modules that the block imports: while they come, and for as long as they stay, which
    is until Python ends. There it would take them apart piece by piece, those of torch for a second and more.
    """
    before = len(sys.modules)
    with no_garbage_collection():
        yield
    if len(sys.modules) > before:  # else there is nothing but what others may want collected
        gc.freeze()

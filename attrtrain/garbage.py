"""Python's garbage collector, out of the way of what makes a million objects of which none is garbage."""

import gc
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

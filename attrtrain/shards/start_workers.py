"""How worker processes are started: on Linux as forks of a server that has imported all they need, once for all of them
and beside the reading of the labels.

What this module imports is little, so that the server is begun before anything else of the command is.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

_METHOD = "forkserver" if sys.platform == "linux" else "spawn"  # macOS's own libraries may not be forked
_PRELOADED = ["attrtrain.shards.execute"]


def workers_context() -> BaseContext:
    """The context in which worker processes, and what they share with us, are made."""
    context = multiprocessing.get_context(_METHOD)
    context.set_forkserver_preload(_PRELOADED)
    return context


def start_early() -> None:
    """Begins to start worker processes, where that can be begun before it is known what they are to do."""
    if _METHOD == "forkserver":
        forkserver.set_forkserver_preload(_PRELOADED)
        with children_deaf_to_stops():
            forkserver.ensure_running()


@contextmanager
def children_deaf_to_stops() -> Iterator[None]:
    """Makes processes started in the block, and theirs, deaf from their first instruction to the Ctrl-C that a terminal
    sends them beside us, and to the SIGTERM of a scheduler: what a stop means is for us to say.
    """
    resource_tracker.ensure_running()  # which otherwise starts in the block, and opens these signals again (3.11)
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # what a thread blocks, the processes it starts block
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

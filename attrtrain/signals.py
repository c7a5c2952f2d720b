"""Being asked to stop. In training signals set a flag, which it looks at between two steps; other commands end by
KeyboardInterrupt, where nothing is left half done.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# TERM: preemption and scancel. USR1, USR2: what batch systems send ahead of a time limit. INT: Ctrl-C.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


class StopRequest:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def listen(self) -> None:
        """Takes over the stop signals for the rest of the process. A second Ctrl-C ends it at once."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)


def ignore_stop_signals() -> None:
    """For helper processes: a whole process group is signalled at once, and only training itself decides what to do
    about it.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_held_back() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C and SIGTERM back to where the block calls what it is given, or to the block's end, so that nothing
    is left half done.
    """
    held: list[int] = []

    def stop_if_interrupted() -> None:
        if held:
            raise KeyboardInterrupt(held[0])

    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, _: held.append(number)) for number in numbers}
    try:
        yield stop_if_interrupted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    stop_if_interrupted()


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, as `kill` and job schedulers send it, leaves the block the way Ctrl-C does."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

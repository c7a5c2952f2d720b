"""Ending a process: at once where all is done, or where it can no longer take leave of the others it computes with."""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def run_program(main: Callable[[], int]) -> NoReturn:
    """Runs a program and ends the process with its exit code, without having Python take apart all modules first, which
    are about to be gone: those of torch for a second and more.

    What is to be done at the end is done: threads are waited for, functions of `atexit` called, output written. Where
    warnings are asked for (-W, -X dev), Python ends in its own way and tells what has been left open.
    """
    finished: list[int] = []
    atexit.register(_leave, finished)  # the first to be registered, and so the last to be called
    exit_code = main()
    finished.append(exit_code)
    sys.exit(exit_code)


def _leave(finished: list[int]) -> None:
    if not finished or sys.warnoptions or sys.flags.dev_mode:
        return
    with suppress(OSError, ValueError):  # what cannot be written, or is closed, is for Python to speak of
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(finished[0])


def end_within_group(exit_code: int) -> int:
    """Ends this process here and now if a group of processes still stands in it; returns the exit code if not.

    Threads of the group may still wait for a process that is gone. While Python shuts down, the first of them to ask
    for the interpreter is ended by force, which C++ answers with an abort: the exit code would say that attrtrain
    crashed. Leaving the group in order is no way out, since that waits for these threads. Whoever calls it has written
    and said all there is.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)

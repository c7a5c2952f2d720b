"""Ending a process that can no longer take leave of the others it computes with."""

import os
import sys


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

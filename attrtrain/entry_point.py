"""What every command does with errors: a user's mistake is one line on stderr and an exit code; a defect of ours keeps
its traceback.
"""

import os
import signal
import sys
from collections.abc import Callable

from attrtrain.errors import AttrtrainError, OneProcessError, PreemptedError, ProcessLostError, refused_by_system
from attrtrain.process_exit import end_within_group
from attrtrain.wording import shown


def exit_code_of(action: Callable[[], int], going_on: str) -> int:
    """Runs what a command does and returns its exit code.

    Args:
        action: gives the exit code of a run without errors.
        going_on: what to do after Ctrl-C, behind "stopped; ".
    """
    _open_closed_streams()
    try:
        return action()
    except PreemptedError as error:  # no error: it has saved all there is, and every process is about to end
        if _speaks_for(error):
            print(error, file=sys.stderr)
        return error.exit_code
    except AttrtrainError as error:
        if _speaks_for(error):
            print(f"error: {shown(error)}", file=sys.stderr)
        return end_within_group(error.exit_code)
    except KeyboardInterrupt as stop:  # of another signal than Ctrl-C's, it holds the number
        print(f"stopped; {going_on}", file=sys.stderr)
        return end_within_group(128 + int(stop.args[0] if stop.args else signal.SIGINT))
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _drop_output()
        return 1
    except (OSError, MemoryError, RuntimeError) as error:
        if (refusal := refused_by_system(error)) is None:
            raise
        print(f"error: {shown(refusal)}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # it was our output that could not be written
            _drop_output()
        return end_within_group(1)


def _open_closed_streams() -> None:
    """Gives a process that was started without standard streams, as some daemons and `>&-` do, ones that lead nowhere.

    Python has None in place of such a stream, and the next file opened gets its number: what a library writes as an
    error would go into a shard.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _drop_output() -> None:
    """Sends what is still to be printed nowhere, else Python complains once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _speaks_for(error: AttrtrainError) -> bool:
    """Whether this process, where it is one of several, is to print an error.

    One process of each machine does: a folder may be missing on one of them alone. Being stopped is told once, by rank
    0; what only one process knows, by that one.
    """
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    local_rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", rank))
    match error:
        case OneProcessError() | ProcessLostError():  # who is left when a process dies may be any
            return True
        case PreemptedError():
            return rank == "0"
        case _:
            return local_rank == "0"

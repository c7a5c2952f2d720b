"""The errors a user can meet. Each message is one line that says what is wrong, where, and what to do about it.

Entry points print an `AttrtrainError` as that line and exit with its `exit_code`, and tell in a line what the system
refuses; any other exception is a defect of ours and keeps its traceback.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from attrtrain.wording import first_line


class AttrtrainError(Exception):
    """Base of everything attrtrain raises on purpose."""

    exit_code = 1


class ConfigError(AttrtrainError):
    """A command line or YAML file that cannot be used as it is."""

    exit_code = 2


class LabelError(AttrtrainError):
    """A label or annotation file that cannot be read, or that contradicts itself."""


class UnsafeFileError(LabelError):
    """A file that asks to run code while it is being read. It was refused before any of it ran."""


class ShardError(AttrtrainError):
    """Shards that cannot be written, found, or trusted."""


class LeftOutError(AttrtrainError):
    """An object of which no crop can be made. `reason` is the key under which it is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class WeightsError(AttrtrainError):
    """Model weights that cannot be obtained or do not fit the model."""


class CheckpointError(AttrtrainError):
    """A run directory or checkpoint that cannot be continued from."""


class ExportError(AttrtrainError):
    """A model that cannot be exported, or an exported one that does not compute the same."""


class PredictionsError(AttrtrainError):
    """Predictions that cannot be read, or that cannot be judged against the labels."""


class HubError(AttrtrainError):
    """A model hub that cannot be reached, or that refuses what it is asked for."""


class ImageError(AttrtrainError):
    """A picture that cannot be read."""


class MemoryExceededError(AttrtrainError):
    """A device has too little memory for what is configured."""


class ProcessLostError(AttrtrainError):
    """Another process of this run died or stopped answering."""


class OneProcessError(AttrtrainError):
    """What one process of several met alone, such as a damaged object in its part of a batch. The others learn only
    that it is gone.
    """


class PreemptedError(AttrtrainError):
    """The run was asked to stop; it has saved a checkpoint and goes on when it is started again.

    Exit code 85 tells a batch script to put the job back into its queue; 0 would end it for good.
    """

    exit_code = 85


# What torch says, as plain RuntimeErrors, where a device's allocator, the driver, or a library of the driver's gets no
# memory.
_SIGNS_OF_NO_MEMORY = ("out of memory", "can't allocate memory", "status_alloc_failed")
_SIGNS_OF_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def lacks_memory(error: BaseException) -> bool:
    """Whether torch found no memory, be it the processor's or a GPU's."""
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS_OF_NO_MEMORY)


@contextmanager
def explained_lack_of_memory(what: str, mend: str) -> Iterator[None]:
    """Says what finds too little memory, and what to do. Raises MemoryExceededError."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise MemoryExceededError(f"{what} ({first_line(error)}); {mend}") from None


def refused_by_system(error: OSError | MemoryError | RuntimeError) -> str | None:
    """A line about memory or room on a disk that there is not, or a file that may not be read or written; None where no
    file is named and neither is what is lacking, which is no user's mistake.
    """
    if isinstance(error, RuntimeError):
        if not lacks_memory(error):
            return None
        return (
            f"out of memory: {first_line(error)}; end what else holds it (`nvidia-smi` tells, on a GPU), give smaller pictures or batches, "
            "or compute on the CPU: ACCELERATE_USE_CPU=true"
        )
    if isinstance(error, MemoryError):
        return (
            f"out of memory{f': {first_line(error)}' if str(error) else ''}; give this machine more, or fewer --workers"
        )
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    # Writing to what is open already, such as standard output, tells no name.
    return f"{error.strerror}: make room where files, or this output, go" if error.errno in _SIGNS_OF_NO_ROOM else None

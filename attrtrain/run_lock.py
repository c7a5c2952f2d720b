"""One training at a time in a run directory: a second one would overwrite the first one's checkpoints and metrics.

The lock is the system's (flock) on `<run>/.lock` and goes with the process, however that ends. The file says who holds
it. Over NFS a machine that died may hold its locks for a minute or two more, so a holder on another machine is waited
for before a run that was requeued gives up.

What is in the lock file also shows that all processes write into one folder: on a machine's own disk, others of the
same name lie beside each other, and the first checkpoint would be torn.
"""

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrtrain.errors import AttrtrainError, CheckpointError, ConfigError
from attrtrain.run_layout import LOCK
from attrtrain.runtime import Runtime

_HERE = socket.gethostname()  # once: a laptop may be called otherwise in the next network
_PATIENCE_SECONDS = 150.0  # NFSv4 servers forget a dead client after a lease of 90 s, plus its grace
_LAG_SECONDS = 90.0  # NFS clients may see a folder as it was up to a minute ago


@contextmanager
def locked(folder: Path, runtime: Runtime, patience_seconds: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Holds a run directory for the block, made if need be. Collective: the main process has the lock, all learn
    whether it has, and see that it is their folder too.

    Args:
        folder: the run directory.
        runtime: of this process.
        patience_seconds: how long a holder on another machine is waited for; one on this machine is known to live.

    Raises:
        CheckpointError: another training has it.
        ConfigError: the folder cannot be written, or is not the same one for all processes.
    """
    descriptor: int | None = None
    problem: AttrtrainError | None = None
    is_new = not folder.exists()
    if runtime.is_main:
        try:
            descriptor = _acquire(folder, patience_seconds)
        except FileExistsError:
            problem = ConfigError(f"run.dir: {folder}: is a file; give the run a folder of its own")
        except OSError as error:
            problem = ConfigError(f"run.dir: {error.filename or folder}: {error.strerror}")
        except CheckpointError as error:
            problem = error
    try:
        if runtime.any_rank(problem is not None)[0]:
            raise problem or CheckpointError(f"{folder}: the main process could not take the run directory")
        (holder,) = runtime.from_main(_holder())
        if runtime.any_rank(not _is_seen(folder, holder))[0]:
            raise ConfigError(
                f"run.dir: {folder} is not one folder for all processes: some do not see what the main one writes there; give --run.dir a folder on storage that their machines share"
            )
        yield
    finally:
        if descriptor is not None:
            if is_new:
                _remove_if_unused(folder)
            os.close(descriptor)


def require_held(folder: Path) -> None:
    """Raises CheckpointError where the run directory is no longer that which this process has locked: it was removed,
    and perhaps another training began in one of that name.
    """
    try:
        is_held = (folder / LOCK).read_text(errors="replace") == _holder()
    except FileNotFoundError:
        is_held = False
    if not is_held:
        raise CheckpointError(
            f"{folder} was removed, or begun anew by another training, while this one was in it; nothing more is written there"
        )


def _holder() -> str:
    return f"process {os.getpid()} on {_HERE}\n"


def _is_seen(folder: Path, holder: str) -> bool:
    """Whether this process, too, sees the main one's lock file."""
    give_up_at = time.monotonic() + _LAG_SECONDS
    while True:
        with suppress(OSError):
            if (folder / LOCK).read_text(errors="replace") == holder:
                return True
        if time.monotonic() >= give_up_at:
            return False
        time.sleep(min(1.0, _LAG_SECONDS))


def _acquire(folder: Path, patience_seconds: float) -> int:
    """Returns the descriptor that holds the lock."""
    give_up_at: float | None = None
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if _try_lock(descriptor):
            if _is_still(folder / LOCK, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _holder().encode(), 0)
                os.fsync(descriptor)  # for other machines to see
                return descriptor
            os.close(descriptor)  # removed by its last holder, between open and lock
            continue
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        now = time.monotonic()
        if give_up_at is None:
            give_up_at = now if holder.endswith(f" on {_HERE}") else now + patience_seconds
            if give_up_at > now:
                print(
                    f"{folder} is in use by {holder}; waiting up to {patience_seconds:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
        if now >= give_up_at:
            raise CheckpointError(f"{folder} is in use by {holder}; stop that first, or choose another --run.dir")
        time.sleep(min(1.0, patience_seconds))


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_if_unused(folder: Path) -> None:
    """A run that ended before it wrote anything, on a mistake in its settings, leaves no folder behind."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # A file system without locks, such as Lustre mounted without flock, is used as if nobody else were there.
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    return True

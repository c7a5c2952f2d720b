"""Files of remote shard folders on this machine's disk: fetched once for all processes, checked, and no more of them
than fit a bound.

    cache folder/
      <sha256>.tar, <sha256>.npy    whole files, named after their content, which never mixes an old and a new data set
      .<sha256>.tar.partial         a file being fetched, at its full size from the beginning, so that it counts
      locks/<sha256>.lock           held by the process that fetches it
      locks/room.lock               held by the process that makes room

Whoever reads a file has it locked (flock, shared), whoever fetches it too; what is locked is never removed. The system
lets go of the locks of a process that ends, however it ends. The modification time says when a file was last used.
Files by other names are somebody else's: they are neither counted nor removed.
"""

import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context
from pathlib import Path

from filelock import FileLock

from attrtrain.errors import ConfigError, ShardError
from attrtrain.files import PARTIAL_SUFFIX
from attrtrain.urls import chunks_of, size_of

_ATTEMPTS = 2
_TOUCH_SECONDS = 1.0  # how exactly the time of last use is kept
_SHA256 = re.compile("[0-9a-f]{64}")
_OWN_NAME = re.compile(rf"\.?{_SHA256.pattern}\.[^.]+({re.escape(PARTIAL_SUFFIX)})?")


def gigabytes_for(size: int) -> str:
    """The `data.cache_gb`, in three digits, of a cache that holds so many bytes: rounded up, so that it does."""
    return f"{float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(size)) / 1e9:g}"


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL, with the SHA-256 of its content, and its size in bytes where that is known.

    Raises:
        ShardError: that is no SHA-256. It comes from a manifest, which may be anybody's, and becomes part of paths.
    """

    url: str
    sha256: str
    bytes: int | None = None

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ShardError(f"{self.url}: the manifest beside it gives {self.sha256!r} for its SHA-256; it is damaged")

    @property
    def name(self) -> str:
        """Its name in a cache."""
        return f"{self.sha256}.{self.url.rpartition('.')[2]}"


@dataclass(frozen=True)
class ShardCache:
    """A folder on a local disk that holds at most `limit` bytes of remote files, except where more are in use at
    once.
    """

    folder: Path
    limit: int
    _touched: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, folder: str, gigabytes: float) -> "ShardCache":
        """The cache that a configuration means; an empty `folder` stands for the user's own below the system's
        temporary folder. Nothing is made before a file is fetched.
        """
        own = Path(tempfile.gettempdir()) / f"attrtrain-{os.getuid()}"
        return cls(Path(folder) if folder else own, round(gigabytes * 1e9))

    @contextmanager
    def reading(self, file: RemoteFile) -> Iterator[int]:
        """A descriptor of the whole, checked file, which stays in the cache as long as the block takes.

        Raises:
            ShardError: it cannot be fetched; the message says why.
        """
        descriptor = self.open(file)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def open(self, file: RemoteFile) -> int:
        """A descriptor of the whole, checked file, which stays in the cache until it is closed.

        Raises:
            ShardError: it cannot be fetched; the message says why.
        """
        try:
            descriptor = self._open_cached(file)
            return self._fetch(file) if descriptor is None else descriptor
        except OSError as error:
            if isinstance(error, FileNotFoundError) and error.filename == file.url:
                raise ShardError(f"{file.url}: not there, though the manifest beside it lists it") from None
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ShardError(
                    f"{self.folder}: {error.strerror} for {file.url}; lower data.cache_gb, or give another data.cache_dir"
                ) from None
            raise ShardError(f"{error.filename or self.folder}: {error.strerror or error}") from None

    def _open_cached(self, file: RemoteFile) -> int | None:
        while True:
            try:
                descriptor = os.open(self.folder / file.name, os.O_RDONLY)
            except FileNotFoundError:
                return None
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink:
                self._touch(descriptor, file)
                return descriptor
            os.close(descriptor)  # removed between open and lock

    def _touch(self, descriptor: int, file: RemoteFile) -> None:
        now = time.monotonic()
        if now - self._touched.get(file.name, -_TOUCH_SECONDS) >= _TOUCH_SECONDS:
            os.utime(descriptor)
            self._touched[file.name] = now

    def _fetch(self, file: RemoteFile) -> int:
        """Fetches a file, unless another process does so first; returns it as `open` does."""
        locks = self.folder / "locks"
        if not self.folder.exists():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.folder.stat().st_uid != os.getuid():  # who owns the folder could change what is in it
            raise ShardError(f"{self.folder} belongs to another user; give another data.cache_dir")
        locks.mkdir(exist_ok=True)
        with FileLock(locks / f"{file.sha256}.lock"):
            if (descriptor := self._open_cached(file)) is not None:
                return descriptor
            size = size_of(file.url) if file.bytes is None else file.bytes
            for attempt in range(_ATTEMPTS):
                try:
                    return self._fetch_once(file, size)
                except ShardError:
                    if attempt == _ATTEMPTS - 1:
                        raise
        raise AssertionError("unreachable")

    def _fetch_once(self, file: RemoteFile, size: int) -> int:
        partial = self.folder / f".{file.name}{PARTIAL_SUFFIX}"
        descriptor = self._reserve(partial, size)
        try:
            if not _download(file, size, descriptor):
                raise ShardError(
                    f"{file.url}: fetched {_ATTEMPTS} times, and never what its manifest says; "
                    f"check it with `attrtrain verify {file.url.rsplit('/', 1)[0]}`"
                )
            partial.replace(self.folder / file.name)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except BaseException:
            os.close(descriptor)
            partial.unlink(missing_ok=True)
            raise
        return descriptor

    def _reserve(self, partial: Path, size: int) -> int:
        """Opens a file of `size` bytes for writing, locked, once there is room for it."""
        if size > self.limit:
            raise ConfigError(
                f"data.cache_gb: {self.limit / 1e9:g} GB is less than one file of {gigabytes_for(size)} GB; raise it"
            )
        with FileLock(self.folder / "locks" / "room.lock"):
            files = []
            for path in self.folder.iterdir():
                if not _OWN_NAME.fullmatch(path.name):  # of a folder that was there before
                    continue
                with suppress(FileNotFoundError):  # what is fetched meanwhile gets its final name
                    files.append((path.stat(), path))
            files = [(status, path) for status, path in files if stat.S_ISREG(status.st_mode)]
            held = sum(status.st_size for status, _ in files)
            for status, path in sorted(files, key=lambda entry: entry[0].st_mtime_ns):
                if held + size <= self.limit:
                    break
                if _remove_unused(path):
                    held -= status.st_size
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.ftruncate(descriptor, size)
            return descriptor


def _remove_unused(path: Path) -> bool:
    """Removes a file that nobody has locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # fetched meanwhile, and so in use
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _download(file: RemoteFile, size: int, descriptor: int) -> bool:
    """Writes a remote file to a descriptor; returns whether it is what it should be."""
    digest, position = hashlib.sha256(), 0
    for chunk in chunks_of(file.url):
        digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            written = os.pwrite(descriptor, rest, position)
            rest, position = rest[written:], position + written
        if position > size:
            return False
    os.fsync(descriptor)
    return position == size and digest.hexdigest() == file.sha256

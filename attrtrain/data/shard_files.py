"""The files of a shard folder, on a disk or behind a URL, and how many of them stay open."""

import os
import resource
import threading
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from attrtrain.data.cache import RemoteFile, ShardCache
from attrtrain.shards.manifest import ShardInfo

_OPEN_FILES = 16_384  # more shards than that are opened again when they are needed


class ShardFiles(Protocol):
    """Where the files of one shard folder are read."""

    @property
    def place(self) -> Path | str:
        """The folder."""

    def path(self, name: str, sha256: str) -> Path:
        """The file on a local disk, to be mapped into memory."""

    def read(self, shard: ShardInfo, size: int, offset: int) -> bytes:
        """Up to `size` bytes of a shard from `offset` on. Raises OSError or ShardError."""


def files_of(folder: Path | str, cache: ShardCache | None) -> ShardFiles:
    """The files of a path, or those of a URL, for which there has to be a cache."""
    if isinstance(folder, Path):
        return _LocalFiles(folder)
    assert cache is not None
    return _CachedFiles(folder, cache)


def _open_files_allowed() -> int:
    """Files that all folders together may keep open: a quarter of what this process may, whose own limit (often 1,024)
    is raised as far as the system lets it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(1, (wanted if soft == resource.RLIM_INFINITY else soft) // 4)


@dataclass
class _OpenFile:
    handle: int
    readers: int = 0  # threads that are reading from it


class _LocalFiles:
    """A folder on a disk, for any number of threads. Files that were read stay open as long as there are not too many,
    for on a network disk opening one costs more than reading from it.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self._lock = threading.Lock()
        self._open: dict[str, _OpenFile] = {}  # the one used longest ago first
        _living.add(self)

    def path(self, name: str, sha256: str) -> Path:
        return self.place / name

    def read(self, shard: ShardInfo, size: int, offset: int) -> bytes:
        with self._lock:
            if (file := self._open.pop(shard.name, None)) is None:
                self._close_idle()
                file = _OpenFile(os.open(self.place / shard.name, os.O_RDONLY))
            self._open[shard.name] = file
            file.readers += 1
        try:
            return os.pread(file.handle, size, offset)
        finally:
            with self._lock:
                file.readers -= 1

    def _close_idle(self) -> None:
        """Makes room for one more file within this folder's share of those that may be open."""
        surplus = len(self._open) + 1 - max(1, _open_files_allowed() // len(_living))
        idle = (name for name, file in self._open.items() if not file.readers)
        for name in list(islice(idle, max(0, surplus))):
            os.close(self._open.pop(name).handle)

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file.handle)


_living: WeakSet[_LocalFiles] = WeakSet()  # among whom the files that may be open are shared out


class _CachedFiles:
    """A URL, read through a cache. Mapped files stay in it as long as this lives; shards only while they are read."""

    def __init__(self, url: str, cache: ShardCache) -> None:
        self.place = url
        self._cache = cache
        self._pins: list[int] = []

    def path(self, name: str, sha256: str) -> Path:
        file = RemoteFile(f"{self.place}/{name}", sha256)
        self._pins.append(self._cache.open(file))
        return self._cache.folder / file.name

    def read(self, shard: ShardInfo, size: int, offset: int) -> bytes:
        with self._cache.reading(RemoteFile(f"{self.place}/{shard.name}", shard.sha256, shard.bytes)) as descriptor:
            return os.pread(descriptor, size, offset)

    def __del__(self) -> None:
        for pin in self._pins:
            os.close(pin)

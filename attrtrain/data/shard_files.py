"""The files of a shard folder, on a disk or behind a URL, and how many of them stay open."""

import os
import resource
from pathlib import Path
from typing import Protocol

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
    """Files that one folder may keep open: a quarter of what this process may, whose own limit (often 1,024) is raised
    as far as the system lets it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(1, (wanted if soft == resource.RLIM_INFINITY else soft) // 4)


class _LocalFiles:
    """A folder on a disk. Files that were read stay open, on a network disk opening one costs more than reading from
    it, as long as there are not too many.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self._handles: dict[str, int] = {}  # the one used longest ago first
        self._limit = 0  # known once a file is read

    def path(self, name: str, sha256: str) -> Path:
        return self.place / name

    def read(self, shard: ShardInfo, size: int, offset: int) -> bytes:
        if (handle := self._handles.pop(shard.name, None)) is None:
            self._limit = self._limit or _open_files_allowed()
            if len(self._handles) >= self._limit:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = os.open(self.place / shard.name, os.O_RDONLY)
        self._handles[shard.name] = handle
        return os.pread(handle, size, offset)

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)


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

"""Random access into the samples of shard folders by offset: no tar is parsed, no JSON read, nothing of the data set's size is built."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.errors import ShardError
from attrtrain.shards.manifest import INDEX, LABELS, Manifest, read_manifest
from attrtrain.vocabulary import AttributeVocabulary


class ShardSet:
    """One split of one or several shard folders, as N samples numbered 0 to N-1 in manifest order.

    Cheap to send to another process: it is opened there again. File handles are shared by all of a process and read with `pread`, so
    reading has no position to fight over.
    """

    def __init__(self, folders: Sequence[str | Path], split: str) -> None:
        """Opens the folders.

        Raises:
            ShardError: a folder is no finished shard folder, has other attributes or context than the first, or none has the split.
        """
        self.folders = tuple(map(Path, folders))
        self.split = split
        manifests = [read_manifest(folder) for folder in self.folders]
        _require_same_kind(self.folders, manifests)
        self.vocabulary: AttributeVocabulary = manifests[0].vocabulary.vocabulary()
        self.crop = manifests[0].crop
        self.fingerprint = hashlib.sha256(
            "\n".join(manifest.fingerprint for manifest in manifests).encode()
        ).hexdigest()
        self._parts = [part for pair in zip(self.folders, manifests, strict=True) if len(part := _Part(*pair, split))]
        if not self._parts:
            names = sorted({name for manifest in manifests for name in manifest.splits})
            raise ShardError(
                f"{', '.join(map(str, self.folders))}: no sample in split '{split}'; there are: {', '.join(names)}"
            )
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardSet, (self.folders, self.split)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def jpeg(self, position: int) -> bytes:
        """The stored crop of one sample.

        Raises:
            ShardError: its bytes cannot be read.
        """
        part = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._parts[part].jpeg(position - int(self._starts[part]))

    def labels(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vote shares (K, A) of some samples (K,), NaN = unknown."""
        return self._gather(positions, "labels")

    def column(self, name: str, positions: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """One field of INDEX_DTYPE (K,) for some samples (K,), or for all."""
        return self._gather(np.arange(len(self)) if positions is None else positions, name)

    @property
    def shard_samples(self) -> tuple[int, ...]:
        """Samples of each shard, in the order in which samples are numbered."""
        return tuple(size for part in self._parts for size in part.shard_samples)

    def categories(self) -> list[str]:
        """The category name of every sample, (N) strings."""
        return [part.categories[code] for part in self._parts for code in part.index["category"]]

    def _gather(self, positions: NDArray[np.int64], name: str) -> NDArray[Any]:
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        first = self._parts[0].array(name)
        gathered = np.empty((len(positions), *first.shape[1:]), dtype=first.dtype)
        for number in np.unique(owner):
            mine = owner == number
            gathered[mine] = self._parts[number].array(name)[positions[mine] - self._starts[number]]
        return gathered


class _Part:
    """The samples of one split in one folder: a contiguous range of its index, because shards are of one split and sorted by it."""

    def __init__(self, folder: Path, manifest: Manifest, split: str) -> None:
        self.categories = manifest.categories
        self._paths = [folder / shard.name for shard in manifest.shards]
        self._handles: dict[int, int] = {}
        samples = [shard.samples for shard in manifest.shards]
        own = [number for number, shard in enumerate(manifest.shards) if shard.split == split]
        self.shard_samples = [samples[number] for number in own]
        begin, end = (sum(samples[: own[0]]), sum(samples[: own[-1] + 1])) if own else (0, 0)
        try:
            self.index = np.load(folder / INDEX, mmap_mode="r", allow_pickle=False)[begin:end]
            self.labels = np.load(folder / LABELS, mmap_mode="r", allow_pickle=False)[begin:end]
        except (OSError, ValueError) as error:
            raise ShardError(f"{folder}: {error}; check it with `attrtrain verify {folder}`") from None
        if len(self.index) != end - begin or len(self.labels) != end - begin:
            raise ShardError(f"{folder}: {INDEX} or {LABELS} is too short; check it with `attrtrain verify {folder}`")

    def __len__(self) -> int:
        return len(self.index)

    def array(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self.labels if name == "labels" else self.index[name]
        return column

    def jpeg(self, row: int) -> bytes:
        sample = self.index[row]
        path = self._paths[sample["shard"]]
        try:
            if (handle := self._handles.get(int(sample["shard"]))) is None:
                handle = self._handles[int(sample["shard"])] = os.open(path, os.O_RDONLY)
            data = os.pread(handle, int(sample["jpeg_bytes"]), int(sample["jpeg_offset"]))
        except OSError as error:
            raise ShardError(
                f"{path}: {error.strerror or error}; check it with `attrtrain verify {path.parent}`"
            ) from None
        if len(data) != sample["jpeg_bytes"]:
            raise ShardError(
                f"{path}: ends inside sample {sample['object_id']:012d}; check it with `attrtrain verify {path.parent}`"
            )
        return data

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)


def _require_same_kind(folders: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        if manifest.vocabulary.fingerprint != manifests[0].vocabulary.fingerprint:
            raise ShardError(
                f"{folder} has other attributes than {folders[0]}; shards are only read together when their vocabularies are equal"
            )
        if manifest.crop.context != manifests[0].crop.context:
            raise ShardError(
                f"{folder} stores a context of {manifest.crop.context:g}, {folders[0]} of {manifests[0].crop.context:g}; shard them alike"
            )

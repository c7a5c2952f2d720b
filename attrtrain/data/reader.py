"""Random access into the samples of shard folders by offset: no tar is parsed, no JSON read but where `details` are
asked for, index and labels are mapped.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.config.schema import DataConfig
from attrtrain.data.cache import ShardCache, gigabytes_for
from attrtrain.data.shard_files import ShardFiles, files_of
from attrtrain.errors import AttrtrainError, ConfigError, ShardError
from attrtrain.shards.manifest import COUNTED_AT, INDEX, INDEX_DTYPE, LABELS, Manifest, fingerprint_of, read_manifest
from attrtrain.urls import as_place, is_url
from attrtrain.vocabulary import AttributeVocabulary

_COUNTED_ROWS = 4096


class ShardSet:
    """One split of one or several shard folders, as N samples numbered 0 to N-1 in manifest order.

    Cheap to send to another process: it is opened there again. File handles are shared by all of a process and read
    with `pread`, so reading has no position to fight over.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        split: str,
        cache: ShardCache | None = None,
        manifests: Sequence[Manifest | None] | None = None,
    ) -> None:
        """Opens the folders.

        Args:
            folders: paths, or URLs of any protocol fsspec knows.
            split: which samples.
            cache: where the files of URLs are kept; None: where a configuration that says nothing has them.
            manifests: those of URLs where they were read before; None is read.

        Raises:
            ShardError: a folder is no finished shard folder or cannot be read, has other attributes or context than the
                first, or none has the split.
        """
        self.folders = tuple(as_place(str(folder)) for folder in folders)
        self.split = split
        if cache is None and any(map(is_url, self.folders)):
            cache = ShardCache.of(DataConfig.cache_dir, DataConfig.cache_gb)
        self.cache = cache
        self.manifests = [
            known or read_manifest(folder)
            for folder, known in zip(self.folders, manifests or [None] * len(self.folders), strict=True)
        ]
        _require_same_kind(self.folders, self.manifests)
        self.vocabulary: AttributeVocabulary = self.manifests[0].vocabulary.vocabulary()
        self.crop = self.manifests[0].crop
        self.fingerprint = fingerprint_of(self.manifests)
        parts = (
            _Part(files_of(folder, self.cache), manifest, split)
            for folder, manifest in zip(self.folders, self.manifests, strict=True)
        )
        self._parts = [part for part in parts if len(part)]
        if not self._parts:
            names = sorted({name for manifest in self.manifests for name in manifest.held_splits})
            raise ShardError(
                f"{', '.join(map(str, self.folders))}: no sample in split '{split}'; there are: {', '.join(names)}"
            )
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def __reduce__(self) -> tuple[Any, ...]:
        remote = [
            manifest if is_url(folder) else None for folder, manifest in zip(self.folders, self.manifests, strict=True)
        ]
        return ShardSet, (self.folders, self.split, self.cache, remote)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def jpeg(self, position: int) -> bytes:
        """The stored crop of one sample.

        Raises:
            ShardError: its bytes cannot be read.
        """
        return self.jpegs(np.array([position], dtype=np.int64))[0]

    def jpegs(self, positions: NDArray[np.int64]) -> list[bytes]:
        """The stored crops of some samples (K,), in their order.

        Raises:
            ShardError: the bytes of one cannot be read.
        """
        if len(self._parts) == 1:
            return self._parts[0].jpegs(positions)
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        rows = positions - self._starts[owner]
        crops = [b""] * len(positions)
        for number in np.unique(owner).tolist():
            mine = np.flatnonzero(owner == number)
            for place, crop in zip(mine.tolist(), self._parts[number].jpegs(rows[mine]), strict=True):
                crops[place] = crop
        return crops

    def details(self, position: int) -> dict[str, Any]:
        """What the sample's JSON says: photograph, source_size, source_box and more, as `attrtrain shard` wrote it.

        Raises:
            ShardError: its bytes cannot be read, or are no JSON.
        """
        part, row = self._place_of(position)
        return part.details(row)

    def folder_of(self, position: int) -> Path | str:
        """Where one sample lies."""
        part, _ = self._place_of(position)
        return part.place

    def damaged(self, position: int, what: str) -> ShardError:
        """The error of a sample that is read but not understood, naming the object and its shard."""
        part, row = self._place_of(position)
        return part.damaged(row, what)

    def _place_of(self, position: int) -> tuple["_Part", int]:
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._parts[number], position - int(self._starts[number])

    def labels(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vote shares (K, A) of some samples (K,), NaN = unknown."""
        return self._gather(positions, "labels")

    def column(self, name: str, positions: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """One field of INDEX_DTYPE (K,) for some samples (K,), or for all."""
        if positions is None:
            return np.concatenate([part.array(name) for part in self._parts])
        return self._gather(positions, name)

    def counts(self, positive_at: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Known positives and known negatives (A,) each of the split, where an attribute counts as present from a vote
        share on.
        """
        if positive_at == COUNTED_AT:
            splits = [manifest.splits[self.split] for manifest in self.manifests if self.split in manifest.splits]
            positives, negatives = (
                np.sum([getattr(split, name) for split in splits], axis=0) for name in ("positives", "negatives")
            )
            return positives, negatives
        positives, negatives = np.zeros((2, len(self.vocabulary)), dtype=np.int64)
        for start in range(0, len(self), _COUNTED_ROWS):  # a copy of all labels may fill much of the memory
            labels = self.labels(np.arange(start, min(start + _COUNTED_ROWS, len(self))))
            positives += (labels >= positive_at).sum(axis=0)
            negatives += (labels < positive_at).sum(axis=0)
        return positives, negatives

    @property
    def object_ids(self) -> NDArray[np.int64]:
        """(N,) the id of every object. Where several folders use the same ids for other objects, those of the k-th
        folder are raised by k times 10^13, which no id reaches.
        """
        ids = self.column("object_id")
        if len(self._parts) == 1 or len(np.unique(ids)) == len(ids):
            return ids
        return ids + np.repeat(np.arange(len(self._parts)), np.diff(self._starts)) * 10**13

    @property
    def shard_samples(self) -> tuple[int, ...]:
        """Samples of each shard, in the order in which samples are numbered."""
        return tuple(size for part in self._parts for size in part.shard_samples)

    def categories(self, positions: NDArray[np.int64] | None = None) -> list[str]:
        """The category names (K) of some samples (K,), or of all."""
        if positions is None:
            return [part.categories[code] for part in self._parts for code in part.array("category").tolist()]
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        codes = self.column("category", positions).tolist()
        return [self._parts[part].categories[code] for part, code in zip(owner.tolist(), codes, strict=True)]

    def _gather(self, positions: NDArray[np.int64], name: str) -> NDArray[Any]:
        first = self._parts[0].array(name)
        if len(self._parts) == 1:
            return first[positions]
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        gathered = np.empty((len(positions), *first.shape[1:]), dtype=first.dtype)
        for number in np.unique(owner):
            mine = owner == number
            gathered[mine] = self._parts[number].array(name)[positions[mine] - self._starts[number]]
        return gathered

    def require_cache(self, window_shards: int) -> None:
        """Refuses a cache in which an epoch would fetch shards again and again.

        Args:
            window_shards: shards that are read from at a time, 0 for all.

        Raises:
            ConfigError: saying how large a cache would do.
        """
        sizes = sorted((size for part in self._parts for size in part.remote_bytes), reverse=True)
        # One more at a seam, and one that is fetched meanwhile.
        needed = sum(sizes[: window_shards + 2] if window_shards else sizes)
        if self.cache is not None and needed > self.cache.limit:
            raise ConfigError(
                f"data.cache_gb: {self.cache.limit / 1e9:g} GB does not hold the {gigabytes_for(needed)} GB of shards that are read from at a time; "
                + ("raise it or lower data.window_shards" if window_shards else "raise it or set data.order block")
            )


class _Part:
    """The samples of one split in one folder: a contiguous range of its index, because shards are of one split and
    sorted by it.
    """

    def __init__(self, files: ShardFiles, manifest: Manifest, split: str) -> None:
        self.place = files.place
        self.categories = manifest.categories
        self._files = files
        self._shards = manifest.shards
        samples = [shard.samples for shard in manifest.shards]
        own = [number for number, shard in enumerate(manifest.shards) if shard.split == split]
        self.shard_samples = [samples[number] for number in own]
        self.remote_bytes = [manifest.shards[number].bytes for number in own] if is_url(files.place) else []
        begin, end = (sum(samples[: own[0]]), sum(samples[: own[-1] + 1])) if own else (0, 0)
        self.index = self._mapped(INDEX, manifest.index_sha256, INDEX_DTYPE, ())[begin:end]
        self.labels = self._mapped(
            LABELS, manifest.labels_sha256, np.dtype(np.float32), (len(manifest.vocabulary.names),)
        )[begin:end]
        if len(self.index) != end - begin or len(self.labels) != end - begin:
            raise ShardError(f"{files.place}: {INDEX} or {LABELS} is too short; {self._how_to_check}")

    def _mapped(self, name: str, sha256: str, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> NDArray[Any]:
        """A file of the folder, mapped into memory. Plain arrays: taking some rows of a `numpy.memmap` costs several
        times as much.
        """
        try:
            array = np.asarray(np.load(self._files.path(name, sha256), mmap_mode="r", allow_pickle=False))
        except AttrtrainError:
            raise
        except OSError as error:
            raise ShardError(f"{self.place}/{name}: {error.strerror or error}; {self._how_to_check}") from None
        except Exception:  # noqa: BLE001  damaged files make NumPy raise nearly anything
            array = np.empty((), dtype)
        if array.dtype != dtype or array.shape[1:] != row_shape or array.ndim == 0:
            raise ShardError(f"{self.place}/{name}: damaged; {self._how_to_check}")
        return array

    def __len__(self) -> int:
        return len(self.index)

    def array(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self.labels if name == "labels" else self.index[name]
        return column

    def jpegs(self, rows: NDArray[np.int64]) -> list[bytes]:
        # Whole columns at once: taking fields of single records costs more than reading the crop does.
        samples = self.index[rows]
        places = (samples[name].tolist() for name in ("shard", "jpeg_bytes", "jpeg_offset", "object_id"))
        return [self._read(*place) for place in zip(*places, strict=True)]

    def details(self, row: int) -> dict[str, Any]:
        sample = self.index[row]
        jpeg_bytes = int(sample["jpeg_bytes"])
        # The JSON is the next member: after the JPEG, filled up to whole blocks, and one block of header.
        start = int(sample["jpeg_offset"]) + -(-jpeg_bytes // BLOCKSIZE) * BLOCKSIZE + BLOCKSIZE
        shard_number, object_id = int(sample["shard"]), int(sample["object_id"])
        data = self._read(shard_number, int(sample["end"]) - start, start, object_id)
        try:
            content = json.loads(data.rstrip(b"\0"))
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ShardError(
                f"{self._files.place}/{self._shards[shard_number].name}: sample {object_id:012d} has no JSON; {self._how_to_check}"
            )
        return content

    def damaged(self, row: int, what: str) -> ShardError:
        sample = self.index[row]
        place = f"{self._files.place}/{self._shards[int(sample['shard'])].name}"
        return ShardError(f"object {sample['object_id']} in {place}: {what}; {self._how_to_check}")

    def _read(self, shard_number: int, size: int, offset: int, object_id: int) -> bytes:
        shard = self._shards[shard_number]
        try:
            data = self._files.read(shard, size, offset)
        except OSError as error:
            raise ShardError(
                f"{self._files.place}/{shard.name}: {error.strerror or error}; {self._how_to_check}"
            ) from None
        if len(data) != size:
            raise ShardError(
                f"{self._files.place}/{shard.name}: ends inside sample {object_id:012d}; {self._how_to_check}"
            )
        return data

    @property
    def _how_to_check(self) -> str:
        return f"check it with `attrtrain verify {self._files.place}`"


def _require_same_kind(folders: Sequence[Path | str], manifests: Sequence[Manifest]) -> None:
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        if manifest.vocabulary.fingerprint != manifests[0].vocabulary.fingerprint:
            raise ShardError(
                f"{folder} has other attributes than {folders[0]}; shards are only read together when their vocabularies are equal"
            )
        if manifest.crop.context != manifests[0].crop.context:
            raise ShardError(
                f"{folder} stores a context of {manifest.crop.context:g}, {folders[0]} of {manifests[0].crop.context:g}; shard them alike"
            )

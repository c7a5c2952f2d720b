"""What lies in a shard folder: the only contract between writing shards and reading them.

    shards/coco/
      manifest.json      Manifest: vocabulary, shards with checksums, statistics of each split, sources, crop settings
      index.npy          (N,) INDEX_DTYPE: where each sample lies, memory-mappable, shards in manifest order
      labels.npy         (N, A) float32 vote shares, NaN = unknown, rows as in index.npy, memory-mappable
      train-000000.tar   samples: <object id>.jpg, <object id>.json; readable with plain webdataset
      val-000000.tar
      plan.json          what was decided before the first pixel was read
      summary.json       the counts of the summary table
      failures.jsonl     each object left out, with its reason
      unmatched.jsonl    each labelled object that the instances files do not know
      records/           one JSON a finished shard: what a restart keeps

manifest.json is written last, so a folder that has one is complete.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attrtrain.contract import Contract, parse_contract, read_contract
from attrtrain.errors import LeftOutError, ShardError
from attrtrain.files import legible
from attrtrain.shards.crop_defaults import CONTEXT, QUALITY, STORE_PX
from attrtrain.urls import read_url
from attrtrain.vocabulary import AttributeVocabulary
from attrtrain.wording import counted

MANIFEST, INDEX, LABELS = "manifest.json", "index.npy", "labels.npy"
_COUNTED_ROWS = 4096
COUNTED_AT = 0.5
"""Vote share from which an attribute counts as present in a manifest's statistics."""

INDEX_DTYPE = np.dtype(
    [
        ("object_id", "<i8"),
        ("image_id", "<i8"),
        ("start", "<i8"),  # the sample's first byte in its tar, headers included
        ("end", "<i8"),  # one past its last
        ("jpeg_offset", "<i8"),
        ("jpeg_bytes", "<i4"),
        ("crc32", "<u4"),  # of the bytes from start to end
        ("shard", "<i4"),  # position in Manifest.shards
        ("category", "<i4"),  # position in Manifest.categories
        ("known", "<i4"),  # attributes that are not unknown
        ("width", "<i4"),  # of the stored crop, pixels
        ("height", "<i4"),
        ("box", "<f4", (4,)),  # x, y, width, height of the object inside the stored crop, pixels
    ]
)


class CropSettings(Contract):
    """How crops are cut and stored."""

    store_px: Annotated[int, Field(ge=8)] = STORE_PX
    """The short side of a stored crop is at most this many pixels; smaller crops are kept as they are."""
    quality: Annotated[int, Field(ge=1, le=100)] = QUALITY
    """JPEG quality."""
    context: Annotated[float, Field(ge=0, le=4)] = CONTEXT
    """Picture kept around the box on each side, as a share of its width and height. R-CNN's 16 of 227 pixels: 0.08."""


class VocabularyRecord(Contract):
    """An `AttributeVocabulary` as JSON, field by field, with the fingerprint that it had when it was written."""

    names: list[str]
    source_ids: list[int]
    groups: list[str]
    fingerprint: str

    @classmethod
    def of(cls, vocabulary: AttributeVocabulary) -> "VocabularyRecord":
        """What is written of a vocabulary."""
        return cls(
            names=list(vocabulary.names),
            source_ids=list(vocabulary.source_ids),
            groups=list(vocabulary.groups),
            fingerprint=vocabulary.fingerprint,
        )

    def vocabulary(self) -> AttributeVocabulary:
        """The vocabulary as it stands here; whether its fingerprint is the one that was written is not asked.

        Raises:
            LabelError: it is none, such as names given twice.
        """
        return AttributeVocabulary(tuple(self.names), tuple(self.source_ids), tuple(self.groups))


class Failure(Contract):
    """An object that was left out, and why."""

    object_id: int
    image: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"object {self.object_id}, {self.detail}"

    @classmethod
    def of(cls, object_id: int, image: str, error: LeftOutError) -> "Failure":
        """What is listed of an object for the error that its crop could not be made with."""
        return cls(object_id=object_id, image=image, reason=error.reason, detail=legible(str(error)))

    @classmethod
    def first_of(cls, listed_in: Path) -> "Failure":
        """The first of those that a file lists, one a line."""
        with listed_in.open("rb") as lines:
            return cls.model_validate_json(next(lines))


def counts_by_reason(failures: Iterable[Failure]) -> dict[str, int]:
    """How many objects were left out for each reason, in alphabetical order of reasons."""
    return dict(sorted(Counter(failure.reason for failure in failures).items()))


def too_many_left_out(lost: int, objects: int, max_failure_rate: float, listed_in: Path) -> str:
    """Says so where more of the objects were left out than the rate allows, and names the first; else ""."""
    if (rate := lost / objects) <= max_failure_rate:
        return ""
    return (
        f"{lost:,} of {counted(objects, 'object')} ({rate:.1%}) {'was' if objects == 1 else 'were'} left out, more than --max-failure-rate {max_failure_rate:g}; "
        f"{listed_in} lists them, the first: {Failure.first_of(listed_in)}"
    )


class ShardInfo(Contract):
    """A shard: its tar's name, the split of all its samples, how many they are, and the tar's bytes and SHA-256."""

    name: str
    split: str
    samples: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class SplitStatistics(Contract):
    """Counts of one split; the lists have one entry an attribute. Positive is a vote share of at least 0.5."""

    objects: int
    images: int
    positives: list[int]
    negatives: list[int]
    unknowns: list[int]

    def __add__(self, other: "SplitStatistics") -> "SplitStatistics":
        """The counts of both together, where they share no photograph."""

        def both(mine: list[int], others: list[int]) -> list[int]:
            return [one + another for one, another in zip(mine, others, strict=True)]

        return SplitStatistics(
            objects=self.objects + other.objects,
            images=self.images + other.images,
            positives=both(self.positives, other.positives),
            negatives=both(self.negatives, other.negatives),
            unknowns=both(self.unknowns, other.unknowns),
        )


def split_statistics(
    index: NDArray[Any], labels: NDArray[np.float32], shards: Sequence[ShardInfo]
) -> dict[str, SplitStatistics]:
    """Counts each split of an index (N,) INDEX_DTYPE and labels (N, A); splits in the order of the shards."""
    split_of_shard = np.array([shard.split for shard in shards], dtype=str)
    statistics = {}
    for split in dict.fromkeys(split_of_shard.tolist()):
        mine = np.flatnonzero((split_of_shard == split)[index["shard"]])
        positives, unknowns = np.zeros((2, labels.shape[1]), dtype=np.int64)
        for start in range(0, len(mine), _COUNTED_ROWS):  # a copy of all labels may fill much of the memory
            part = labels[mine[start : start + _COUNTED_ROWS]]
            positives += (part >= COUNTED_AT).sum(axis=0)
            unknowns += np.isnan(part).sum(axis=0)
        statistics[split] = SplitStatistics(
            objects=len(mine),
            images=len(np.unique(index["image_id"][mine])),
            positives=positives.tolist(),
            negatives=(len(mine) - positives - unknowns).tolist(),
            unknowns=unknowns.tolist(),
        )
    return statistics


class SourceRecord(Contract):
    """A file that labels or annotations came from: its name, size in bytes, and SHA-256."""

    name: str
    bytes: int
    sha256: str


class Manifest(Contract):
    """All that a reader needs to know of a shard folder.

    Attributes:
        categories: names of the objects' categories, sorted; the index has places in this list.
        shards: in the order in which the index numbers them.
        splits: counts of each split, in the order of the shards.
        sources: the label files first, then instances files.
        crop: how crops were cut and stored.
        split_note: a line about where the split comes from.
        left_out: objects without a crop, by reason.
        index_sha256, labels_sha256: of the files beside it.
    """

    schema_version: Literal[1] = 1
    vocabulary: VocabularyRecord
    categories: list[str]
    shards: list[ShardInfo]
    splits: dict[str, SplitStatistics]
    sources: list[SourceRecord]
    crop: CropSettings
    split_note: str
    left_out: dict[str, int]
    index_sha256: str
    labels_sha256: str

    @property
    def held_splits(self) -> list[str]:
        """Names of the splits that hold an object; all of one may have been left out."""
        return [name for name, split in self.splits.items() if split.objects]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the vocabulary and every checksum: equal only for the same samples with the same labels."""
        parts = [
            self.vocabulary.fingerprint,
            self.index_sha256,
            self.labels_sha256,
            *(shard.sha256 for shard in self.shards),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def fingerprint_of(manifests: Sequence[Manifest]) -> str:
    """The fingerprint of several shard folders that are read as one data set, in that order."""
    return hashlib.sha256("\n".join(manifest.fingerprint for manifest in manifests).encode()).hexdigest()


def unlabelled_attributes(manifests: Sequence[Manifest], split: str) -> list[str]:
    """Attributes without one known label in a split of shard folders that share a vocabulary."""
    counts = [manifest.splits[split] for manifest in manifests if split in manifest.splits]
    return [
        name
        for column, name in enumerate(manifests[0].vocabulary.names)
        if not any(split.positives[column] + split.negatives[column] for split in counts)
    ]


def read_manifest(folder: Path | str) -> Manifest:
    """Reads the manifest of a shard folder: a path, or a URL.

    Raises:
        ShardError: the folder has none (it is no shard folder, or sharding has not finished), or one that cannot be
            read.
    """
    if not isinstance(folder, Path):
        return parse_contract(Manifest, _read_remote_manifest(folder), f"{folder}/{MANIFEST}", ShardError)
    path = folder / MANIFEST
    if folder.is_file():
        raise ShardError(f"{folder}: is a file; give the shard folder it is in")
    if not folder.is_dir():
        raise ShardError(f"{folder}: no such shard folder; make one with `attrtrain shard --out {folder}`")
    if not path.is_file():
        unfinished = (folder / "plan.json").exists()
        raise ShardError(
            f"{folder}: "
            + (
                "sharding has not finished; run the same `attrtrain shard` command again"
                if unfinished
                else f"has no {MANIFEST}, so it is no shard folder"
            )
        )
    return read_contract(Manifest, path, ShardError)


def _read_remote_manifest(url: str) -> bytes:
    try:
        return read_url(f"{url}/{MANIFEST}")
    except FileNotFoundError:
        raise ShardError(f"{url}: has no {MANIFEST}, so it is no finished shard folder") from None

"""The records of finished shards → index, labels, counts and, last, the manifest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable
from attrtrain.contract import Contract, read_contract, write_contract
from attrtrain.errors import ShardError
from attrtrain.files import atomic_write, sha256_of
from attrtrain.shards.manifest import (
    INDEX,
    INDEX_DTYPE,
    LABELS,
    MANIFEST,
    CropSettings,
    Failure,
    Manifest,
    ShardInfo,
    SourceRecord,
    SplitStatistics,
    VocabularyRecord,
    counts_by_reason,
    split_statistics,
)
from attrtrain.shards.plan import PlannedShard, ShardPlan
from attrtrain.shards.write import SampleColumns, ShardRecord, record_path

SUMMARY, FAILURES, UNMATCHED = "summary.json", "failures.jsonl", "unmatched.jsonl"


class Summary(Contract):
    """The counts of a finished shard folder, as `summary.json` has them."""

    label_objects: int
    matched: int
    no_annotation: int
    written: int
    left_out: dict[str, int]
    splits: dict[str, dict[str, int]]


@dataclass(frozen=True)
class _Finished:
    """What the record of a finished shard tells beside its samples.

    Attributes:
        info, failures: as in the record.
        record_sha256: of the record's file.
    """

    info: ShardInfo
    failures: list[Failure]
    record_sha256: str


class _Rows:
    """An .npy file that is written a few rows at a time."""

    def __init__(self, file: BinaryIO, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self._file, self._dtype, self._row_shape = file, dtype, row_shape
        self._rows = 0
        self.write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Takes in rows (K, *row_shape) of that type."""
        self._file.write(rows.tobytes())
        self._rows += len(rows)

    def write_header(self) -> None:
        """Says how many rows there are so far; it has the same length for any number of them (NumPy's format 1.0)."""
        self._file.seek(0)
        shape = (self._rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _write_arrays(
    folder: Path, plan: ShardPlan, table: ObjectTable, categories: list[str]
) -> tuple[list[_Finished], dict[str, SplitStatistics]]:
    """Writes index and labels of all samples, shard by shard: records, and a copy of the labels, take more memory than
    all else here.

    Returns:
        What else the records tell, and the counts of each split.
    """
    finished: list[_Finished] = []
    splits: dict[str, SplitStatistics] = {}
    with atomic_write(folder / INDEX) as index_file, atomic_write(folder / LABELS) as labels_file:
        index = _Rows(index_file, INDEX_DTYPE, ())
        labels = _Rows(labels_file, np.dtype(np.float32), (len(table.vocabulary),))
        for number, shard in enumerate(plan.shards):
            one, samples = _read_record(folder, shard)
            own_index, own_labels = _index_of(samples, shard.rows, table, categories)
            counts = split_statistics(own_index, own_labels, [one.info])[shard.split]
            # No photograph is in two shards of a split, so those of shards add up to those of the split.
            splits[shard.split] = splits[shard.split] + counts if shard.split in splits else counts
            own_index["shard"] = number
            index.append(own_index)
            labels.append(own_labels)
            finished.append(one)
        index.write_header()
        labels.write_header()
    return finished, splits


def _index_of(
    samples: SampleColumns, rows: NDArray[np.int64], table: ObjectTable, categories: list[str]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """The index (K,) INDEX_DTYPE of the K samples of a shard, as if it were the first one, whose objects are some of
    these rows of the table, and their labels (K, A).
    """
    index = np.zeros(len(samples.object_id), dtype=INDEX_DTYPE)
    for field in SampleColumns.model_fields:
        index[field] = np.array(getattr(samples, field)).reshape(index[field].shape)
    object_id = table.object_id[rows]
    by_id = np.argsort(object_id)
    own = rows[by_id[np.searchsorted(object_id, index["object_id"], sorter=by_id)]]
    labels = table.labels[own]
    index["image_id"] = table.image_id[own]
    index["category"] = np.searchsorted(categories, table.category[own])
    index["known"] = labels.shape[1] - np.isnan(labels).sum(axis=1)
    return index, labels


def _read_record(folder: Path, shard: PlannedShard) -> tuple[_Finished, SampleColumns]:
    try:
        sha256 = sha256_of(record_path(folder, shard.name))  # before it is read: a change in between is noticed
    except FileNotFoundError:
        sha256 = ""
    if (record := _record_of(folder, shard)) is None:
        raise ShardError(
            f"{folder}: shard {shard.name} has not been written yet; run the same `attrtrain shard` command again"
        )
    return _Finished(record.info, record.failures, sha256), record.samples


def unwritten(folder: Path, shards: Sequence[PlannedShard]) -> list[str]:
    """Names of the shards that are not on record, or whose tar is not there or of another size than the record says.

    Checksums are not compared: that would read all there is. `attrtrain verify` does.
    """
    return [shard.name for shard in shards if _record_of(folder, shard) is None]


def _record_of(folder: Path, shard: PlannedShard) -> ShardRecord | None:
    try:
        record = read_contract(ShardRecord, record_path(folder, shard.name), ShardError)
        is_there = (folder / record.info.name).stat().st_size == record.info.bytes
    except (ShardError, OSError):
        return None
    return record if is_there and record.plan_hash == shard.hash else None


def count(folder: Path, shards: Sequence[PlannedShard]) -> tuple[int, dict[str, int]]:
    """Objects written in some finished shards, and objects left out, by reason."""
    records = [read_contract(ShardRecord, record_path(folder, shard.name), ShardError) for shard in shards]
    written = sum(record.info.samples for record in records)
    return written, counts_by_reason(failure for record in records for failure in record.failures)


def finish(folder: Path, plan: ShardPlan, table: ObjectTable, crop: CropSettings, split_note: str) -> Summary:
    """Gathers the records of a plan whose shards are all written into index, labels, counts and, last, the manifest.

    Raises:
        ShardError: a shard is not written yet, or is being written again meanwhile, or the disk is full.
    """
    categories = np.unique(table.category).tolist()
    try:
        finished, splits = _write_arrays(folder, plan, table, categories)
        failures = [failure for one in finished for failure in one.failures]
        left_out = counts_by_reason(failures)
        summary = Summary(
            label_objects=len(table) + len(table.unmatched),
            matched=len(table),
            no_annotation=len(table.unmatched),
            written=sum(one.info.samples for one in finished),
            left_out=left_out,
            splits={name: {"objects": split.objects, "images": split.images} for name, split in splits.items()},
        )
        with atomic_write(folder / FAILURES) as file:
            file.writelines(failure.model_dump_json().encode() + b"\n" for failure in failures)
        with atomic_write(folder / UNMATCHED) as file:
            file.writelines(json.dumps({"object_id": int(object_id)}).encode() + b"\n" for object_id in table.unmatched)
        write_contract(summary, folder / SUMMARY)
        manifest = Manifest(
            vocabulary=VocabularyRecord.of(table.vocabulary),
            categories=categories,
            shards=[one.info for one in finished],
            splits=splits,
            sources=[
                SourceRecord(name=source.name, bytes=source.bytes, sha256=source.sha256) for source in table.sources
            ],
            crop=crop,
            split_note=split_note,
            left_out=left_out,
            index_sha256=sha256_of(folder / INDEX),  # read back, because their headers were written last
            labels_sha256=sha256_of(folder / LABELS),
        )
        write_contract(manifest, folder / MANIFEST)
        _require_unchanged(folder, finished)
    except OSError as error:
        raise ShardError(
            f"{folder}: {error.strerror or error}; the shards are kept: mend that and run the same command again"
        ) from None
    return summary


def _require_unchanged(folder: Path, finished: Sequence[_Finished]) -> None:
    """Takes the manifest back where another process has begun to write a shard again; see `write.discard`."""
    for one in finished:
        try:
            unchanged = sha256_of(record_path(folder, Path(one.info.name).stem)) == one.record_sha256
        except FileNotFoundError:
            unchanged = False
        if not unchanged:
            (folder / MANIFEST).unlink(missing_ok=True)
            raise ShardError(
                f"{folder}: {one.info.name} is being written again by another `attrtrain shard`; "
                "merge when that has finished"
            )

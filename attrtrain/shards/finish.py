"""The records of finished shards → index, labels, counts and, last, the manifest."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import ShardError
from attrtrain.files import atomic_write, sha256_of
from attrtrain.shards.manifest import (
    INDEX,
    INDEX_DTYPE,
    LABELS,
    MANIFEST,
    Contract,
    CropSettings,
    Failure,
    Manifest,
    ShardInfo,
    SourceRecord,
    VocabularyRecord,
    read_contract,
    split_statistics,
    write_contract,
)
from attrtrain.shards.plan import PlannedShard, ShardPlan
from attrtrain.shards.write import Sample, ShardRecord, record_path

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


def _read_finished(folder: Path, plan: ShardPlan) -> tuple[list[_Finished], NDArray[Any]]:
    """Every shard's record, and the index (N,) INDEX_DTYPE of all samples but for what only the table knows."""
    # Filled shard by shard, because a record takes a kilobyte an object.
    index = np.zeros(sum(len(shard.rows) for shard in plan.shards), dtype=INDEX_DTYPE)
    finished, size = [], 0
    for number, shard in enumerate(plan.shards):
        one, samples = _read_record(folder, shard)
        mine = index[size : size + len(samples)]
        for field in Sample.model_fields:
            mine[field] = np.array([getattr(sample, field) for sample in samples]).reshape(mine[field].shape)
        mine["shard"] = number
        finished.append(one)
        size += len(samples)
    return finished, index[:size]


def _read_record(folder: Path, shard: PlannedShard) -> tuple[_Finished, list[Sample]]:
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
        record = read_contract(ShardRecord, record_path(folder, shard.name))
        is_there = (folder / record.info.name).stat().st_size == record.info.bytes
    except (ShardError, OSError):
        return None
    return record if is_there and record.plan_hash == shard.hash else None


def count(folder: Path, shards: Sequence[PlannedShard]) -> tuple[int, dict[str, int]]:
    """Objects written in some finished shards, and objects left out, by reason."""
    records = [read_contract(ShardRecord, record_path(folder, shard.name)) for shard in shards]
    written = sum(record.info.samples for record in records)
    return written, _left_out([failure for record in records for failure in record.failures])


def _left_out(failures: Sequence[Failure]) -> dict[str, int]:
    return dict(sorted(Counter(failure.reason for failure in failures).items()))


def finish(folder: Path, plan: ShardPlan, table: ObjectTable, crop: CropSettings, split_note: str) -> Summary:
    """Gathers the records of a plan whose shards are all written into index, labels, counts and, last, the manifest.

    Raises:
        ShardError: a shard is not written yet, or is being written again meanwhile, or the disk is full.
    """
    finished, index = _read_finished(folder, plan)
    shards = [one.info for one in finished]
    categories = np.unique(table.category).tolist()
    labels = _complete(index, table, categories)
    failures = [failure for one in finished for failure in one.failures]
    left_out = _left_out(failures)
    splits = split_statistics(index, labels, shards)
    summary = Summary(
        label_objects=len(table) + len(table.unmatched),
        matched=len(table),
        no_annotation=len(table.unmatched),
        written=len(index),
        left_out=left_out,
        splits={name: {"objects": split.objects, "images": split.images} for name, split in splits.items()},
    )
    try:
        index_sha256 = _write_array(folder / INDEX, index)
        labels_sha256 = _write_array(folder / LABELS, labels)
        with atomic_write(folder / FAILURES) as file:
            file.writelines(failure.model_dump_json().encode() + b"\n" for failure in failures)
        with atomic_write(folder / UNMATCHED) as file:
            file.writelines(json.dumps({"object_id": int(object_id)}).encode() + b"\n" for object_id in table.unmatched)
        write_contract(summary, folder / SUMMARY)
        manifest = Manifest(
            vocabulary=VocabularyRecord.of(table.vocabulary),
            categories=categories,
            shards=shards,
            splits=splits,
            sources=[
                SourceRecord(name=source.name, bytes=source.bytes, sha256=source.sha256) for source in table.sources
            ],
            crop=crop,
            split_note=split_note,
            left_out=left_out,
            index_sha256=index_sha256,
            labels_sha256=labels_sha256,
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


def _complete(index: NDArray[Any], table: ObjectTable, categories: list[str]) -> NDArray[np.float32]:
    """Fills in what the table knows of an index (N,) INDEX_DTYPE, and returns the labels (N, A) of its samples."""
    by_id = np.argsort(table.object_id)
    rows = by_id[np.searchsorted(table.object_id, index["object_id"], sorter=by_id)]
    labels = table.labels[rows]
    index["image_id"] = table.image_id[rows]
    index["category"] = np.searchsorted(categories, table.category[rows])
    index["known"] = labels.shape[1] - np.isnan(labels).sum(axis=1)
    return labels


def _write_array(path: Path, array: np.ndarray[Any, Any]) -> str:
    """Writes an .npy file and returns its SHA-256."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    content = np.ascontiguousarray(array).data.cast("B") if array.size else b""
    digest = hashlib.sha256(header.getvalue())
    digest.update(content)
    with atomic_write(path) as file:
        file.write(header.getvalue())
        file.write(content)
    return digest.hexdigest()

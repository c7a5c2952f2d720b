"""The records of finished shards → index, labels, counts and, last, the manifest."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import ShardError
from attrtrain.files import atomic_write
from attrtrain.shards.manifest import (
    INDEX,
    INDEX_DTYPE,
    LABELS,
    MANIFEST,
    Contract,
    CropSettings,
    Manifest,
    SourceRecord,
    VocabularyRecord,
    read_contract,
    split_statistics,
    write_contract,
)
from attrtrain.shards.plan import PlannedShard, ShardPlan
from attrtrain.shards.write import ShardRecord, record_path

SUMMARY, FAILURES, UNMATCHED = "summary.json", "failures.jsonl", "unmatched.jsonl"


class Summary(Contract):
    """The counts of a finished shard folder, as `summary.json` has them."""

    label_objects: int
    matched: int
    no_annotation: int
    written: int
    left_out: dict[str, int]
    splits: dict[str, dict[str, int]]


def unwritten(folder: Path, shards: Sequence[PlannedShard]) -> list[str]:
    """Names of the shards that are not on record, or whose tar is not there or of another size than the record says.

    Checksums are not compared: that would read all there is. `attrtrain verify` does.
    """
    return [shard.name for shard in shards if not _is_written(folder, shard)]


def _is_written(folder: Path, shard: PlannedShard) -> bool:
    try:
        record = read_contract(ShardRecord, record_path(folder, shard.name))
        return record.plan_hash == shard.hash and (folder / record.info.name).stat().st_size == record.info.bytes
    except (ShardError, OSError):
        return False


def count(folder: Path, shards: Sequence[PlannedShard]) -> tuple[int, dict[str, int]]:
    """Objects written in some finished shards, and objects left out, by reason."""
    records = [read_contract(ShardRecord, record_path(folder, shard.name)) for shard in shards]
    return sum(record.info.samples for record in records), _left_out(records)


def _left_out(records: Sequence[ShardRecord]) -> dict[str, int]:
    return dict(sorted(Counter(failure.reason for record in records for failure in record.failures).items()))


def finish(folder: Path, plan: ShardPlan, table: ObjectTable, crop: CropSettings, split_note: str) -> Summary:
    """Gathers the records of a plan whose shards are all written into index, labels, counts and, last, the manifest.

    Raises:
        ShardError: a shard is not written yet, or is being written again meanwhile, or the disk is full.
    """
    if missing := unwritten(folder, plan.shards):
        raise ShardError(
            f"{folder}: shard {missing[0]} has not been written yet; run the same `attrtrain shard` command again"
        )
    records = [read_contract(ShardRecord, record_path(folder, shard.name)) for shard in plan.shards]
    categories = sorted(set(table.category.tolist()))
    index, rows = _index(records, table, categories)
    labels = table.labels[rows]
    failures = [failure for record in records for failure in record.failures]
    left_out = _left_out(records)
    splits = split_statistics(index, labels, [record.info for record in records])
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
            shards=[record.info for record in records],
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
        _require_unchanged(folder, records)
    except OSError as error:
        raise ShardError(
            f"{folder}: {error.strerror or error}; the shards are kept: mend that and run the same command again"
        ) from None
    return summary


def _require_unchanged(folder: Path, records: Sequence[ShardRecord]) -> None:
    """Takes the manifest back where another process has begun to write a shard again; see `write.discard`."""
    for record in records:
        path = record_path(folder, Path(record.info.name).stem)
        if not path.exists() or read_contract(ShardRecord, path) != record:
            (folder / MANIFEST).unlink(missing_ok=True)
            raise ShardError(
                f"{folder}: {record.info.name} is being written again by another `attrtrain shard`; "
                "merge when that has finished"
            )


def _index(
    records: Sequence[ShardRecord], table: ObjectTable, categories: list[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The index array (N,) INDEX_DTYPE over all records, and the row of `table` (N,) behind each of its entries."""
    index = np.zeros(sum(len(record.samples) for record in records), dtype=INDEX_DTYPE)
    position = 0
    for number, record in enumerate(records):
        for sample in record.samples:
            for field, value in sample:
                index[field][position] = value
            index["shard"][position] = number
            position += 1
    by_id = np.argsort(table.object_id)
    rows = by_id[np.searchsorted(table.object_id, index["object_id"], sorter=by_id)]
    index["image_id"] = table.image_id[rows]
    index["category"] = np.searchsorted(categories, table.category[rows])
    index["known"] = (~np.isnan(table.labels[rows])).sum(axis=1)
    return index, rows


def _write_array(path: Path, array: np.ndarray[Any, Any]) -> str:
    """Writes an .npy file and returns its SHA-256."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()

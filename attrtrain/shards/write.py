"""Plan → tar shards, one job a shard, each finished shard on record.

A shard is written under a hidden name, moved to its own, and then recorded in `records/`. A restart keeps shards that
have a record made from the same plan and still the bytes it tells, and does the others again: being killed at any
moment costs the shards in progress and nothing else, and a damaged shard is mended by the same command that wrote it.
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import ShardError
from attrtrain.files import atomic_write, remove_partials, sha256_of
from attrtrain.shards.crop import Crop, LeftOutError, cut, find_image, load_image
from attrtrain.shards.manifest import (
    INDEX,
    INDEX_DTYPE,
    LABELS,
    MANIFEST,
    Contract,
    CropSettings,
    Manifest,
    ShardInfo,
    SourceRecord,
    VocabularyRecord,
    read_contract,
    split_statistics,
    write_contract,
)
from attrtrain.shards.plan import PlanInputs, ShardPlan

PLAN, SUMMARY, FAILURES, UNMATCHED, RECORDS = (
    "plan.json",
    "summary.json",
    "failures.jsonl",
    "unmatched.jsonl",
    "records",
)
_END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


class Failure(Contract):
    """An object that was left out, and why."""

    object_id: int
    image: str
    reason: str
    detail: str


class Sample(Contract):
    """Where one sample lies in its shard; fields as in INDEX_DTYPE."""

    object_id: int
    start: int
    end: int
    jpeg_offset: int
    jpeg_bytes: int
    crc32: int
    width: int
    height: int
    box: tuple[float, float, float, float]


class ShardRecord(Contract):
    """A finished shard. `plan_hash` ties it to the plan it was written from."""

    plan_hash: str
    info: ShardInfo
    samples: list[Sample]
    failures: list[Failure]


class Summary(Contract):
    """The counts of a finished shard folder, as `summary.json` has them."""

    label_objects: int
    matched: int
    no_annotation: int
    written: int
    left_out: dict[str, int]
    splits: dict[str, dict[str, int]]


@dataclass(frozen=True)
class ShardJob:
    """All that is needed to write one shard, on any machine that sees the folders."""

    folder: Path
    name: str
    split: str
    plan_hash: str
    table: ObjectTable  # of this shard's objects only
    image_folders: tuple[Path, ...]
    crop: CropSettings


def prepare(folder: Path, plan: ShardPlan) -> None:
    """Makes the folder ready for this plan.

    Raises:
        ShardError: the folder holds shards of another plan; the message says what differs. Nothing was touched then.
        OSError: the folder cannot be written.
    """
    path = folder / PLAN
    is_new = not path.exists()
    if is_new and ((folder / MANIFEST).exists() or any(folder.glob("*.tar"))):
        raise ShardError(f"{folder} holds tar files without a {PLAN}; choose an empty folder for --out")
    if not is_new and (differences := plan.inputs.differences(read_contract(PlanInputs, path))):
        raise ShardError(
            f"{folder} holds shards of another plan ({'; '.join(differences)}); "
            "choose another --out, or delete that folder"
        )
    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    clean(folder)
    if is_new:
        write_contract(plan.inputs, path)


def clean(folder: Path) -> None:
    """Removes the hidden, unfinished files of writers that were killed."""
    remove_partials(folder)
    remove_partials(folder / RECORDS)


def pending_jobs(
    folder: Path, plan: ShardPlan, table: ObjectTable, image_folders: Sequence[Path], crop: CropSettings
) -> list[ShardJob]:
    """The shards of the plan that are not written yet, are damaged, or would come out otherwise now."""
    jobs = (
        ShardJob(folder, shard.name, shard.split, shard.hash, table.take(shard.rows), tuple(image_folders), crop)
        for shard in plan.shards
    )
    return [job for job in jobs if not _is_finished(job)]


def _is_finished(job: ShardJob) -> bool:
    """Whether a shard is on record, has the bytes that were written, and its left-out photographs are no better now."""
    path = job.folder / RECORDS / f"{job.name}.json"
    if not path.exists():
        return False
    try:
        record = read_contract(ShardRecord, path)
    except ShardError:
        return False
    if record.plan_hash != job.plan_hash or not _is_whole(job.folder / record.info.name, record.info):
        return False
    # A picture that was missing or half downloaded may have come since.
    reason_of = {
        failure.object_id: failure.reason for failure in record.failures if failure.reason.startswith("image_")
    }
    left_out = np.flatnonzero(np.isin(job.table.object_id, list(reason_of)))
    return all(
        isinstance(outcome, LeftOutError) and outcome.reason == reason_of[int(job.table.object_id[row])]
        for row, outcome in _crops(replace(job, table=job.table.take(left_out)))
    )


def _is_whole(tar: Path, info: ShardInfo) -> bool:
    try:
        return tar.stat().st_size == info.bytes and sha256_of(tar) == info.sha256
    except OSError:
        return False


def write_shard(job: ShardJob, on_object: Callable[[], object] = lambda: None) -> ShardInfo:
    """Writes one shard and its record.

    Args:
        on_object: called after each object, for a progress bar.

    Raises:
        ShardError: the disk is full, or the folder cannot be written.
    """
    path = job.folder / f"{job.name}.tar"
    try:
        with atomic_write(path) as file:
            samples, failures, sha256 = _write_samples(job, file, on_object)
            size = file.tell()
        info = ShardInfo(name=path.name, split=job.split, samples=len(samples), bytes=size, sha256=sha256)
        record = ShardRecord(plan_hash=job.plan_hash, info=info, samples=samples, failures=failures)
        write_contract(record, job.folder / RECORDS / f"{job.name}.json")
    except FileNotFoundError:
        raise ShardError(
            f"{path}: the unfinished file was taken away; is another `attrtrain shard` writing to this folder?"
        ) from None
    except OSError as error:
        raise ShardError(
            f"{path}: {error.strerror or error}; finished shards are kept: mend that and run the same command again"
        ) from None
    except MemoryError:
        raise ShardError(
            f"{path}: out of memory; finished shards are kept: run the same command again, with fewer --workers"
        ) from None
    return info


def _write_samples(
    job: ShardJob, file: BinaryIO, on_object: Callable[[], object]
) -> tuple[list[Sample], list[Failure], str]:
    """Writes a whole tar; returns what is in it, what is not, and the SHA-256 of its bytes."""
    samples: list[Sample] = []
    failures: list[Failure] = []
    digest, position = hashlib.sha256(), 0
    for row, outcome in _crops(job):
        on_object()
        object_id = int(job.table.object_id[row])
        if isinstance(outcome, LeftOutError):
            failures.append(
                Failure(
                    object_id=object_id,
                    image=str(job.table.image[row]),
                    reason=outcome.reason,
                    detail=str(outcome),
                )
            )
            continue
        key = f"{object_id:012d}"
        content = tar_member(f"{key}.jpg", outcome.jpeg) + tar_member(f"{key}.json", _sample_json(job, row, outcome))
        file.write(content)
        digest.update(content)
        samples.append(
            Sample(
                object_id=object_id,
                start=position,
                end=position + len(content),
                jpeg_offset=position + tarfile.BLOCKSIZE,
                jpeg_bytes=len(outcome.jpeg),
                crc32=zlib.crc32(content),
                width=outcome.size[0],
                height=outcome.size[1],
                box=outcome.box,
            )
        )
        position += len(content)
    file.write(_END_OF_TAR)
    digest.update(_END_OF_TAR)
    return samples, failures, digest.hexdigest()


def _crops(job: ShardJob) -> Iterator[tuple[int, Crop | LeftOutError]]:
    """Yields each row of the job with its crop, or the reason why there is none. Each photograph is decoded once."""
    table = job.table
    # By file name and not by id: were two files given one id, each object would still come from the file its row names.
    photographs = zip(table.image.tolist(), *table.image_size.T.tolist(), strict=True)
    for (name, *size), group in groupby(zip(photographs, range(len(table)), strict=True), key=itemgetter(0)):
        rows = [row for _, row in group]
        try:
            image = load_image(find_image(name, job.image_folders), (size[0], size[1]))
        except LeftOutError as error:
            yield from ((row, error) for row in rows)
            continue
        for row in rows:
            x, y, width, height = map(float, table.box[row])
            try:
                yield row, cut(image, (x, y, width, height), bool(table.crowd[row]), job.crop)
            except LeftOutError as error:
                yield row, error


def tar_member(name: str, data: bytes) -> bytes:
    """One USTAR member, uncompressed, without time or owner: equal content gives equal bytes."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _sample_json(job: ShardJob, row: int, crop: Crop) -> bytes:
    table = job.table
    labels = table.labels[row]
    content = {
        "object_id": int(table.object_id[row]),
        "image_id": int(table.image_id[row]),
        "image": str(table.image[row]),
        "category": str(table.category[row]),
        "split": job.split,
        "source_size": list(crop.source_size),
        "source_box": [float(value) for value in table.box[row]],
        "crop_size": list(crop.size),
        "box": [round(value, 3) for value in crop.box],
        "labels": {
            # str() of a float32 has the fewest digits that read back as that float32: 0.1, not 0.10000000149011612
            table.vocabulary.names[i]: float(str(labels[i]))
            for i in np.flatnonzero(~np.isnan(labels))
        },
    }
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def finish(folder: Path, plan: ShardPlan, table: ObjectTable, crop: CropSettings, split_note: str) -> Summary:
    """Gathers the records of a plan whose shards are all written into index, labels, counts and, last, the manifest.

    Raises:
        ShardError: a shard is not on record yet, or the disk is full.
    """
    records = []
    for shard in plan.shards:
        path = folder / RECORDS / f"{shard.name}.json"
        if not path.exists():
            raise ShardError(
                f"{folder}: shard {shard.name} has not been written yet; run the same `attrtrain shard` command again"
            )
        records.append(read_contract(ShardRecord, path))
    categories = sorted(set(table.category.tolist()))
    index, rows = _index(records, table, categories)
    labels = table.labels[rows]
    failures = [failure for record in records for failure in record.failures]
    left_out = dict(sorted(Counter(failure.reason for failure in failures).items()))
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
    except OSError as error:
        raise ShardError(
            f"{folder}: {error.strerror or error}; the shards are kept: mend that and run the same command again"
        ) from None
    return summary


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

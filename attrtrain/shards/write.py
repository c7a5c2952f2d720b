"""Plan → tar shards, one job a shard, each finished shard on record.

A shard is written under a hidden name, moved to its own, and then recorded in `records/`. A restart keeps shards that have a record made
from the same plan and does the others again, so being killed at any moment costs the shards in progress and nothing else.
"""

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import ShardError
from attrtrain.files import atomic_write, remove_partials
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
    SplitStatistics,
    VocabularyRecord,
    read_contract,
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
    """
    path = folder / PLAN
    if path.exists():
        if differences := plan.inputs.differences(read_contract(PlanInputs, path)):
            raise ShardError(
                f"{folder} holds shards of another plan ({'; '.join(differences)}); choose another --out, or delete that folder"
            )
        return
    if (folder / MANIFEST).exists() or any(folder.glob("*.tar")):
        raise ShardError(f"{folder} holds tar files without a {PLAN}; choose an empty folder for --out")
    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    write_contract(plan.inputs, path)


def pending_jobs(
    folder: Path, plan: ShardPlan, table: ObjectTable, image_folders: Sequence[Path], crop: CropSettings
) -> list[ShardJob]:
    """The shards of the plan that are not finished yet."""
    return [
        ShardJob(folder, shard.name, shard.split, shard.hash, table.take(shard.rows), tuple(image_folders), crop)
        for shard in plan.shards
        if not _is_finished(folder, shard.name, shard.hash, image_folders)
    ]


def _is_finished(folder: Path, name: str, plan_hash: str, image_folders: Sequence[Path]) -> bool:
    """Whether a shard is on record, whole, and would come out the same if it were written again."""
    path = folder / RECORDS / f"{name}.json"
    if not path.exists():
        return False
    record = read_contract(ShardRecord, path)
    tar = folder / record.info.name
    if record.plan_hash != plan_hash or not tar.exists() or tar.stat().st_size != record.info.bytes:
        return False
    # A picture that was missing or half downloaded may have come since.
    return not any(_may_succeed_now(failure, image_folders) for failure in record.failures)


def _may_succeed_now(failure: Failure, image_folders: Sequence[Path]) -> bool:
    match failure.reason:
        case "image_broken" | "image_size_differs":
            return True
        case "image_missing":
            try:
                find_image(failure.image, image_folders)
            except LeftOutError:
                return False
            return True
    return False


def write_shards(
    jobs: Sequence[ShardJob], executor: Executor, write_one: Callable[[ShardJob], ShardInfo]
) -> Iterator[ShardInfo]:
    """Writes shards on any executor and yields each, in the plan's order, as it is finished.

    Args:
        write_one: `write_shard`, or a function around it that the executor can send to its workers.

    Raises:
        ShardError: a shard could not be written, for example because the disk is full. Finished shards stay.
    """
    futures: list[Future[ShardInfo]] = [executor.submit(write_one, job) for job in jobs]
    try:
        for future in futures:
            yield future.result()
    except BrokenProcessPool:
        raise ShardError(
            "a worker process died (out of memory?); finished shards are kept: run the same command again, with fewer --workers"
        ) from None
    finally:
        for future in futures:
            future.cancel()


def write_shard(job: ShardJob, on_object: Callable[[], object] = lambda: None) -> ShardInfo:
    """Writes one shard and its record.

    Args:
        on_object: called after each object, for a progress bar.

    Raises:
        ShardError: the disk is full, or the folder cannot be written.
    """
    path = job.folder / f"{job.name}.tar"
    digest, position = hashlib.sha256(), 0
    samples: list[Sample] = []
    failures: list[Failure] = []
    try:
        remove_partials(job.folder, path.name)
        with atomic_write(path) as file:
            for row, outcome in _crops(job):
                on_object()
                if isinstance(outcome, LeftOutError):
                    failures.append(
                        Failure(
                            object_id=job.table.object_id[row],
                            image=str(job.table.image[row]),
                            reason=outcome.reason,
                            detail=str(outcome),
                        )
                    )
                    continue
                key = f"{job.table.object_id[row]:012d}"
                content = tar_member(f"{key}.jpg", outcome.jpeg) + tar_member(
                    f"{key}.json", _sample_json(job, row, outcome)
                )
                file.write(content)
                digest.update(content)
                samples.append(
                    Sample(
                        object_id=job.table.object_id[row],
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
        info = ShardInfo(
            name=path.name,
            split=job.split,
            samples=len(samples),
            bytes=position + len(_END_OF_TAR),
            sha256=digest.hexdigest(),
        )
        record = ShardRecord(plan_hash=job.plan_hash, info=info, samples=samples, failures=failures)
        write_contract(record, job.folder / RECORDS / f"{job.name}.json")
    except OSError as error:
        raise ShardError(
            f"{path}: {error.strerror or error}; finished shards are kept: mend that and run the same command again"
        ) from None
    return info


def _crops(job: ShardJob) -> Iterator[tuple[int, Crop | LeftOutError]]:
    """Yields each row of the job with its crop, or with the reason why there is none. Each photograph is decoded once."""
    table = job.table
    for _, group in groupby(range(len(table)), key=lambda row: table.image_id[row]):
        rows = list(group)
        try:
            size = (int(table.image_size[rows[0], 0]), int(table.image_size[rows[0], 1]))
            image = load_image(find_image(str(table.image[rows[0]]), job.image_folders), size)
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
        "source_box": [float(value) for value in table.box[row]],
        "crop_size": list(crop.size),
        "box": [round(value, 3) for value in crop.box],
        "labels": {
            job.table.vocabulary.names[i]: round(float(labels[i]), 6) for i in np.flatnonzero(~np.isnan(labels))
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
    splits = _statistics(index, labels, records)
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


def _statistics(
    index: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], records: Sequence[ShardRecord]
) -> dict[str, SplitStatistics]:
    split_of_shard = np.array([record.info.split for record in records])
    statistics = {}
    for split in dict.fromkeys(split_of_shard.tolist()):
        mine = split_of_shard[index["shard"]] == split
        unknown = np.isnan(labels[mine])
        positive = labels[mine] >= 0.5
        statistics[split] = SplitStatistics(
            objects=int(mine.sum()),
            images=len(np.unique(index["image_id"][mine])),
            positives=positive.sum(axis=0).tolist(),
            negatives=(~positive & ~unknown).sum(axis=0).tolist(),
            unknowns=unknown.sum(axis=0).tolist(),
        )
    return statistics


def _write_array(path: Path, array: np.ndarray[Any, Any]) -> str:
    """Writes an .npy file and returns its SHA-256."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def exit_if_orphaned(parent: int) -> None:
    """Ends a worker process whose parent was killed, before it can write beside the run that takes over."""
    if os.getppid() != parent:
        os._exit(1)

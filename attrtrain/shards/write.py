"""Plan → tar shards, one job a shard, each finished shard on record.

A shard is written under a hidden name, moved to its own, and then recorded in `records/`. A restart keeps shards that
have a record made from the same plan and still the bytes it tells, and does the others again: being killed at any
moment costs the shards in progress and nothing else, and a damaged shard is mended by the same command that wrote it.
"""

import hashlib
import platform
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable
from attrtrain.contract import Contract, read_contract, to_json, write_contract
from attrtrain.errors import LeftOutError, ShardError
from attrtrain.files import atomic_write, begin_writing_back, create_once, remove_partials, sha256_of
from attrtrain.shards.manifest import MANIFEST, CropSettings, Failure, ShardInfo
from attrtrain.shards.photographs import crops_of
from attrtrain.shards.plan import PlanInputs, PlannedShard, ShardPlan
from attrtrain.shards.sample import SampleWriter

PLAN, RECORDS = "plan.json", "records"
_BUFFER_BYTES = 1 << 20  # of a tar: small pieces take the system longer to keep than large ones
_END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


class TakenAwayError(ShardError):
    """An unfinished file is gone: another process makes ready to write the same shard, so the folder is no longer ours
    to tidy.
    """


class SampleColumns(Contract):
    """Where the samples of a shard lie, one after the other; a column for a field of INDEX_DTYPE."""

    object_id: list[int]
    start: list[int]
    end: list[int]
    jpeg_offset: list[int]
    jpeg_bytes: list[int]
    crc32: list[int]
    width: list[int]
    height: list[int]
    box: list[tuple[float, float, float, float]]

    @classmethod
    def of(cls, samples: Sequence[tuple[object, ...]]) -> "SampleColumns":
        """Turns rows into columns; a row has the fields in this order. What they hold is not looked at again."""
        values = map(list, zip(*samples, strict=True)) if samples else ([] for _ in cls.model_fields)
        columns: dict[str, Any] = dict(zip(cls.model_fields, values, strict=True))
        return cls.model_construct(**columns)


class ShardRecord(Contract):
    """A finished shard. `plan_hash` ties it to the plan it was written from."""

    plan_hash: str
    info: ShardInfo
    samples: SampleColumns
    failures: list[Failure]


@dataclass(frozen=True)
class ShardJob:
    """All that is needed to write one shard, on any machine that sees the folders. Jobs of one table share it, and each
    takes its own objects along when it is sent away.
    """

    folder: Path
    name: str
    split: str
    plan_hash: str
    source: ObjectTable
    rows: NDArray[np.int64]  # of this shard's objects in `source`
    image_folders: tuple[Path | str, ...]  # paths or URLs
    crop: CropSettings

    def __len__(self) -> int:
        """How many objects it is about."""
        return len(self.rows)

    @property
    def table(self) -> ObjectTable:
        """A copy of this shard's objects only."""
        return self.source.take(self.rows)

    def __reduce__(self) -> tuple[type["ShardJob"], tuple[object, ...]]:
        """Pickled with its own objects only."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return ShardJob, (*{**values, "source": self.table, "rows": np.arange(len(self))}.values(),)


def prepare(folder: Path, plan: ShardPlan, shards: Sequence[PlannedShard] | None = None) -> None:
    """Makes the folder ready for this plan, or for some of its shards while others may be being written.

    Raises:
        ShardError: the folder holds shards of another plan; the message says what differs. Nothing was touched then.
        OSError: the folder cannot be written.
    """
    path = folder / PLAN
    # Looked for before the plan is: who writes beside us made the plan first and tars after it.
    holds_shards = (folder / MANIFEST).exists() or any(folder.glob("*.tar"))
    if not path.exists():
        if holds_shards:
            raise ShardError(f"{folder} holds tar files without a {PLAN}; choose an empty folder for --out")
        (folder / RECORDS).mkdir(parents=True, exist_ok=True)
        create_once(path, to_json(plan.inputs))
    require_plan(folder, plan)  # another process may have been first, with another plan
    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    clean(folder, None if shards is None else [shard.name for shard in shards])


def require_plan(folder: Path, plan: ShardPlan) -> None:
    """Raises ShardError, saying what differs, where the folder's plan is another one."""
    if differences := plan.inputs.differences(read_contract(PlanInputs, folder / PLAN, ShardError)):
        raise ShardError(
            f"{folder} holds shards of another plan ({'; '.join(differences)}); "
            "give the labels and settings that they were written with, choose another --out, or delete that folder"
        )


def clean(folder: Path, shards: Sequence[str] | None = None) -> None:
    """Removes the hidden, unfinished files of writers that were killed: of some shards, or all there are."""
    remove_partials(folder, None if shards is None else {f"{name}.tar" for name in shards})
    remove_partials(folder / RECORDS, None if shards is None else {f"{name}.json" for name in shards})


def pending_jobs(
    folder: Path,
    shards: Sequence[PlannedShard],
    table: ObjectTable,
    image_folders: Sequence[Path | str],
    crop: CropSettings,
) -> list[ShardJob]:
    """Those of the shards that are not written yet, are damaged, or would come out otherwise now."""
    jobs = (
        ShardJob(folder, shard.name, shard.split, shard.hash, table, shard.rows, tuple(image_folders), crop)
        for shard in shards
    )
    return [job for job in jobs if not _is_finished(job)]


def discard(jobs: Sequence[ShardJob]) -> None:
    """Makes the shards of the jobs, and so the folder, count as unfinished until they are written."""
    for job in jobs:
        record_path(job.folder, job.name).unlink(missing_ok=True)
    # After the records: `finish` looks at the records once more after it has written a manifest, so of a manifest
    # written meanwhile either it or we take notice.
    for folder in {job.folder for job in jobs}:
        (folder / MANIFEST).unlink(missing_ok=True)


def record_path(folder: Path, name: str) -> Path:
    """Where the record of a finished shard lies."""
    return folder / RECORDS / f"{name}.json"


def _is_finished(job: ShardJob) -> bool:
    """Whether a shard is on record, has the bytes that were written, and its left-out photographs are no better now."""
    path = record_path(job.folder, job.name)
    if not path.exists():
        return False
    try:
        record = read_contract(ShardRecord, path, ShardError)
    except ShardError:
        return False
    if record.plan_hash != job.plan_hash or not _is_whole(job.folder / record.info.name, record.info):
        return False
    # A picture that was missing or half downloaded may have come since.
    reason_of = {
        failure.object_id: failure.reason for failure in record.failures if failure.reason.startswith("image_")
    }
    if not reason_of:
        return True
    left_out = job.rows[np.isin(job.source.object_id[job.rows], list(reason_of))]
    table = job.source.take(left_out)
    return all(
        isinstance(outcome, LeftOutError) and outcome.reason == reason_of[int(table.object_id[row])]
        for row, outcome in crops_of(table, job.image_folders, job.crop)
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
    for folder in (job.folder, *job.image_folders):
        if isinstance(folder, Path) and not folder.is_dir():  # else every photograph would count as missing
            raise ShardError(f"{folder}: no such folder on {platform.node()}, which was to write {path.name}")
    try:
        with atomic_write(path, _BUFFER_BYTES) as file:
            samples, failures, sha256 = _write_samples(job, file, on_object)
            size = file.tell()
        info = ShardInfo(name=path.name, split=job.split, samples=len(samples), bytes=size, sha256=sha256)
        columns = SampleColumns.of(samples)
        record = ShardRecord(plan_hash=job.plan_hash, info=info, samples=columns, failures=failures)
        write_contract(record, record_path(job.folder, job.name))
    except FileNotFoundError:
        raise TakenAwayError(
            f"{path}: the unfinished file was taken away; is another `attrtrain shard` writing to this folder?"
        ) from None
    except OSError as error:
        raise ShardError(
            f"{path}: {error.strerror or error}; finished shards are kept: mend that and run the same command again"
        ) from None
    except ShardError as error:  # of a photograph's URL
        raise ShardError(f"{error}; finished shards are kept: run the same command again") from None
    except MemoryError:
        raise ShardError(
            f"{path}: out of memory; finished shards are kept: run the same command again, with fewer --workers"
        ) from None
    return info


def _write_samples(
    job: ShardJob, file: BinaryIO, on_object: Callable[[], object]
) -> tuple[list[tuple[object, ...]], list[Failure], str]:
    """Writes a whole tar; returns what is in it, as SampleColumns has it, what is not, and the SHA-256 of its bytes."""
    samples: list[tuple[object, ...]] = []
    failures: list[Failure] = []
    digest, position, flushed = hashlib.sha256(), 0, 0
    table = job.table
    writer, object_ids = SampleWriter(table, job.split), table.object_id.tolist()
    for row, outcome in crops_of(table, job.image_folders, job.crop):
        on_object()
        object_id = object_ids[row]
        if isinstance(outcome, LeftOutError):
            failures.append(Failure.of(object_id, str(table.image[row]), outcome))
            continue
        content, jpeg = writer.sample(row, outcome), outcome.jpeg
        end = position + len(content)
        if end - flushed > _BUFFER_BYTES:
            file.flush()
            begin_writing_back(file, flushed, position)
            flushed = position
        file.write(content)
        digest.update(content)
        place = object_id, position, end, position + tarfile.BLOCKSIZE, len(jpeg), zlib.crc32(content)
        samples.append((*place, *outcome.size, outcome.box))
        position = end
    file.write(_END_OF_TAR)
    digest.update(_END_OF_TAR)
    return samples, failures, digest.hexdigest()

"""A long result, written in parts so that a run that was killed goes on, and is then put together into one file.

    preds.parquet             the result: there once it is whole
    preds.failures.jsonl      objects that have no row, and why (of an array preds.npy: preds.npy.failures.jsonl)
    .preds.parquet.parts/     while it is being made
        job.json              Job: what is being made
        000000.parquet        rows of the objects 0 to PART - 1, those of the next in the next

Where the parts end depends on the objects alone, so the bytes of the result do not depend on interruptions.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from attrtrain.contract import read_contract, write_contract
from attrtrain.errors import PredictionsError
from attrtrain.files import atomic_write, remove_partials
from attrtrain.inference.results import FEATURES, METADATA, Job, ResultInfo, opened, read_info
from attrtrain.shards.manifest import Failure, counts_by_reason

_FAILURES = b"failures"
_ROW_GROUP = 32_768  # rows; parts are smaller than a reader likes


class Parts:
    """The parts of one result, in order. Made by `open_parts`."""

    def __init__(self, out: Path, folder: Path) -> None:
        self._out, self._folder = out, folder
        self.done = 0
        """Parts that are there."""
        while self._path(self.done).is_file():
            self.done += 1

    def add(self, table: pa.Table, failures: list[Failure]) -> None:
        """Writes the next part."""
        told = json.dumps([failure.model_dump() for failure in failures]).encode()
        with atomic_write(self._path(self.done)) as file:
            pq.write_table(table.replace_schema_metadata({_FAILURES: told}), file)
        self.done += 1

    def merge(self, info: ResultInfo) -> ResultInfo:
        """Puts the parts together as the result and returns what it says about itself."""
        failures = [failure for part in range(self.done) for failure in self._failures(part)]
        listed = failures_path(self._out)
        if failures:
            with atomic_write(listed) as file:
                file.writelines(failure.model_dump_json().encode() + b"\n" for failure in failures)
        else:
            listed.unlink(missing_ok=True)
        info = info.model_copy(
            update={
                "written": sum(pq.read_metadata(opened(self._path(part))).num_rows for part in range(self.done)),
                "left_out": counts_by_reason(failures),
            }
        )
        schema = pq.read_schema(opened(self._path(0)))
        if self._out.suffix == ".npy":
            self._write_npy(info, schema)
        else:
            self._write_parquet(self._out, info, schema)
        shutil.rmtree(self._folder, ignore_errors=True)
        return info

    def _write_parquet(self, path: Path, info: ResultInfo, schema: pa.Schema) -> None:
        schema = schema.with_metadata({METADATA: info.model_dump_json().encode()})
        with atomic_write(path) as file, pq.ParquetWriter(file, schema) as writer:
            waiting: list[pa.Table] = []
            for table in self._tables(schema.names):
                waiting.append(table.replace_schema_metadata(schema.metadata))
                if sum(map(len, waiting)) >= _ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=_ROW_GROUP)
                    waiting.clear()
            if waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=_ROW_GROUP)

    def _write_npy(self, info: ResultInfo, schema: pa.Schema) -> None:
        """The features as one array, and last, because it is what says that all is there, which object each row is."""
        shape = (info.written, schema.field(FEATURES).type.list_size)
        with atomic_write(self._out) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for table in self._tables([FEATURES]):
                for chunk in table.column(FEATURES).chunks:
                    file.write(np.ascontiguousarray(chunk.flatten().to_numpy(), dtype="<f4").tobytes())
        self._write_parquet(info_path(self._out), info, schema.remove(schema.get_field_index(FEATURES)))

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        # Not `read_table`, which has columns of its own, such as `__filename`, beside those of attributes.
        return (pq.ParquetFile(opened(self._path(part))).read(columns=columns) for part in range(self.done))

    def _failures(self, part: int) -> list[Failure]:
        told = pq.read_schema(opened(self._path(part))).metadata[_FAILURES]
        return [Failure(**failure) for failure in json.loads(told)]

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:06d}.parquet"


def failures_path(out: Path) -> Path:
    """Where the objects without a row are listed. An array's list has a name that no table's has: `preds.npy` and
    `preds.parquet` may lie side by side.
    """
    return out.with_name(f"{out.name}.failures.jsonl") if out.suffix == ".npy" else out.with_suffix(".failures.jsonl")


def info_path(out: Path) -> Path:
    """The file whose metadata describe a result, and whose rows say which objects it has: itself, or for an array the
    table beside it.
    """
    return out.with_suffix(".objects.parquet") if out.suffix == ".npy" else out


@contextmanager
def open_parts(out: Path, job: Job) -> Iterator[Parts | ResultInfo]:
    """Holds a result for the block: its parts, or what it says about itself where it is already whole.

    Raises:
        PredictionsError: another process is making it, it is of another job, the disk is full, or it cannot be written
            there.
    """
    folder, lock = out.with_name(f".{out.name}.parts"), out.with_name(f".{out.name}.lock")
    try:
        if out.exists() and info_path(out).exists():
            info = read_info(info_path(out))
            _require_same(job, info.job, out)
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed in its last moment
            yield info
            return
        if info_path(out).exists() and not out.exists():
            _require_same(job, read_info(info_path(out)).job, info_path(out))
        if out.exists() and not folder.exists():
            raise PredictionsError(f"{out}: is there, and is not what this command writes; choose another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                folder.mkdir(exist_ok=True)
                _claim(folder, job)
                # Of a run that was killed while it put the parts together.
                remove_partials(out.parent, {out.name, failures_path(out).name, info_path(out).name})
                yield Parts(out, folder)
            finally:
                lock.unlink(missing_ok=True)
    except Timeout:
        raise PredictionsError(f"{out}: is being written by another process; choose another --out") from None
    except (OSError, pa.ArrowInvalid) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise PredictionsError(f"{out}: {reason}; mend that and run the same command again to go on") from None


def _claim(folder: Path, job: Job) -> None:
    path = folder / "job.json"
    if path.exists():
        try:
            other = read_contract(Job, path, PredictionsError)
        except PredictionsError as error:
            raise PredictionsError(f"{error}; delete {folder} to begin anew") from None
        _require_same(job, other, folder)
    else:
        write_contract(job, path)
    remove_partials(folder)


def _require_same(job: Job, other: Job, place: Path) -> None:
    if differing := job.differences(other):
        raise PredictionsError(
            f"{place}: is of other inputs (differing: {', '.join(differing)}); choose another --out, or delete it first"
        )

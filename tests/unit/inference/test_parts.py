"""Parts of a result become one file with each object once and in order, and a result is of one job alone."""

import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attrtrain.errors import PredictionsError
from attrtrain.inference import parts as module
from attrtrain.inference.objects import Objects
from attrtrain.inference.parts import Parts, failures_path, info_path, open_parts
from attrtrain.inference.results import FEATURES, Job, ResultInfo, fingerprint_of
from attrtrain.shards.manifest import CropSettings, Failure

JOB = Job(kind="features", model="m", precision="no", thresholds=[0.5], objects="o", images=["photographs"])
INFO = ResultInfo(
    job=JOB, attributes=[], threshold_note="", crop=CropSettings(store_px=48, quality=85, context=0.1)
)  # what is written and left out is not known before
ROWS = [3, 0, 2, 4, 1]  # of each part
VECTORS = np.random.default_rng(0).normal(size=(sum(ROWS), 2)).astype(np.float32)


def failure(object_id: int, reason: str) -> Failure:
    return Failure(object_id=object_id, image=f"{object_id}.jpg", reason=reason, detail="why")


KILLED = """
import os, signal, sys
from pathlib import Path
from attrtrain.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    os.kill(os.getpid(), signal.SIGKILL)
"""
LEFT_OUT = [
    [failure(100, "crowd")],
    [failure(101, "box_empty"), failure(102, "crowd")],
    [],
    [],
    [failure(103, "crowd")],
]


def add_all(parts: Parts, stop: int = len(ROWS)) -> None:
    """Those that are lacking of the first `stop`."""
    begin = sum(ROWS[: parts.done])
    for rows, failures in list(zip(ROWS, LEFT_OUT, strict=True))[parts.done : stop]:
        own = VECTORS[begin : begin + rows]
        features = pa.FixedSizeListArray.from_arrays(pa.array(own.ravel(), pa.float32()), 2)
        ids = pa.array(np.arange(begin, begin + rows, dtype=np.int64))
        parts.add(pa.table({"object_id": ids, FEATURES: features}), failures)
        begin += rows


def groups_of(most: int) -> list[int]:
    """Rows of each row group, none of more than `most`, where no more parts wait in memory than such a group needs."""
    sizes, waiting = [], 0
    for number, rows in enumerate(ROWS, start=1):
        waiting += rows
        if waiting >= most or number == len(ROWS):
            sizes += [*[most] * (waiting // most), *([waiting % most] if waiting % most else [])]
            waiting = 0
    return sizes


@pytest.mark.parametrize("kind", ["parquet", "npy"])
@pytest.mark.parametrize("row_group", [1, 4, 5, 100])
def test_parts_become_one_file_with_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, row_group: int
) -> None:
    monkeypatch.setattr(module, "_ROW_GROUP", row_group)
    out = tmp_path / f"result.{kind}"
    with open_parts(out, JOB) as parts:
        assert isinstance(parts, Parts)
        add_all(parts)
        info = parts.merge(INFO)
    rows = pq.read_table(out if kind == "parquet" else tmp_path / "result.objects.parquet")
    assert rows.column("object_id").to_pylist() == list(range(sum(ROWS)))
    found = np.load(out) if kind == "npy" else np.array(rows.column(FEATURES).to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(found, VECTORS)
    assert (FEATURES in rows.column_names) == (kind == "parquet")
    told = pq.read_metadata(info_path(out))
    assert [told.row_group(number).num_rows for number in range(told.num_row_groups)] == groups_of(row_group)
    assert info.written == sum(ROWS) and info.left_out == {"crowd": 3, "box_empty": 1}
    listed = tmp_path / ("result.failures.jsonl" if kind == "parquet" else "result.npy.failures.jsonl")
    assert [json.loads(line)["object_id"] for line in listed.read_text().splitlines()] == [100, 101, 102, 103]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with open_parts(out, JOB) as again:
        assert again == info


@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_parts_that_are_there_are_gone_on_from(tmp_path: Path, kind: str) -> None:
    out, folder = tmp_path / f"result.{kind}", tmp_path / f".result.{kind}.parts"
    for stop in (0, 1, 3, 3, len(ROWS)):  # killed after so many of them
        with open_parts(out, JOB) as parts:
            assert isinstance(parts, Parts) and parts.done == len(list(folder.glob("*.parquet")))
            add_all(parts, stop)
            assert parts.done == len(list(folder.glob("*.parquet"))) == stop
    with open_parts(out, JOB) as parts:
        assert isinstance(parts, Parts) and parts.done == len(ROWS)
        parts.merge(INFO)
    with open_parts(tmp_path / f"whole.{kind}", JOB) as parts:
        assert isinstance(parts, Parts)
        add_all(parts)
        parts.merge(INFO)
    for path_of in (Path, failures_path, info_path):
        assert path_of(out).read_bytes() == path_of(tmp_path / f"whole.{kind}").read_bytes()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_list_of_failures_of_an_earlier_result_does_not_stay(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "result.failures.jsonl").write_text("{}\n")
    with open_parts(tmp_path / "result.parquet", JOB) as parts:
        assert isinstance(parts, Parts)
        parts.add(pa.table({"object_id": [1]}), [])
        parts.merge(INFO)
    assert [path.name for path in tmp_path.iterdir()] == ["result.parquet"]


@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_what_a_run_left_that_was_killed_while_it_put_the_parts_together_goes(tmp_path: Path, kind: str) -> None:
    out, others = tmp_path / f"result.{kind}", tmp_path / ".other.parquet.0.partial"
    others.write_text("being written")
    for path in (out, failures_path(out), info_path(out)):
        killed = [sys.executable, "-c", KILLED, str(path)]
        assert subprocess.run(killed).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 4
    with open_parts(out, JOB) as parts:
        assert isinstance(parts, Parts)
        add_all(parts)
        parts.merge(INFO)
    assert set(tmp_path.iterdir()) == {out, failures_path(out), info_path(out), others}
    folder = tmp_path / f".{out.name}.parts"
    folder.mkdir()  # killed when the result was there and its parts were not yet gone
    with open_parts(out, JOB) as again:
        assert isinstance(again, ResultInfo)
    assert not folder.exists()


def refused(out: Path, job: Job = JOB) -> str:
    with pytest.raises(PredictionsError) as caught, open_parts(out, job):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_at_once_on_one_result_are_told(tmp_path: Path) -> None:
    out = tmp_path / "result.parquet"
    with open_parts(out, JOB) as parts:
        assert isinstance(parts, Parts)
        assert refused(out) == f"{out}: is being written by another process; choose another --out"
        add_all(parts)
        parts.merge(INFO)
    assert pq.read_metadata(out).num_rows == sum(ROWS)


def test_an_array_without_its_table_is_finished_and_a_table_without_its_array_is_of_its_own_job(tmp_path: Path) -> None:
    out, table = tmp_path / "result.npy", tmp_path / "result.objects.parquet"
    for stopped in (True, False):
        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt), open_parts(out, JOB) as parts:
            assert isinstance(parts, Parts) and out.exists() is not stopped
            add_all(parts)
            if stopped:  # between the two

                def stop(*_: object) -> None:
                    raise KeyboardInterrupt

                patch.setattr(Parts, "_write_parquet", stop)
            parts.merge(INFO)
        assert out.exists() and table.exists() is not stopped
    np.testing.assert_array_equal(np.load(out), VECTORS)
    out.unlink()
    before = table.read_bytes()
    assert refused(out, JOB.model_copy(update={"model": "n"})).startswith(f"{table}: is of other inputs")
    assert table.read_bytes() == before and not out.exists()
    with open_parts(out, JOB) as parts:  # and is made again
        assert isinstance(parts, Parts)
        add_all(parts)
        parts.merge(INFO)
    np.testing.assert_array_equal(np.load(out), VECTORS)


def test_the_folder_of_a_result_is_made_and_what_keeps_a_result_from_being_written_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "result.parquet"
    with open_parts(out, JOB) as parts:
        assert isinstance(parts, Parts)
        add_all(parts)
        parts.merge(INFO)
    assert pq.read_metadata(out).num_rows == sum(ROWS)
    below = out / "result.parquet"
    assert refused(below) == f"{below}: File exists; mend that and run the same command again to go on"
    damaged = tmp_path / "damaged.parquet"
    with open_parts(damaged, JOB) as parts:
        assert isinstance(parts, Parts)
        add_all(parts)
    (tmp_path / ".damaged.parquet.parts" / "000002.parquet").write_bytes(b"PAR1")
    with pytest.raises(PredictionsError) as caught, open_parts(damaged, JOB) as parts:
        assert isinstance(parts, Parts)
        parts.merge(INFO)
    assert re.fullmatch(rf"{damaged}: \S.*; mend that and run the same command again to go on", str(caught.value))
    assert not damaged.exists()


def test_what_is_somebody_elses_is_neither_replaced_nor_gone_on_with(tmp_path: Path) -> None:
    theirs, damaged = tmp_path / "theirs.npy", tmp_path / "damaged.parquet"
    np.save(theirs, VECTORS)
    assert "is there, and is not what this command writes" in refused(theirs)
    np.testing.assert_array_equal(np.load(theirs), VECTORS)
    with open_parts(damaged, JOB):
        pass
    (tmp_path / ".damaged.parquet.parts" / "job.json").write_text("{")
    assert refused(damaged).endswith(f"delete {tmp_path / '.damaged.parquet.parts'} to begin anew")


@pytest.mark.parametrize(
    "changed", [{"kind": "attributes"}, {"model": "n"}, {"precision": "fp16"}, {"thresholds": [0.4]}, {"objects": "p"},
                {"images": ["elsewhere"]}, {"captions": True}], ids=str,
)  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_a_result_is_of_all_that_decides_it(tmp_path: Path, changed: dict[str, object], whole: bool) -> None:
    out = tmp_path / "result.parquet"
    with open_parts(out, JOB) as parts:
        assert isinstance(parts, Parts)
        add_all(parts)
        if whole:
            parts.merge(INFO)
    told = refused(out, JOB.model_copy(update=changed))
    assert f"is of other inputs (differing: {next(iter(changed))}); choose another --out" in told


def test_the_fingerprint_of_objects_is_of_everything_that_they_are() -> None:
    objects = Objects(
        np.array([1, 2]), np.array(["a.jpg", "b.jpg"]), np.full((2, 2), 60), np.arange(8.0).reshape(2, 4),
        np.array(["cat", "dog"]), np.zeros(2, dtype=bool), (),
    )  # fmt: skip
    columns = [field.name for field in fields(Objects) if field.name != "sources"]
    seen = {fingerprint_of(objects)}
    for name in columns:
        changed = getattr(objects, name).copy()
        changed.flat[-1] = "c.jpg" if changed.dtype.kind == "U" else 1 - changed.flat[-1]
        seen.add(fingerprint_of(replace(objects, **{name: changed})))
    assert len(seen) == 1 + len(columns)

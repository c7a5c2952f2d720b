"""W&B as its users meet it: what its own client leaves in offline files and sends to a server, read back and compared
with metrics.jsonl.
"""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_server import API_KEY, WandbServer, serving

from tests.small_training import logged

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parents[1] / "tracked_numbers.py"
NOTHING_LISTENS = "http://127.0.0.1:9"


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without any W&B settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "WANDB_ERROR_REPORTING": "false", **more}


def to(server: WandbServer) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY, "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.5"}


def track(run: Path, mode: str, begin: int, last: int, end: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(run), mode, str(begin), str(last), end]
    return subprocess.run(command, capture_output=True, text=True, env=environment(run.parent, **more), timeout=500)


def start(run: Path, server: WandbServer, end: str, **more: str) -> subprocess.Popen[str]:
    """Six steps online, in the background."""
    command = [sys.executable, str(SCRIPT), str(run), "online", "0", "6", end]
    environ = environment(run.parent, **(to(server) | more))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def wait_for_rows(server: WandbServer, process: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    while not any(len(numbers_of(stored.history)) == 7 for stored in server.runs.values()):
        assert process.poll() is None and time.monotonic() - begun < 500, process.communicate()
        time.sleep(0.05)


def as_history(line: dict[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl as W&B's users see it: `kind/name`, over epoch and train/global_step, without numbers
    that are none.
    """
    numbers = {
        "epoch" if name == "epoch" else f"{line['kind']}/{name}": value
        for name, value in line.items()
        if name not in ("kind", "step") and value is not None
    }
    return {**numbers, "train/global_step": line["step"]}


def numbers_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a history without W&B's own entries and without media."""
    plain = [
        {name: value for name, value in row.items() if not name.startswith("_") and name != "metrics_line"}
        for row in rows
    ]
    return [row for row in plain if "epoch" in row]


def distinct(rows: list[dict[str, Any]]) -> set[frozenset[tuple[str, Any]]]:
    """Rows without repetitions: what was logged after the last checkpoint before a kill is logged again."""
    return {frozenset(row.items()) for row in rows}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server
        assert not server.unknown


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after step 6, went on from its checkpoint at step 4, and ended."""
    run = tmp_path_factory.mktemp("offline") / "run"
    assert track(run, "offline", 0, 6, "killed").returncode == -signal.SIGKILL
    ended = track(run, "offline", 4, 8, "finished")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    return run


def files(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))


def test_an_offline_run_holds_what_metrics_jsonl_holds(offline: Path) -> None:
    killed, ended = files(offline)
    expected = [as_history(line) for line in logged(offline)]
    assert (
        numbers_of(wandb_file.history(killed)) == expected[:7]
    )  # six steps and an evaluation: nothing is lost by the kill
    assert numbers_of(wandb_file.history(ended)) == expected[5:]
    assert expected[2] == {
        "epoch": 1,
        "train/lr": pytest.approx(0.1 / 3),
        "train/grad_norm": 2.0,
        "train/global_step": 3,
    }


def test_an_offline_run_holds_configuration_tags_notes_and_summary(offline: Path) -> None:
    killed, ended = files(offline)
    for file in (killed, ended):
        run = next(record.run for record in wandb_file.records(file) if record.HasField("run"))
        assert run.run_id == run.run_group == (offline / "wandb_id").read_text()
        assert (run.project, run.display_name, run.notes) == ("attrtrain", "run", "by a test")
        assert list(run.tags) == ["small", "drawn"]
        found = wandb_file.config(file)
        assert found["optim"] == {"lr": 0.1} and found["run"] == {"seed": 3}
    summary = wandb_file.summary(ended)
    assert summary["best_epoch"] == 2 and summary["val/map"] == 0.5 and "nothing" not in summary


def test_curves_are_drawn_over_the_global_step(offline: Path) -> None:
    metrics = [record.metric for record in wandb_file.records(files(offline)[0]) if record.HasField("metric")]
    assert {metric.name or metric.glob_name: metric.step_metric for metric in metrics} == {
        "train/global_step": "", "epoch": "", "metrics_line": "", "train/*": "train/global_step", "val/*": "train/global_step",
    }  # fmt: skip


def test_an_offline_run_holds_its_table_curve_pictures_and_files(offline: Path) -> None:
    file = files(offline)[1]
    rows = wandb_file.history(file)
    tables = [row["val/attributes/path"] for row in rows if "val/attributes/path" in row]
    table = json.loads((file.parent / "files" / tables[-1]).read_text())
    assert table["columns"] == ["attribute", "AP", "positives"] and table["data"] == [
        ["furry", 0.25, 7],
        ["striped", None, 0],
    ]
    assert any("best/curve_table/path" in row for row in rows)
    gallery = next(row for row in rows if "best/gallery/captions" in row)
    assert gallery["best/gallery/captions"] == ["a dog", "a cat"]
    assert all((file.parent / "files" / name).is_file() for name in gallery["best/gallery/filenames"])
    artifacts = {
        record.artifact.type: record.artifact for record in wandb_file.records(file) if record.HasField("artifact")
    }
    assert artifacts["dataset"].name == "shards-drawn--" and artifacts["dataset"].use_after_commit
    assert json.loads(artifacts["dataset"].metadata) == {"objects": 4}
    model = artifacts["model"]
    assert list(model.aliases) == ["best", "latest"] or sorted(model.aliases) == ["best", "latest"]
    assert [entry.local_path for entry in model.manifest.contents] == [str(offline / "weights.bin")]  # not a copy


def test_tensorboard_holds_what_metrics_jsonl_holds_and_no_step_twice(offline: Path) -> None:
    events = EventAccumulator(str(offline / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    found = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    assert len(found) == sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"])  # no step twice
    expected = {
        (f"{line['kind']}/{name}", line["step"]): value
        for line in logged(offline)
        for name, value in line.items()
        if name not in ("kind", "step") and value is not None
    }
    assert found == {key: pytest.approx(value) for key, value in expected.items()}
    assert [(image.width, image.height) for image in events.Images("best/gallery/00")] == [(30, 20)]
    assert b"optim: {lr: 0.1}" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_the_parts_of_an_offline_run_are_synced_into_one(offline: Path, server: WandbServer, tmp_path: Path) -> None:
    wandb = Path(sys.executable).with_name("wandb")
    command = [str(wandb), "sync", *sorted(str(path.parent) for path in files(offline))]
    synced = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp_path, **to(server)), cwd=tmp_path
    )
    assert synced.returncode == 0 and "ERROR" not in synced.stderr, synced.stderr
    run = server.runs[(offline / "wandb_id").read_text()]
    assert len(server.runs) == 1
    steps = [row["train/global_step"] for row in numbers_of(run.history) if "train/loss" in row]
    assert steps == [1, 2, 4, 5, 6, 5, 6, 7, 8]  # those after the checkpoint twice, with the same numbers
    assert [row["_step"] for row in run.history] == list(range(len(run.history)))
    assert distinct(numbers_of(run.history)) == distinct([as_history(line) for line in logged(offline)])
    assert run.summary["best_epoch"] == 2 and run.config["optim"]["value"] == {"lr": 0.1}
    model = next(artifact for artifact in server.artifacts.values() if artifact.type == "model")
    assert model.committed and model.files["weights.bin"] == b"weights"


def test_a_killed_run_goes_on_online_under_its_id(server: WandbServer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(run, server, "killed", WAIT_FOR=str(tmp_path / "never"))
    wait_for_rows(server, first)
    first.kill()
    assert first.communicate()[0].startswith(f"W&B: {server.url}/tester/attrtrain/runs/")
    run_id = (run / "wandb_id").read_text()
    ended = track(run, "online", 4, 8, "finished", **to(server))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(server.runs) == [run_id]
    stored = server.runs[run_id]
    assert numbers_of(stored.history) == [as_history(line) for line in logged(run)]  # none twice, none lost
    assert [row["_step"] for row in stored.history] == list(range(len(stored.history)))
    assert stored.summary["best_epoch"] == 2 and stored.exit_codes == [0]
    assert stored.last("tags") == ["small", "drawn"] and stored.last("groupName") == run_id
    assert stored.last("displayName") == "run" and stored.last("notes") == "by a test"
    assert sum(name.startswith("media/images/best/gallery") for name in stored.files) == 2
    assert "wandb-metadata.json" in stored.files
    used = [artifact for artifact in server.artifacts.values() if artifact.type == "dataset"]
    assert all(artifact.used_by == [run_id] for artifact in used) and used[0].files["manifest.json"] == b'{"shards": 2}'
    model = next(artifact for artifact in server.artifacts.values() if artifact.type == "model")
    assert model.run == run_id and model.name == f"bundle-{run_id}" and sorted(model.aliases) == ["best", "latest"]
    assert model.files["weights.bin"] == b"weights" and model.committed


def test_where_all_processes_of_a_job_are_stopped_what_did_not_reach_the_server_comes_later(
    server: WandbServer, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    slow = {"WAIT_FOR": str(tmp_path / "go"), "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "300"}
    first = start(run, server, "preempted", **slow)
    while not (run / "metrics.jsonl").exists() or len(logged(run)) < 7:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    for child in psutil.Process(first.pid).children(recursive=True):  # W&B's own processes, as a batch system does
        child.terminate()
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
    (tmp_path / "go").touch()
    _, stderr = first.communicate(timeout=500)
    assert first.returncode == 0 and stderr.count("\n") == 1, stderr
    assert stderr.startswith("warning: W&B stopped taking numbers (")
    (stored,) = server.runs.values()
    assert len(numbers_of(stored.history)) < 7
    assert track(run, "online", 6, 8, "finished", **to(server)).returncode == 0
    assert numbers_of(stored.history) == [as_history(line) for line in logged(run)]


@pytest.mark.parametrize(("end", "code"), [("preempted", 85), ("failed", 1)])
def test_how_a_run_ended_is_told(server: WandbServer, tmp_path: Path, end: str, code: int) -> None:
    run = tmp_path / "run"
    ended = track(run, "online", 0, 2, end, **to(server))
    assert (ended.returncode, ended.stderr) == (0, "")
    stored = server.runs[(run / "wandb_id").read_text()]
    assert stored.exit_codes == [code]
    assert (stored.preempting > 0) == (end == "preempted")
    alerts = [(alert["title"], alert["text"], alert["severity"]) for alert in server.alerts]
    assert alerts == ([("training failed", "the loss is not a finite number", "ERROR")] if end == "failed" else [])


def test_settings_of_the_environment_hold_where_the_configuration_says_nothing(
    server: WandbServer, tmp_path: Path
) -> None:
    own = {"WANDB_RUN_ID": "trial7", "WANDB_RUN_GROUP": "night", "WANDB_ENTITY": "tester"}
    own |= {"WANDB_PROJECT": "theirs", "WANDB_NAME": "first try"}
    assert track(tmp_path / "run", "online", 0, 1, "finished", **to(server), **own).returncode == 0
    assert list(server.runs) == ["trial7"]
    stored = server.runs["trial7"]
    assert (stored.last("groupName"), stored.last("displayName")) == ("night", "first try")
    assert stored.upserts[0]["project"] == "theirs"  # what the client takes over from the server's answer comes later


@pytest.mark.parametrize("trouble", ["unreachable", "bad key", "no key"])
def test_without_a_server_a_run_is_logged_offline_and_one_line_says_so(
    server: WandbServer, tmp_path: Path, trouble: str
) -> None:
    run = tmp_path / "run"
    given = {
        "unreachable": {"WANDB_BASE_URL": NOTHING_LISTENS, "WANDB_API_KEY": API_KEY},
        "bad key": {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "b" * 40},
        "no key": {"WANDB_BASE_URL": server.url},
    }[trouble]
    ended = track(run, "online", 0, 5, "finished", **given, WANDB_INIT_TIMEOUT="5")
    assert ended.returncode == 0 and ended.stderr.count("\n") == 1, ended.stderr
    assert (
        ended.stderr.startswith("warning: W&B cannot be used (")
        and f"wandb sync {run}/wandb/offline-run-*" in ended.stderr
    )
    (file,) = files(run)
    assert numbers_of(wandb_file.history(file)) == [as_history(line) for line in logged(run)]
    assert all(math.isfinite(row["train/lr"]) for row in numbers_of(wandb_file.history(file)) if "train/lr" in row)


def test_a_server_that_is_gone_in_the_middle_costs_a_line_and_no_number(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serving() as first:
        process = start(run, first, "finished", WAIT_FOR=str(tmp_path / "go"), WANDB_FINISH_TIMEOUT="3")
        wait_for_rows(first, process)
    (tmp_path / "go").touch()
    _, stderr = process.communicate(timeout=500)
    assert process.returncode == 0 and stderr.count("\n") == 1, stderr
    (folder,) = (run / "wandb").glob("run-*")
    assert stderr.startswith(
        "warning: W&B stopped taking numbers (not all was uploaded in time; later: `wandb sync --include-online "
    )
    assert stderr.split("`")[1].endswith(folder.name)
    with serving() as later:
        command = [str(Path(sys.executable).with_name("wandb")), "sync", "--include-online", str(folder)]
        environ = environment(tmp_path, **to(later))
        synced = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path)
        assert synced.returncode == 0 and "ERROR" not in synced.stderr, synced.stderr
        (stored,) = later.runs.values()
    assert numbers_of(stored.history) == [as_history(line) for line in logged(run)]
    assert stored.summary["best_epoch"] == 1


def test_a_full_disk_costs_wandb_and_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "wandb").mkdir(parents=True)
    mount = f"mount -t tmpfs -o size=60k tmpfs {run}/wandb"  # in a name space of its own, which ends with the process
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*own, mount], capture_output=True).returncode != 0:
        pytest.skip("needs to mount a small file system: unprivileged user name spaces, or root")
    command = shlex.join(map(str, [sys.executable, SCRIPT, run, "offline", 0, 200, "finished"]))
    ended = subprocess.run(
        [*own, f"{mount} && exec {command}"],
        capture_output=True, text=True, env=environment(tmp_path), timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0 and ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("warning: W&B stopped taking numbers (") and "No space left" in ended.stderr
    assert len(logged(run)) == 250


def test_where_wandb_cannot_write_it_is_left_out_and_one_line_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "wandb").write_text("a file where the folder should be")
    ended = track(run, "offline", 0, 2, "finished")
    assert ended.returncode == 0 and ended.stderr.startswith("warning: W&B is left out of this run: "), ended.stderr
    assert ended.stderr.count("\n") == 1 and len(logged(run)) == 2

"""Training that is tracked: what the trackers were told is what lies in the run directory."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_server import API_KEY, StoredRun, WandbServer, serving

from attrtrain.cli import main
from tests.small_training import logged, train_command

SMALL = [
    *("--data.image_px", "32", "--model.backbone", "resnet18", "--model.weights", "none", "--train.global_batch", "32"),
    *("--train.epochs", "2", "--track.every_steps", "1", "--train.precision", "no"),
]


def start(run: Path, shards: Path, server: WandbServer, *flags: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environ = {**kept, "HOME": str(run.parent), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY}
    command = train_command(run, shards, *SMALL, *flags)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def numbers(stored: StoredRun) -> list[dict[str, Any]]:
    rows = [
        {name: value for name, value in row.items() if not name.startswith("_") and name != "metrics_line"}
        for row in stored.history
    ]
    return [row for row in rows if "epoch" in row]


def as_history(line: dict[str, Any]) -> dict[str, Any]:
    found = {f"{line['kind']}/{name}": value for name, value in line.items() if name not in ("kind", "step", "epoch")}
    return {**found, "epoch": line["epoch"], "train/global_step": line["step"]}


def warnings_in(stderr: str) -> list[str]:
    """Lines of stderr, without progress bars."""
    lines = stderr.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "/s" not in line and "?" not in line]


@pytest.mark.slow
def test_a_preempted_run_goes_on_as_one_and_shows_what_its_directory_holds(toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = (
        "--track.wandb",
        "online",
        "--track.tensorboard",
        "true",
        "--track.tags",
        "a",
        "b",
        "--track.notes",
        "by a test",
        "--track.group",
        "g",
    )
    with serving() as server:
        first = start(run, toy_shards, server, *flags)
        while not (run / "metrics.jsonl").exists() or not logged(run):
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        first.send_signal(signal.SIGTERM)
        _, stderr = first.communicate()
        assert first.returncode == 85 and len(warnings_in(stderr)) == 1 and "stopped by SIGTERM" in stderr, stderr
        run_id = (run / "wandb_id").read_text()
        stored = server.runs[run_id]
        assert stored.exit_codes == [85] and stored.preempting
        assert numbers(stored) == [as_history(line) for line in logged(run)]  # none is lost, none comes twice
        second = start(run, toy_shards, server, *flags)
        stdout, stderr = second.communicate()
        assert second.returncode == 0 and warnings_in(stderr) == [], stderr
        assert f"W&B: {server.url}/tester/attrtrain/runs/{run_id}" in stdout
        assert not server.unknown and list(server.runs) == [run_id]
    lines = logged(run)
    assert numbers(stored) == [as_history(line) for line in lines]
    assert {"loss", "grad_norm", "lr", "objects_per_second", "data_wait_share"} <= set(lines[0])
    assert all(0 < line["data_wait_share"] < 1 for line in lines if line["kind"] == "train")
    assert stored.exit_codes == [85, 0]

    result = json.loads((run / "result.json").read_text())
    assert stored.summary["best_epoch"] == result["best_epoch"]
    assert (
        stored.summary["val/map"] == result["val"]["map"] == max(line["map"] for line in lines if line["kind"] == "val")
    )
    assert [stored.summary["val/map_low"], stored.summary["val/map_high"]] == result["val"]["map_interval"]
    assert stored.summary["val/best_map"] == lines[-1]["best_map"] == result["val"]["map"]
    assert stored.config["optim"]["value"]["name"] == "adamw" and stored.config["facts"]["value"]["train_objects"] > 100
    assert (stored.last("tags"), stored.last("notes"), stored.last("groupName")) == (["a", "b"], "by a test", "g")

    check_media(run, stored)
    check_artifacts(run, toy_shards, run_id, server)
    check_tensorboard(run, lines)


def check_media(run: Path, stored: StoredRun) -> None:
    document = json.loads((run / "evaluation" / "metrics.json").read_text())
    entries = {entry["name"]: entry for entry in document["attributes"]}
    tables = [
        json.loads(stored.files[row["val/attributes"]["path"]]) for row in stored.history if "val/attributes" in row
    ]
    assert len(tables) == 2  # one an evaluation
    best = json.loads((run / "result.json").read_text())["best_epoch"]
    for row in tables[best - 1]["data"]:
        told = dict(zip(tables[0]["columns"], row, strict=True))
        entry = entries[told["attribute"]]
        assert told["known"] == entry["positives"] + entry["negatives"] and told["positives"] == entry["positives"]
        assert told["judged"] == entry["judged"]
        if entry["judged"]:
            assert told["AP"] == pytest.approx(entry["ap"]) and told["prior"] == pytest.approx(entry["prior"])
    (last,) = [
        json.loads(stored.files[row["best/attributes"]["path"]]) for row in stored.history if "best/attributes" in row
    ]
    assert len(last["data"]) == len(entries)
    curves = next(row["best/precision_recall_table"] for row in stored.history if "best/precision_recall_table" in row)
    points = json.loads(stored.files[curves["path"]])["data"]
    assert len({name for _, name, _ in points}) == 9 and all(0 <= x <= 1 and 0 <= y <= 1 for x, _, y in points)
    bins = next(row["best/calibration_table"] for row in stored.history if "best/calibration_table" in row)
    assert {name for _, name, _ in json.loads(stored.files[bins["path"]])["data"]} == {"share present", "perfect"}
    gallery = next(row["best/gallery"] for row in stored.history if "best/gallery" in row)
    assert gallery["count"] == 24 == len(gallery["captions"])
    assert sum(len(stored.files[name]) for name in gallery["filenames"]) < 1_000_000


def check_artifacts(run: Path, shards: Path, run_id: str, server: WandbServer) -> None:
    data = [artifact for artifact in server.artifacts.values() if artifact.type == "dataset"]
    assert data and all(artifact.committed and artifact.used_by == [run_id] for artifact in data)
    assert data[0].files["manifest.json"] == (shards / "manifest.json").read_bytes()
    (model,) = [artifact for artifact in server.artifacts.values() if artifact.type == "model"]
    assert model.committed and model.run == run_id and set(model.aliases) == {"best", "latest"}
    for name in ("weights.safetensors", "model.json"):
        assert model.files[name] == (run / "bundle" / name).read_bytes()
    assert model.metadata["data_fingerprint"] == data[0].metadata["fingerprint"]


def check_tensorboard(run: Path, lines: list[dict[str, Any]]) -> None:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    found = [(tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    expected = {
        (f"{line['kind']}/{name}", line["step"]): value
        for line in lines
        for name, value in line.items()
        if name not in ("kind", "step")
    }
    assert len(found) == len(expected)
    assert {(tag, step): value for tag, step, value in found} == {
        key: pytest.approx(value) for key, value in expected.items()
    }
    assert len([tag for tag in events.Tags()["images"] if tag.startswith("best/gallery")]) == 24


@pytest.mark.slow
def test_labels_that_look_like_noise_and_a_loss_that_is_no_number_raise_an_alert(
    toy_coco: Path, tmp_path: Path
) -> None:
    photographs = sorted((toy_coco / "train2017").glob("*.jpg"))[:24]
    coins = np.random.default_rng(0).integers(0, 2, (240, 60))
    rows = [f"{photographs[n % 24].name},{n % 60},{n % 50},40,40,{','.join(map(str, coins[n]))}" for n in range(240)]
    (tmp_path / "coins.csv").write_text(
        "\n".join(["file_name,x,y,w,h," + ",".join(f"c{n}" for n in range(60)), *rows]) + "\n"
    )
    shards, run = tmp_path / "shards", tmp_path / "run"
    sharding = ["shard", "--labels", tmp_path / "coins.csv", "--images", toy_coco / "train2017", "--out", shards]
    assert main([*map(str, sharding), "--workers", "1"]) == 0
    with serving() as server:
        process = start(
            run,
            shards,
            server,
            "--optim.lr",
            "1e38",
            "--optim.name",
            "sgd",
            "--optim.schedule",
            "constant",
            "--train.clip_norm",
            "0",
        )
        _, stderr = process.communicate()
        assert process.returncode == 1 and len(warnings_in(stderr)) == 1, stderr
        (stored,) = server.runs.values()
    noise, failed = server.alerts
    assert noise["title"] == "labels look like noise" and "audit: labels look like NOISE" in noise["text"]
    assert (
        failed["title"] == "training failed"
        and failed["text"] == f"{run}: {warnings_in(stderr)[0].removeprefix('error: ')}"
    )
    assert "finite" in failed["text"]
    assert stored.exit_codes == [1] and all(math.isfinite(row.get("train/loss", 0)) for row in stored.history)


def test_tensorboard_that_is_not_installed_is_one_line(toy_shards: Path, tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'tensorboard' else find(n, *a)\n"
        "from attrtrain.train import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = [
        "demo",
        "--run.dir",
        str(tmp_path / "run"),
        "--data.shards",
        str(toy_shards),
        "--track.tensorboard",
        "true",
    ]
    ended = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: track.tensorboard: the package tensorboard is not installed")
    assert not (tmp_path / "run").exists()


def test_a_run_that_no_longer_improves_stops_early_and_raises_an_alert(toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ("--train.epochs", "40", "--train.patience", "2", "--optim.lr", "1e-9", "--checkpoint.every_epochs", "50")
    with serving() as server:
        process = start(run, toy_shards, server, *flags)
        stdout, stderr = process.communicate()
        assert process.returncode == 0 and warnings_in(stderr) == [], stderr
    found = [line["map"] for line in logged(run) if line["kind"] == "val"]
    best = max(found)
    assert len(found) < 40 and found.index(best) == len(found) - 3  # two epochs without a better one, and not one more
    running_best = [max(found[: end + 1]) for end in range(len(found))]
    assert all(
        running_best[end] > running_best[end - 2] for end in range(2, len(found) - 1)
    )  # nor could it have ended before
    (alert,) = server.alerts
    told = f"stopped early after epoch {len(found)} of 40: no better val mAP than {best:.4f}, of epoch {len(found) - 2}, for 2 epochs"
    assert alert["title"] == "training stopped early" and alert["text"].startswith(f"{run}: {told}")
    assert told in stdout
    result = json.loads((run / "result.json").read_text())
    assert result["best_epoch"] == len(found) - 2 and result["val"]["map"] == pytest.approx(best)
    again = subprocess.run(
        [sys.executable, "-m", "attrtrain.train", "demo", "--run.dir", str(run), "--data.shards", str(toy_shards), *SMALL, *flags, "--track.wandb", "disabled"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert again.returncode == 0 and told in again.stdout
    assert [line["map"] for line in logged(run) if line["kind"] == "val"] == found  # it was finished, and stays so


def trained(run: Path, shards: Path, server: WandbServer, *flags: str) -> StoredRun:
    """A whole training on the server, and what that has of it."""
    process = start(run, shards, server, "--track.wandb", "online", "--model.backbone", "timm:test_resnet", *flags)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    return server.runs[(run / "wandb_id").read_text()]


@pytest.mark.slow
def test_other_numbers_for_steps_that_the_server_has_are_another_run_of_the_group(
    toy_shards: Path, tmp_path: Path
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with serving() as server:
        first = trained(run, toy_shards, server, "--checkpoint.keep_last", "9")
        first_id, before, lines = (run / "wandb_id").read_text(), list(numbers(first)), logged(run)
        assert before == [as_history(line) for line in lines]
        middle = sorted((run / "checkpoints").glob("step-*"))[0]
        kept = shutil.copytree(middle, tmp_path / "kept" / middle.name)
        back = ("--checkpoint.resume", str(middle), "--optim.lr", "1e-2")
        fork = trained(elsewhere, toy_shards, server, *back)
        assert fork is not first and numbers(first) == before
        assert numbers(fork) == [as_history(line) for line in logged(elsewhere)]
        second = trained(run, toy_shards, server, *back)
        assert second is not first and numbers(first) == before
        assert numbers(second) == [as_history(line) for line in logged(run)] != before
        assert second.last("groupName") == first.last("groupName") == first_id
        assert (run / "wandb_id").read_text() == f"{first_id}-course2"
        longer = trained(
            run, toy_shards, server, *back, "--train.epochs", "3"
        )  # beyond what the server has: the same run
        assert longer is second and numbers(second) == [as_history(line) for line in logged(run)]
        third = trained(
            run, toy_shards, server, "--checkpoint.resume", str(kept)
        )  # back to the first settings: not those of its last course
        assert (run / "wandb_id").read_text() == f"{first_id}-course3" and third is not second
        assert numbers(third) == [as_history(line) for line in logged(run)]


@pytest.mark.slow
def test_lines_of_other_steps_than_the_server_has_are_another_run_too(toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serving() as server:
        first = trained(run, toy_shards, server, "--checkpoint.keep_last", "9", "--track.every_steps", "1")
        middle = sorted((run / "checkpoints").glob("step-*"))[0]
        back = ("--checkpoint.resume", str(middle), "--track.every_steps", "4")
        second = trained(run, toy_shards, server, *back)
        assert numbers(second) == [as_history(line) for line in logged(run)]
        assert second is not first

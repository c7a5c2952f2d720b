"""Killed at random moments, in the middle of saving too: the end is the same as without."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attrtrain import checkpoint
from attrtrain.config.schema import OptimConfig
from attrtrain.data.reader import ShardSet
from attrtrain.engine import fit
from attrtrain.optim import learning_rate
from tests import small_training
from tools.soak_resume import SMALL, differences, trained_objects

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(toy_shards: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tools.soak_resume",
        str(toy_shards),
        str(tmp_path),
        "--kills",
        "20",
        "--seed",
        "1",
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "20 kills: same weights, same objects in every step, same metrics" in result.stdout
    assert (tmp_path / "killed.log").read_text().count("going on from") >= 10
    assert not list((tmp_path / "killed").rglob("*.partial"))


def start(run: Path, shards: Path, *flags: str, hold_at_step: int | None = None) -> subprocess.Popen[str]:
    traced = str(Path(__file__).with_name("traced_train.py"))
    command = [sys.executable, traced, str(run), "demo", "--data.shards", str(shards), *SMALL, *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if hold_at_step is not None:
        environment["HOLD_AT_STEP"] = str(hold_at_step)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("resume") / "undisturbed"
    process = start(run, toy_shards)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_stop_signal_saves_and_leaves_with_85_and_the_run_goes_on(
    toy_shards: Path, tmp_path: Path, undisturbed: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    flags = ("--checkpoint.every_steps", "0")
    process = start(run, toy_shards, *flags)
    wait_for(run / "trained_objects.jsonl", process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 85
    told = [line for line in stderr.replace("\r", "\n").splitlines() if "stopped by" in line]
    assert len(told) == 1 and number.name in told[0] and "run the same command again" in told[0]
    found, complaints = checkpoint.find_latest(run / "checkpoints")
    assert found is not None and not complaints
    process = start(run, toy_shards, *flags)
    assert process.communicate()[0] and process.returncode == 0
    assert differences(undisturbed, run) == []


@pytest.mark.slow
def test_a_second_interrupt_leaves_at_once(toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, toy_shards, hold_at_step=3)
    wait_for(run / "held", process)  # inside a step that does not end, so that nobody looks at the first signal
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.replace("\r", "\n").splitlines()[-1].startswith("stopped; run the same command again")


@pytest.mark.slow
def test_a_second_training_in_one_run_directory_is_refused(toy_shards: Path, tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    first = start(run, toy_shards, hold_at_step=3)
    wait_for(run / "held", first)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    second = start(run, toy_shards)
    _, stderr = second.communicate(timeout=60)
    assert second.returncode == 1 and stderr.count("\n") == 1
    assert stderr.startswith(f"error: {run} is in use by process {first.pid} on ")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    first.kill()  # whereupon the directory is free
    first.communicate()
    third = start(run, toy_shards)
    _, stderr = third.communicate()
    assert third.returncode == 0, stderr
    assert differences(undisturbed, run) == []


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(
    toy_shards: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    process = start(run, toy_shards)
    wait_for(run / "checkpoints" / "step-00000006", process)
    process.kill()
    process.communicate()
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    victim = newest / "model.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    process = start(run, toy_shards)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert f"checkpoint {newest} is damaged" in stderr and "going on from" in stdout
    assert differences(undisturbed, run) == []


@pytest.mark.slow
def test_resume_from_a_path_and_by_time(toy_shards: Path, tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    source = sorted((undisturbed / "checkpoints").glob("step-*"))[0]
    process = start(run, toy_shards, "--checkpoint.resume", str(source), "--checkpoint.every_minutes", "0.0001")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert f"going on from {source}" in stdout and "settings changed since: checkpoint.every_minutes" in stdout
    final = [sorted((folder / "checkpoints").glob("step-*"))[-1] / "model.safetensors" for folder in (run, undisturbed)]
    assert final[0].read_bytes() == final[1].read_bytes()
    steps = {step for step, _ in trained_objects(run)}
    assert min(steps) == json.loads((source / "state.json").read_text())["position"]["step"]


@pytest.mark.parametrize("bad", ["nowhere", "empty"])
def test_resume_from_what_is_no_checkpoint_is_one_line(toy_shards: Path, tmp_path: Path, bad: str) -> None:
    (tmp_path / "empty").mkdir()
    process = start(tmp_path / "run", toy_shards, "--checkpoint.resume", str(tmp_path / bad))
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr.startswith("error: checkpoint.resume:") and stderr.count("\n") == 1


@pytest.mark.parametrize(
    "optim",
    [OptimConfig(lr=0.01, schedule="one_cycle"), OptimConfig(lr=0.01, schedule="cosine", warmup_epochs=0.5)],
    ids=lambda optim: optim.schedule,
)
def test_an_interrupted_run_takes_each_step_at_the_rate_of_its_schedule_over_all_epochs(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optim: OptimConfig
) -> None:
    per_epoch, stop_in, original = len(ShardSet([toy_shards], "train")) // 16, 3, fit.optimizer_step
    total, used = 2 * per_epoch, {}

    def noted(runtime, model, optimizer, batches, step, settings):
        used[step] = {group["lr"] for group in optimizer.param_groups}
        if step == stop_in:
            signal.raise_signal(signal.SIGTERM)
        return original(runtime, model, optimizer, batches, step, settings)

    monkeypatch.setattr(fit, "optimizer_step", noted)
    flags = [
        *("--train.global_batch", "16", "--train.epochs", "2", "--track.every_steps", "1"),
        *("--optim.name", optim.name, "--optim.lr", str(optim.lr), "--optim.schedule", optim.schedule),
        *("--optim.warmup_epochs", str(optim.warmup_epochs)),
    ]
    for code in (85, 0):
        assert small_training.train(tmp_path / "run", toy_shards, *flags) == code
    expected = [learning_rate(step, total, per_epoch, optim) for step in range(total)]
    told = [line for line in small_training.logged(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in told] == [step + 1 for step in range(total)]  # a line tells the steps taken
    assert [line["lr"] for line in told] == expected
    assert used == {step: {rate} for step, rate in enumerate(expected)}

"""A sweep without a server: which trials there are, and which is best."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from attrtrain.config.load import dump_config, load_config
from tools import local_sweep

ROOT = Path(__file__).parents[2]


def test_the_sweep_for_wandb_is_drawn_within_its_ranges_and_always_alike() -> None:
    parameters = yaml.safe_load((ROOT / "slurm" / "sweep.yaml").read_text())["parameters"]
    trials = [local_sweep.draw(parameters, 3, number) for number in range(400)]
    assert trials[17] == local_sweep.draw(parameters, 3, 17) != local_sweep.draw(parameters, 4, 17)
    rates = np.log10([trial["optim.lr"] for trial in trials])
    low, high = math.log10(0.0001), math.log10(0.003)
    assert (rates >= low).all() and (rates <= high).all()
    assert np.histogram(rates, 4, (low, high))[0] == pytest.approx([100] * 4, abs=30)  # evenly in the exponent
    for name in ("model.head", "optim.schedule", "train.ema", "train.channels_last"):
        seen = [trial[name] for trial in trials]
        assert {str(value) for value in seen} == {str(value) for value in parameters[name]["values"]}
        assert seen.count(parameters[name]["values"][0]) == pytest.approx(200, abs=50)
    apart = np.corrcoef(rates, np.log10([trial["optim.weight_decay"] for trial in trials]))[0, 1]
    assert abs(apart) < 0.15  # parameters do not move together


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ({"min": 1, "max": 4}, {1, 2, 3, 4}),  # both ends, each as often
        ({"distribution": "int_uniform", "min": 1, "max": 2}, {1, 2}),
        ({"min": 3, "max": 3}, {3}),
    ],
)
def test_whole_numbers_are_drawn_from_end_to_end(parameter: dict[str, Any], expected: set[int]) -> None:
    drawn = [local_sweep.draw({"model.hidden": parameter}, 0, number)["model.hidden"] for number in range(400)]
    assert set(drawn) == expected
    assert [drawn.count(value) for value in expected] == pytest.approx([400 / len(expected)] * len(expected), abs=40)


def test_a_range_with_one_whole_end_is_of_any_number() -> None:
    drawn = [local_sweep.draw({"data.flip": {"min": 0, "max": 0.5}}, 0, number)["data.flip"] for number in range(200)]
    assert len(set(drawn)) == 200 and 0 <= min(drawn) < 0.01 and 0.49 < max(drawn) < 0.5


def test_a_grid_is_every_combination() -> None:
    found = local_sweep.grid({"a": {"values": [1, 2]}, "b": {"value": "x"}, "c": {"values": [True, False]}})
    assert found == [{"a": a, "b": "x", "c": c} for a, c in product([1, 2], [True, False])]


@pytest.mark.parametrize(
    ("sweep", "words", "told"),
    [
        ("parameters: {a: {min: 0.1, max: 1.0}}\nmethod: grid", [], "a: a grid needs `values`"),
        ("parameters: {a: {distribution: beta, min: 1, max: 2}}", ["--count", "1"], "a: the distribution beta"),
        ("parameters: {a: {min: 1}}", ["--count", "1"], "a: needs value, values, or min and max"),
        ("parameters: {a: {values: [1]}}\nmethod: random", [], "--count"),
        ("parameters: {a: 3}", ["--count", "1"], "a: must hold value, values, or min and max, not 3"),
        ("parameters: {a: {values: []}}\nmethod: grid", [], "a: values must be a list of at least one"),
        ("parameters: {a: {min: 1e-4, max: 1.0e-2}}", ["--count", "1"], "a: min: '1e-4' is no number to YAML"),
        (
            "parameters: {a: {values: [1, 2], probabilities: [0.9, 0.1]}}",
            ["--count", "1"],
            "probabilities are not known",
        ),
        ("parameters: {a: {distribution: log_uniform_values, min: 0, max: 1}}", ["--count", "1"], "begins above 0"),
        ("parameters: {a: {distribution: log_uniform_values, min: 1, max: 0}}", ["--count", "1"], "a: min 1 is more"),
        ("parameters: {a: {min: 3, max: 3}}\nmethod: random", [], "--count"),  # which may be
        ("parameters: {a: {min: 1, max: [2]}}", ["--count", "1"], "a: max: [2] is no number"),
        ("parameters: {a: {values: [1]}}\nmethod: grid\nmetric: val/best_map", [], "metric: must hold a name"),
        ("parameters: {a: {values: [1]}}\nmethod: grid\nmetric: {goal: maximize}", [], "metric: must hold a name"),
        ("parameters: {}\nmethod: grid", [], "no parameters to try"),
        ("parameters: {a: {values: [1]}}\nmethod: grid", ["--count", "0"], "--count 0: must be at least 1"),
        ("[1, 2]", [], "no W&B sweep"),
        ("a: [", [], "sweep.yaml"),
    ],
)
def test_what_cannot_be_swept_is_one_line(
    sweep: str, words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep.yaml").write_text(sweep)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit) as caught:
        local_sweep.main()
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_trials_that_are_done_are_kept_and_the_best_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "method: grid\nearly_terminate: {type: hyperband}\nmetric: {name: val/best_map, goal: maximize}\nparameters: {optim.lr: {values: [0.1, 0.2, 0.3]}, train.compile: {value: false}}"
    )
    for number, best in enumerate([0.5, None, 0.7]):
        run = tmp_path / "out" / f"{number:04d}"
        run.mkdir(parents=True)
        (run / "result.json").write_text("{}")
        lines = [
            {"kind": "train", "best_map": 0.9},
            {"kind": "val", "best_map": 0.1},
            {"kind": "val", "best_map": best},
        ]
        if best is None:
            lines.pop(1)
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out"), "resnet50"])
    called: list[list[str]] = []
    monkeypatch.setattr(local_sweep, "run_training", called.append)
    assert local_sweep.main() == 0 and not called
    rows = (tmp_path / "out" / "sweep.md").read_text().splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 0002", "| 0000", "| 0001"]
    assert rows[2] == "| 0002 | 0.7000 | 0.3 | False |" and "| nan |" in rows[4]
    assert rows[0] == "| trial | val/best_map | optim.lr | train.compile |"
    told = capsys.readouterr()
    assert rows[0] in told.out and "early_terminate" in told.err


def test_a_trial_is_told_by_the_last_number_of_its_metric(tmp_path: Path) -> None:
    lines = [{"kind": "val", "loss": loss} for loss in (0.5, 0.9, 0.4, 0.7)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert local_sweep.outcome(tmp_path, "val/loss") == 0.7


def test_a_metric_that_no_run_has_is_told_after_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "method: grid\nparameters: {optim.lr: {values: [0.1, 0.2]}}\nmetric: {name: val/best_mAP, goal: maximize}"
    )
    trained = []

    def train(command: list[str]) -> int:
        run = Path(command[command.index("--run.dir") + 1])
        run.mkdir(parents=True)
        lines = [{"kind": kind, "step": 1, "loss": 0.5} for kind in ("train", "val")]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        trained.append(run)
        return 0

    monkeypatch.setattr(local_sweep, "run_training", train)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        local_sweep.main()
    first = tmp_path / "out" / "0000"
    assert caught.value.code == f"error: metric: {first} has no val/best_mAP, but train/loss, val/loss"
    assert trained == [first]


def test_of_a_grid_as_many_are_tried_as_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweep.yaml").write_text("method: grid\nparameters: {optim.lr: {values: [0.1, 0.2, 0.3]}}")
    tried = []
    monkeypatch.setattr(local_sweep, "run_trial", lambda trial, folder, train: bool(tried.append(trial)))
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out"), "--count", "2"])
    with pytest.raises(SystemExit, match="every trial failed"):
        local_sweep.main()
    assert tried == [{"optim.lr": 0.1}, {"optim.lr": 0.2}]


def test_a_value_of_null_and_lists_reach_the_trainer() -> None:
    flags = local_sweep.flags_of({"data.context": None, "data.scales": [0.5, 1.0], "data.flip_swaps": True})
    config = load_config(["resnet50", "--data.shards", "x", "--data.context", "0.1", *flags])
    assert config.data.context is None and config.data.scales == [0.5, 1.0] and config.data.flip_swaps


def test_a_finished_trial_of_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["resnet50", "--data.shards", "x", "--data.workers", "1"]
    trial: dict[str, object] = {"optim.lr": 0.1, "data.context": None}
    (tmp_path / "result.json").write_text("{}")
    used = load_config([*words, "--run.dir", str(tmp_path), *local_sweep.flags_of(trial)])
    (tmp_path / "config.yaml").write_text(dump_config(used))
    monkeypatch.setattr(local_sweep, "run_training", lambda _: pytest.fail("trained again"))
    local_sweep.run_trial(trial, tmp_path, [*words[:-1], "2", "--track.wandb", "disabled"])  # which change no number
    for changed, flags in (
        ({**trial, "optim.lr": 0.2}, []),
        (trial, ["--run.seed", "1"]),
        (trial, ["--loss.name", "asl"]),
    ):
        with pytest.raises(SystemExit, match="was trained under other settings"):
            local_sweep.run_trial(changed, tmp_path, [*words, *flags])


@pytest.mark.parametrize(("codes", "code"), [([0, 1, 0], 1), ([0, 2, 0], 2), ([0, 85, 0], 85), ([1, 1, 1], None)])
def test_a_trial_that_fails_does_not_keep_the_others_from_being_tried(
    codes: list[int],
    code: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sweep.yaml").write_text("method: grid\nparameters: {optim.lr: {values: [0.1, 0.2, 0.3]}}")
    left = iter(codes)

    def train(command: list[str]) -> int:
        run, found = Path(command[command.index("--run.dir") + 1]), next(left)
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text(json.dumps({"kind": "val", "best_map": 0.5}))
        if found == 0:
            (run / "result.json").write_text("{}")
        return found

    monkeypatch.setattr(local_sweep, "run_training", train)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")])
    if code == 1:
        assert local_sweep.main() == 1
        assert "| 0001 | nan |" in (tmp_path / "out" / "sweep.md").read_text()
        assert capsys.readouterr().err.splitlines()[-1] == "failed, so without a number: trials 0001"
        return
    with pytest.raises(SystemExit) as caught:
        local_sweep.main()
    assert caught.value.code == (code or "error: every trial failed; the trainer has said why")


# A trainer that takes a while to save when it is asked to stop.
TRAINER = """
import signal, sys, time
from pathlib import Path
heard = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: heard.append(number))
Path("begun").touch()
while not heard:
    time.sleep(0.02)
time.sleep(1)
Path("saved").write_text(" ".join(map(str, heard)))
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("code", "ended"), [(85, 85), (0, None)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_trial_saves_before_a_sweep_that_is_stopped_ends(
    number: signal.Signals, code: int, ended: int | None, tmp_path: Path
) -> None:
    script = "import sys; from tools.local_sweep import run_training; sys.exit(run_training(sys.argv[1:]))"
    sweep = subprocess.Popen(
        [sys.executable, "-c", script, sys.executable, "-c", TRAINER, str(code)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    try:
        while not (tmp_path / "begun").exists():
            assert sweep.poll() is None
            time.sleep(0.02)
        if number == signal.SIGINT:
            os.killpg(sweep.pid, number)  # as a terminal does
        else:
            sweep.send_signal(number)
        assert sweep.wait(30) == (ended or 128 + number)
    finally:
        sweep.kill()
    assert (tmp_path / "saved").read_text() == str(int(number))  # heard once


def test_a_trial_that_a_signal_ends_has_the_exit_code_of_a_shell() -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert local_sweep.run_training([sys.executable, "-c", killed]) == 128 + signal.SIGKILL

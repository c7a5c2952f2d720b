"""Comparisons: what is trained, what is held against what, and what the table says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from drawn_cells import draw_predictions

from attrtrain.config.load import dump_config, load_config
from attrtrain.metrics.document import write_metrics
from attrtrain.metrics.judge import judge
from attrtrain.metrics.paired import mean_difference, paired_difference
from attrtrain.predictions import Predictions, write_predictions
from tools import ablate

ROOT = Path(__file__).parents[2]
RECIPES = """
preset: resnet50
base: {optim.lr: 0.1}
comparisons:
  better: {loss.name: asl}
  better still: {against: better, train.channels_last: false}
"""


def finish(run: Path, predictions: Predictions, seconds: float, positive_at: float = 0.5) -> None:
    (run / "evaluation").mkdir(parents=True)
    write_predictions(run / "evaluation" / "predictions.npz", predictions)
    document = judge(predictions, source={}, positive_at=positive_at, replicates=0)
    write_metrics(document, run / "evaluation" / "metrics.json")
    (run / "result.json").write_text(json.dumps({"seconds": seconds}))
    fill_checkpoints(run)


def fill_checkpoints(run: Path) -> None:
    (run / "checkpoints" / "step1").mkdir(parents=True)
    (run / "checkpoints" / "step1" / "model.safetensors").write_bytes(b"large")


def drawn(seed: int, gain: float) -> Predictions:
    start = draw_predictions(seed=7, images=70)
    noise = np.random.default_rng(seed).normal(0, 0.1, start.logits.shape).astype(np.float32)
    towards = gain * (np.nan_to_num(start.labels, nan=0.5) - 0.5)
    return replace(start, logits=(start.logits + noise + towards).astype(np.float32))


def test_recipes_are_trained_once_and_held_against_what_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes.yaml").write_text(RECIPES)
    gains = {"base": 0.0, "better": 0.4, "better-still": 0.4}
    commands: list[list[str]] = []

    def train(command: list[str], _: object) -> int:
        commands.append(command)
        run = Path(command[command.index("--run.dir") + 1])
        seed = int(command[command.index("--run.seed") + 1])
        finish(run, drawn(seed, gains[run.parent.name]), 10.0 if run.parent.name == "base" else 15.0)
        return 0

    monkeypatch.setattr(ablate, "run_training", train)
    words = [str(tmp_path / "recipes.yaml"), "--shards", "a", "b", "--out", str(tmp_path / "out"), "--seeds", "5", "6"]
    monkeypatch.setattr("sys.argv", ["x", *words, "--data.workers", "0"])
    assert ablate.main() == 0
    assert [Path(command[command.index("--run.dir") + 1]).parts[-2:] for command in commands] == [
        (name, seed) for seed in ("seed5", "seed6") for name in gains
    ]
    last = commands[-1]
    assert last[1:7] == ["-m", "attrtrain.train", "resnet50", "--data.shards", "a", "b"]
    assert {"--optim.lr=0.1", "--loss.name=asl", "--train.channels_last=false", "--data.workers"} <= set(last)
    assert not any("loss.name" in word for word in commands[0])

    better, still = json.loads((tmp_path / "out" / "ablation.json").read_text())
    base, mine = ([drawn(seed, gain) for seed in (5, 6)] for gain in (0.0, 0.4))
    expected = mean_difference(base, mine)
    assert better["difference"]["difference"] == pytest.approx(expected.difference) and expected.interval[0] > 0
    assert better["by_seed"] == pytest.approx(
        [paired_difference(a, b).overall["map"].difference for a, b in zip(base, mine, strict=True)]
    )
    assert better["relative_time"] == 1.5 and still["relative_time"] == 1
    assert still["difference"]["difference"] == 0 and still["recipe"]["against"] == "better"
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert f"| better | {expected.b:.4f} | **{expected}** |" in text
    assert "| better still (against better) |" in text and "| base | " in text

    runs = sorted((tmp_path / "out" / "runs").glob("*/seed*"))
    assert len(runs) == 6
    assert all(sorted(path.name for path in run.iterdir()) == ["evaluation", "result.json"] for run in runs)

    commands.clear()
    fill_checkpoints(runs[0])  # of a command that was killed before it could remove them
    assert ablate.main() == 0 and not commands  # what is done is kept
    assert not (runs[0] / "checkpoints").exists()


def test_runs_are_compared_by_the_vote_share_they_were_judged_with(tmp_path: Path) -> None:
    start = draw_predictions(seed=7, images=70)
    votes = np.random.default_rng(0).choice([0, 1 / 3, 2 / 3, 1], start.labels.shape).astype(np.float32)
    before = replace(start, labels=votes)
    after = replace(before, logits=(before.logits + votes).astype(np.float32))
    base, better, other = (ablate.Recipe(name, {}) for name in ("base", "better", "other"))
    finish(base.folder(tmp_path, 0), before, 1.0, positive_at=0.3)
    finish(better.folder(tmp_path, 0), after, 1.0, positive_at=0.3)
    finish(other.folder(tmp_path, 0), after, 1.0)
    outcome = ablate.compare(better, base, [0], tmp_path)
    expected = paired_difference(before, after, positive_at=0.3).overall["map"]
    assert (outcome.difference.a, outcome.difference.b) == pytest.approx((expected.a, expected.b))
    assert outcome.by_seed == pytest.approx([expected.difference])
    with pytest.raises(SystemExit, match=r"other and base were judged with labels.positive_at 0.3 and 0.5"):
        ablate.compare(other, base, [0], tmp_path)


def test_a_run_of_what_a_recipe_was_before_is_not_taken_for_it(tmp_path: Path) -> None:
    before, now = ablate.Recipe("base", {"optim.lr": 0.1}), ablate.Recipe("base", {"optim.lr": 0.2})
    run = before.folder(tmp_path, 0)
    finish(run, drawn(0, 0.0), 1.0)
    used = ["resnet50", "--data.shards", "x", "--run.dir", str(run), "--optim.lr=0.1", "--track.wandb", "disabled"]
    (run / "config.yaml").write_text(dump_config(load_config(used)))
    ablate.train("resnet50", before, 0, ["x"], tmp_path, [])
    with pytest.raises(SystemExit, match=r"other settings \(optim.lr: 0.1 → 0.2\)"):
        ablate.train("resnet50", now, 0, ["x"], tmp_path, [])


def test_a_run_that_failed_keeps_what_it_goes_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = ablate.Recipe("base", {})
    fill_checkpoints(run := recipe.folder(tmp_path, 0))
    monkeypatch.setattr(ablate, "run_training", lambda *_: 85)
    with pytest.raises(SystemExit):
        ablate.train("resnet50", recipe, 0, ["shards"], tmp_path, [])
    assert (run / "checkpoints" / "step1" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("preset: a\nbase: {}", "must hold preset, base and comparisons"),
        ("preset: a\nbase: {}\ncomparisons: {x: 3}", "a recipe is flags with values"),
        ("preset: a\nbase: {}\ncomparisons: [x]", "comparisons are recipes by name, not ['x']"),
        ("preset: a\nbase: {}\ncomparisons:", "comparisons are recipes by name, not None"),
        ("preset: a\nbase: {}\ncomparisons: {x: {against: y}}", "x: there is no y before it"),
    ],
)
def test_what_is_no_list_of_recipes_is_one_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "recipes.yaml").write_text(text)
    with pytest.raises(SystemExit) as caught:
        ablate.read_recipes(tmp_path / "recipes.yaml")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("comparisons", "told"),
    [
        ("{good: {loss.name: asl}, bad: {loss.nam: bce}}", "bad: command line: "),
        ("{bad: {optim.warmup_epochs: 3, train.epochs: 3}}", "bad: command line: optim.warmup_epochs: 3 must be less"),
        ("{a b: {optim.lr: 0.2}, a-b: {optim.lr: 0.3}}", "a-b and a b would be trained into one folder, "),
        ("{base: {optim.lr: 0.2}}", "base and base would be trained into one folder, "),
        (
            "{votes: {labels.positive_at: 0.4}}",
            "votes and base are judged with labels.positive_at 0.4 and 0.5, so their scores cannot be compared",
        ),
        (
            "{a: {optim.lr: 0.2}, b: {against: a, data.val_split: test}}",
            "b and a are judged with data.val_split test and val, so",
        ),
    ],
)
def test_a_recipe_whose_turn_would_come_in_vain_is_told_before_any_is_trained(
    comparisons: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes.yaml").write_text(f"preset: resnet50\nbase: {{optim.lr: 0.1}}\ncomparisons: {comparisons}")
    monkeypatch.setattr(ablate, "run_training", lambda *_: pytest.fail("hours that come to nothing"))
    words = [str(tmp_path / "recipes.yaml"), "--shards", "a", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["x", *words])
    with pytest.raises(SystemExit) as caught:
        ablate.main()
    assert str(caught.value).startswith(f"error: {told}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "tools" / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_is_shipped_is_a_configuration(path: Path) -> None:
    preset, recipes = ablate.read_recipes(path)
    assert len({recipe.folder(Path(), 0) for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        flags = [
            f"--{flag}={str(value).lower() if isinstance(value, bool) else value}"
            for flag, value in recipe.changes.items()
        ]
        load_config([preset, "--data.shards", "x", *flags])
    assert yaml.safe_load(path.read_text())["comparisons"]

#!/usr/bin/env python
"""Controlled comparisons: one setting is changed, everything else stays, and the difference gets an interval.

    python -m tools.ablate tools/ablations/persons.yaml --shards shards/persons --out ablation [--seeds 0 1 2] [train
    flags ...]

The YAML names a base and what is changed, in flags of the trainer:

    preset: resnet50
    base: {data.image_px: 64, train.epochs: 2}
    comparisons:
      asymmetric loss: {loss.name: asl}
      three models' worth of epochs: {train.epochs: 6}

A comparison may have `against: NAME`, another comparison to be held against instead of the base. Every recipe is
trained with every seed; recipes take turns, so that a machine that slows down slows all of them down. What is done is
kept: the same command goes on where it was stopped, and a YAML with more comparisons trains only those; a finished run
of other settings than its recipe has now is refused. A finished run loses its checkpoints/, hundreds of megabytes that
nothing here reads, and keeps all else: bundle, evaluation, report, numbers. Writes OUT/ablation.md and
OUT/ablation.json: val mAP of the best epoch, gain with a 95 % interval by paired bootstrap over photographs and seeds,
the gain of each seed, and the time of training beside the base's.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from attrtrain.config.load import load_config
from attrtrain.errors import ConfigError
from attrtrain.metrics.document import METRICS, read_metrics
from attrtrain.metrics.paired import Difference, mean_difference
from attrtrain.predictions import PREDICTIONS, Predictions, read_predictions
from attrtrain.run_layout import CHECKPOINTS, EVALUATION, RESULT
from tools.local_sweep import flags_of, read_yaml, require_same, run_training

BASE = "base"


@dataclass(frozen=True)
class Recipe:
    """What is trained.

    Attributes:
        name: for people.
        changes: flags of the trainer, by name.
        against: the recipe it is held against.
    """

    name: str
    changes: dict[str, Any]
    against: str = BASE

    def folder(self, out: Path, seed: int) -> Path:
        """The run directory."""
        return out / "runs" / "".join(letter if letter.isalnum() else "-" for letter in self.name) / f"seed{seed}"


@dataclass(frozen=True)
class Outcome:
    """How a recipe did against another.

    Attributes:
        recipe: what was changed.
        difference: mean val mAP of both, the gain and its interval.
        by_seed: the gain with each seed.
        seconds: mean time of a run, evaluations included.
        relative_time: mean over seeds of its time by that of the other.
    """

    recipe: Recipe
    difference: Difference
    by_seed: list[float]
    seconds: float
    relative_time: float


def read_recipes(path: Path) -> tuple[str, list[Recipe]]:
    """The preset and the recipes of a YAML file, the base first.

    Raises:
        SystemExit: it is no such file.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) != {"preset", "base", "comparisons"}:
        raise SystemExit(f"error: {path}: must hold preset, base and comparisons")
    if not isinstance(content["comparisons"], dict):
        raise SystemExit(f"error: {path}: comparisons are recipes by name, not {content['comparisons']!r}")
    for what in (content["base"], *content["comparisons"].values()):
        if not isinstance(what, dict):
            raise SystemExit(f"error: {path}: a recipe is flags with values, such as {{loss.name: asl}}, not {what!r}")
    recipes = [Recipe(BASE, content["base"])]
    for name, given in content["comparisons"].items():
        changes = {flag: value for flag, value in given.items() if flag != "against"}
        against = next((recipe for recipe in recipes if recipe.name == given.get("against", BASE)), None)
        if against is None:
            raise SystemExit(f"error: {path}: {name}: there is no {given['against']} before it to be held against")
        recipes.append(Recipe(name, {**against.changes, **changes}, against.name))
    return content["preset"], recipes


def require_trainable(
    preset: str, recipes: Sequence[Recipe], shards: Sequence[str], out: Path, flags: Sequence[str]
) -> None:
    """Refuses, before days of training, recipes whose turn would come in vain.

    Raises:
        SystemExit: one is no configuration, is trained into the folder of another, or would be judged in another way
            than what it is held against.
    """
    named: dict[Path, str] = {}
    judged: dict[str, dict[str, Any]] = {}
    for recipe in recipes:
        try:
            config = load_config(_words(preset, recipe, 0, shards, out, flags))
        except ConfigError as error:
            raise SystemExit(f"error: {recipe.name}: {error}") from None
        if (other := named.setdefault(recipe.folder(out, 0), recipe.name)) != recipe.name or recipe.name in judged:
            raise SystemExit(
                f"error: {recipe.name} and {other} would be trained into one folder, {recipe.folder(out, 0).parent}; give one of them another name"
            )
        judged[recipe.name] = {
            "labels.positive_at": config.labels.positive_at,
            "data.val_split": config.data.val_split,
        }
        for setting, value in judged[recipe.name].items():
            if value != (theirs := judged.get(recipe.against, judged[BASE])[setting]):
                raise SystemExit(
                    f"error: {recipe.name} and {recipe.against} are judged with {setting} {value} and {theirs}, so their scores cannot be compared"
                )


def _words(preset: str, recipe: Recipe, seed: int, shards: Sequence[str], out: Path, flags: Sequence[str]) -> list[str]:
    """The trainer's command line."""
    return [
        *(preset, "--data.shards", *shards, "--run.dir", str(recipe.folder(out, seed))),
        *("--run.seed", str(seed), "--track.wandb", "disabled", *flags_of(recipe.changes), *flags),
    ]


def train(preset: str, recipe: Recipe, seed: int, shards: Sequence[str], out: Path, flags: Sequence[str]) -> None:
    """Trains one recipe with one seed, if that is not done, and removes the checkpoints of what is.

    Raises:
        SystemExit: it failed, and the trainer has said why, and its checkpoints stay to go on from; or it was trained
            under other settings, such as a base that has changed since.
    """
    run, words = recipe.folder(out, seed), _words(preset, recipe, seed, shards, out, flags)
    if (run / RESULT).exists():
        require_same(run, words)
    else:
        _start(recipe, seed, words)
    if (run / RESULT).exists() and (run / CHECKPOINTS).exists():
        shutil.rmtree(run / CHECKPOINTS)


def _start(recipe: Recipe, seed: int, words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "attrtrain.train", *words]
    print(f"$ {recipe.name}, seed {seed}: {shlex.join(['python', *command[1:]])}", flush=True)
    if code := run_training(command, {**os.environ, "PYTHONUNBUFFERED": "1"}):
        raise SystemExit(code)


def compare(recipe: Recipe, other: Recipe, seeds: Sequence[int], out: Path) -> Outcome:
    """Holds the runs of a recipe against those of another, read as they were judged.

    Raises:
        SystemExit: they take other vote shares for present.
    """
    counted = {_positive_at(one, seed, out) for one in (other, recipe) for seed in seeds}
    if len(counted) > 1:
        told = " and ".join(f"{share:g}" for share in sorted(counted))
        raise SystemExit(
            f"error: {recipe.name} and {other.name} were judged with labels.positive_at {told}, so their scores cannot be compared"
        )
    positive_at = counted.pop()
    theirs, mine = ([_predictions(one, seed, out) for seed in seeds] for one in (other, recipe))
    seconds = [[_seconds(one, seed, out) for seed in seeds] for one in (other, recipe)]
    return Outcome(
        recipe=recipe,
        difference=mean_difference(theirs, mine, positive_at=positive_at),
        by_seed=[
            mean_difference([a], [b], positive_at=positive_at).difference for a, b in zip(theirs, mine, strict=True)
        ],
        seconds=mean(seconds[1]),
        relative_time=mean(b / a for a, b in zip(*seconds, strict=True)),
    )


def _predictions(recipe: Recipe, seed: int, out: Path) -> Predictions:
    return read_predictions(recipe.folder(out, seed) / EVALUATION / PREDICTIONS)


def _positive_at(recipe: Recipe, seed: int, out: Path) -> float:
    return read_metrics(recipe.folder(out, seed) / EVALUATION / METRICS).positive_at


def _seconds(recipe: Recipe, seed: int, out: Path) -> float:
    return float(json.loads((recipe.folder(out, seed) / RESULT).read_text())["seconds"])


def table(base: Recipe, outcomes: Sequence[Outcome], seeds: Sequence[int]) -> str:
    """The comparisons as a Markdown table."""
    rows = [
        "| changed | val mAP | gain, 95 % interval | gain by seed | time |",
        "|---|---|---|---|---|",
    ]
    if outcomes:
        rows.append(f"| {base.name} | {outcomes[0].difference.a:.4f} | | | 1 |")
    for outcome in outcomes:
        difference, against = outcome.difference, outcome.recipe.against
        sure = difference.interval is not None and (difference.interval[0] > 0 or difference.interval[1] < 0)
        gain = f"**{difference}**" if sure else str(difference)
        label = outcome.recipe.name + (f" (against {against})" if against != BASE else "")
        by_seed = " ".join(f"{value:+.4f}" for value in outcome.by_seed)
        rows.append(f"| {label} | {difference.b:.4f} | {gain} | {by_seed} | {outcome.relative_time:.2f} |")
    told = f"{len(seeds)} seeds; an interval in bold excludes zero"
    return "\n".join([*rows, "", told, ""])


def main() -> int:
    """Parses the command line, trains what is missing, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, metavar="FILE.yaml")
    parser.add_argument("--shards", nargs="+", required=True, metavar="DIR", help="what all are trained and judged on")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    arguments, flags = parser.parse_known_args()
    out: Path = arguments.out
    preset, recipes = read_recipes(arguments.recipes)
    require_trainable(preset, recipes, arguments.shards, out, flags)
    for seed in arguments.seeds:
        for recipe in recipes:
            train(preset, recipe, seed, arguments.shards, out, flags)
    by_name = {recipe.name: recipe for recipe in recipes}
    outcomes = [compare(recipe, by_name[recipe.against], arguments.seeds, out) for recipe in recipes[1:]]
    text = table(recipes[0], outcomes, arguments.seeds)
    (out / "ablation.md").write_text(text)
    (out / "ablation.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

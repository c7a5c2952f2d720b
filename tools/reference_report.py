#!/usr/bin/env python
"""The reference report, again: 275 crops, 204 coin-flip labels, and the recipe that called 51.5 % accuracy "clearly
above chance".

    python -m tools.reference_report WORK --labels labels.csv --images photos/ [--instances ...] [--weights PATH] [train
    flags ...]

Takes 275 labelled objects, whole photographs at a time, and shards them twice: with 204 fair coin flips for labels, and
with their own. The same crops, the same split, the same `reference_report` preset train on both. Writes
WORK/reference_report.md, in which every figure comes from these runs. Without --labels, a toy COCO is drawn. What is
done is kept: the same command goes on where it was stopped.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations import read_labels
from attrtrain.annotations.split import split_by_image
from attrtrain.annotations.table import ObjectTable
from attrtrain.cli import main as attrtrain
from attrtrain.errors import AttrtrainError
from attrtrain.keyed_random import mix64
from attrtrain.metrics.document import METRICS, Baseline, MetricsDocument, read_metrics
from attrtrain.report.render import score
from attrtrain.run_layout import AUDIT, HISTORY, RESULT
from tools.make_toy_coco import draw_toy_coco

OBJECTS, ATTRIBUTES, VAL_SHARE, SEED = 275, 204, 0.2, 0


@dataclass(frozen=True)
class Outcome:
    """What became of one set of labels.

    Attributes:
        document: metrics.json of the val split.
        audit: audit.json of the shards.
        epochs: that were trained, the best of which is judged.
    """

    document: MetricsDocument
    audit: dict[str, object]
    epochs: int


def choose_objects(table: ObjectTable, count: int, seed: int) -> NDArray[np.int64]:
    """Rows (count,) of objects: the largest of each photograph, photographs in an order hashed from their ids; then, if
    more are needed, the second largest.

    Raises:
        SystemExit: there are too few.
    """
    x, y, width, height = table.box.T
    inside = (x >= 0) & (y >= 0) & (width >= 8) & (height >= 8) & ~table.crowd
    rows = np.flatnonzero(inside & ~np.isnan(table.labels).all(axis=1))
    if len(rows) < count:
        raise SystemExit(f"error: {count} labelled objects are needed, and there are {len(rows)}")
    rows = rows[np.lexsort((-(width * height)[rows], table.image_id[rows]))]
    starts = np.flatnonzero(np.diff(table.image_id[rows], prepend=-1))  # ids are 0 or more
    place = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))  # 0 for the largest
    return rows[np.lexsort((mix64(seed, table.image_id[rows]), place))][:count]


def write_csv(path: Path, table: ObjectTable, names: Sequence[str], labels: NDArray[np.floating]) -> None:
    """Writes objects with labels (N, A), NaN = unknown, as `attrtrain shard --labels` reads them."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = (table.image, table.image_id, table.object_id, table.split, table.category)
        writer.writerow(["file_name", "image_id", "object_id", "split", "category", "x", "y", "w", "h", *names])
        for row in range(len(table)):
            # The fewest digits that read back as the same single precision.
            cells = [
                "" if np.isnan(value) else np.format_float_positional(np.float32(value), trim="-")
                for value in labels[row]
            ]
            writer.writerow([*(column[row] for column in columns), *table.box[row], *cells])


def run_once(
    name: str, csv_path: Path, work: Path, images: Sequence[Path], weights: Path | None, flags: Sequence[str]
) -> Outcome:
    """Shards, audits, trains and judges one set of labels."""
    shards, run, audit = work / "shards" / name, work / "runs" / name, work / "audits" / name
    _call(["shard", "--labels", csv_path, "--images", *images, "--out", shards, "--split", "official"])
    probe = ["--weights", weights] if weights is not None else []
    _call(["audit", shards, "--out", audit, *probe], accepted=(0, 3, 4))
    if not (run / RESULT).exists():
        start = ["--model.weights", weights] if weights is not None else []
        given = ["--data.shards", shards, "--run.dir", run, "--track.wandb", "disabled", *start, *flags]
        _call(["train", "reference_report", *given])
    # Judged anew, so that figures follow when the way of judging changes.
    _call(["evaluate", "--model", run, "--shards", shards, "--out", work / "evaluations" / name])
    lines = [json.loads(line) for line in (run / HISTORY).read_text().splitlines()]
    return Outcome(
        document=read_metrics(work / "evaluations" / name / METRICS),
        audit=json.loads((audit / AUDIT).read_text()),
        epochs=sum(line["kind"] == "val" for line in lines),
    )


def _call(words: Sequence[object], accepted: Sequence[int] = (0,)) -> None:
    command = [str(word) for word in words]
    print("$ attrtrain", *command, flush=True)
    if (code := attrtrain(command)) not in accepted:
        raise SystemExit(code)


def page(coins: Outcome, real: Outcome, command: str) -> str:
    """The document: two columns of figures, and what to make of them."""
    low, high = coins.document.intervals["cell_accuracy"] or (float("nan"), float("nan"))
    contains = "contains" if low <= 0.5 <= high else "does not contain"
    return TEMPLATE.format(
        command=command,
        objects=OBJECTS,
        val=coins.document.objects,
        photographs=coins.document.images,
        table="\n".join(_rows(coins, real)),
        accuracy=_percent(coins.document.overall["cell_accuracy"]),
        interval=f"{_percent(low)} to {_percent(high)}",
        contains=contains,
        epochs=coins.epochs,
        cells=f"{sum(entry.positives + entry.negatives for entry in coins.document.attributes):,}",
    )


def _rows(coins: Outcome, real: Outcome) -> list[str]:
    def both(label: str, tell: Callable[[MetricsDocument], str]) -> str:
        return f"| {label} | {tell(coins.document)} | {tell(real.document)} |"

    def scored(key: str) -> Callable[[MetricsDocument], str]:
        return lambda document: _with_interval(document, key)

    def guessed(baseline: Baseline, key: str) -> Callable[[MetricsDocument], str]:
        return lambda document: score((document.baselines[baseline] or {}).get(key))

    audits = [
        f"**{audit['verdict']}**, p = {audit['p_value']:.2g}, effect {audit['effect']:.3f} ({audit['decided_by']})"
        for audit in (coins.audit, real.audit)
    ]
    return [
        both("attributes (judged)", lambda d: f"{len(d.attributes)} ({sum(entry.judged for entry in d.attributes)})"),
        both("accuracy over cells", scored("cell_accuracy")),
        both("… of saying what is more frequent", guessed("prior", "cell_accuracy")),
        both("mAP", scored("map")),
        both("… of the prior", scored("prior_map")),
        both("… of a random order", scored("permutation_map")),
        both("p against shuffled scores", lambda d: score(d.permutation_p)),
        both("mean AUROC", scored("auroc")),
        both("mean balanced accuracy", scored("balanced_accuracy")),
        f"| `attrtrain audit` | {audits[0]} | {audits[1]} |",
    ]


def _with_interval(document: MetricsDocument, key: str) -> str:
    interval = document.intervals.get(key)
    told = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{score(document.overall[key])}{told}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


TEMPLATE = """# The reference report, again

A report once trained a ResNet50 on 275 crops with 204 labels and found 51.5 % validation accuracy after 30 epochs, "clearly above chance". Here is that recipe
again, twice: on labels that are nothing but fair coin flips, and on the real labels of the same crops. Every figure below was written by one command:

```bash
{command}
```

{objects} objects, of which {val} in {photographs} photographs are judged; 95 % intervals by bootstrap over photographs.

| | 204 coin flips | real labels |
|---|---|---|
{table}

## How to read it

- **An accuracy near one half is what coins give.** It is {accuracy} here, over {cells} cells that nobody could have predicted; its interval, {interval}, {contains} 50 %. An epoch
  picked as the best of {epochs} on the very objects it is judged on easily lands a little above one half.
- **Accuracy needs what guessing scores.** Where positives are rare, saying "absent" everywhere is very accurate. mAP beside its prior and beside a random order is not
  fooled: on coins the model is where guessing is.
- **The labels could have said so before training.** `attrtrain audit` looks at them for seconds, tells coins from labels with its exit code, and with `--weights` asks
  whether frozen features of the crops can tell them. Training begins with the cheap part of it; `--audit.strict` refuses to go on.
- **The recipe was never the problem.** On real labels the same crops, split, network and settings give the column on the right.
"""


def main() -> int:
    """Parses the command line, runs both, writes the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for everything that is made")
    parser.add_argument("--labels", type=Path, nargs="+", default=[], metavar="PATH", help="as for `attrtrain shard`")
    parser.add_argument(
        "--instances", type=Path, nargs="+", default=[], metavar="PATH", help="as for `attrtrain shard`"
    )
    parser.add_argument("--images", type=Path, nargs="+", default=[], metavar="DIR", help="as for `attrtrain shard`")
    parser.add_argument(
        "--weights", type=Path, metavar="PATH", help="ImageNet weights of a ResNet50, for start and audit"
    )
    arguments, flags = parser.parse_known_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    labels, instances, images = arguments.labels, arguments.instances, arguments.images
    if not labels:
        toy = work / "toy"
        draw_toy_coco(toy)
        labels, images = [toy / "cocottributes.pkl"], [toy / "train2017", toy / "val2017"]
        instances = sorted((toy / "annotations").glob("*.json"))
    try:
        table, _ = read_labels(labels, instances)
    except AttrtrainError as error:
        raise SystemExit(f"error: {error}") from None
    table = table.take(choose_objects(table, OBJECTS, SEED))
    table = table.with_split(split_by_image(table, VAL_SHARE, SEED))
    coins = np.random.default_rng(SEED).integers(0, 2, (OBJECTS, ATTRIBUTES)).astype(np.float32)
    write_csv(work / "coins.csv", table, [f"coin {number}" for number in range(ATTRIBUTES)], coins)
    write_csv(work / "real.csv", table, table.vocabulary.names, table.labels)
    outcomes = [
        run_once(name, work / f"{name}.csv", work, images, arguments.weights, flags) for name in ("coins", "real")
    ]
    command = " ".join(["python -m tools.reference_report", *sys.argv[1:]])
    (work / "reference_report.md").write_text(page(outcomes[0], outcomes[1], command))
    print(f"{work}/reference_report.md has the figures, {work}/runs the reports of both runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())

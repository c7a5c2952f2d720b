"""One self-contained HTML page: how good each attribute is beside guessing, and what the model says of crops it never saw."""

import base64
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment

from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import Evaluation
from attrtrain.files import atomic_write
from attrtrain.keyed_random import mix64

_GALLERY_SIZE = 24
_SHOWN_ATTRIBUTES = 10


@dataclass(frozen=True)
class Row:
    """An attribute in the table; `ap` is None where it has no known positive or no known negative."""

    name: str
    ap: float | None
    prior: float | None
    positives: int
    negatives: int
    unknowns: int


@dataclass(frozen=True)
class Guess:
    """One predicted attribute of a crop: "right", "wrong", "missed" or "unknown" as its label tells."""

    name: str
    score: float
    verdict: str


@dataclass(frozen=True)
class Picture:
    """A crop of the gallery."""

    object_id: int
    category: str
    jpeg: str
    guesses: list[Guess]


def write_report(
    path: Path,
    title: str,
    evaluation: Evaluation,
    shards: ShardSet,
    settings: str,
    metrics: Path | None,
    positive_at: float,
) -> None:
    """Writes the page.

    Args:
        path: where to.
        title: what is reported on.
        evaluation: predictions for every sample of `shards`.
        settings: the configuration, as text.
        metrics: the run's metrics.jsonl, or None where there was no training.
        positive_at: vote share that counts as present.
    """
    template = Environment(autoescape=True).from_string(
        (files("attrtrain.report") / "page.html.j2").read_text(encoding="utf-8")
    )
    html = template.render(
        title=title,
        scores=evaluation.scores,
        objects=len(evaluation.labels),
        rows=_rows(evaluation, shards),
        epochs=_epochs(metrics),
        pictures=_gallery(evaluation, shards, positive_at),
        settings=settings,
        split=shards.split,
    )
    with atomic_write(path) as file:
        file.write(html.encode())


def _rows(evaluation: Evaluation, shards: ShardSet) -> list[Row]:
    rows = [Row(**entry) for entry in evaluation.as_dict(shards.vocabulary.names)["attributes"]]
    return sorted(rows, key=lambda row: -1 if row.ap is None else row.ap, reverse=True)


def _epochs(metrics: Path | None) -> list[dict[str, float]]:
    if metrics is None or not metrics.exists():
        return []
    return [line for line in map(json.loads, metrics.read_text().splitlines()) if line["kind"] == "val"]


def _gallery(evaluation: Evaluation, shards: ShardSet, positive_at: float) -> list[Picture]:
    """Crops drawn by hashed object id: chosen by nobody, the same in every run."""
    ids = shards.column("object_id")
    categories = shards.categories()
    return [
        Picture(
            object_id=int(ids[row]),
            category=categories[row],
            jpeg=base64.b64encode(shards.jpeg(int(row))).decode(),
            guesses=_guesses(evaluation.logits[row], evaluation.labels[row], shards.vocabulary.names, positive_at),
        )
        for row in np.argsort(mix64(ids))[:_GALLERY_SIZE]
    ]


def _guesses(logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...], positive_at: float) -> list[Guess]:
    """The attributes that the model names, likeliest first, then those present that it does not name."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    present = labels >= positive_at  # NaN compares false
    named = [column for column in np.argsort(-scores) if scores[column] >= 0.5]
    missed = [column for column in np.argsort(-scores) if scores[column] < 0.5 and present[column]]
    verdicts = [
        *(
            (column, "unknown" if np.isnan(labels[column]) else "right" if present[column] else "wrong")
            for column in named
        ),
        *((column, "missed") for column in missed),
    ]
    return [Guess(names[column], float(scores[column]), verdict) for column, verdict in verdicts[:_SHOWN_ATTRIBUTES]]

"""The curves of a training run, from its metrics.jsonl."""

from pathlib import Path
from typing import Any

import numpy as np

from attrtrain.tracking.jsonl_tracker import is_number, read_lines

_POINTS = 300
Points = list[tuple[float, float]]


def read_curves(history: Path | None) -> dict[str, Points]:
    """Curves over optimizer steps: "train loss", "val loss", "val mAP", "prior mAP", "learning rate"; those without a
    point are absent.

    Long curves are shortened to means of neighbouring points. A line that a killed process was writing is passed over.

    Args:
        history: a run's metrics.jsonl, or None where there was no training.
    """
    lines = read_lines(history) if history else []
    curves = {
        "train loss": _points(lines, "train", "loss"),
        "val loss": _points(lines, "val", "loss"),
        "val mAP": _points(lines, "val", "map"),
        "prior mAP": _points(lines, "val", "prior_map"),
        "learning rate": _points(lines, "train", "lr"),
    }
    return {name: _shortened(points) for name, points in curves.items() if points}


def best_epoch(history: Path | None) -> tuple[int, int] | None:
    """Epoch and step of the highest mAP on the validation split, the first of equals; None where none is written."""
    lines = read_lines(history) if history else []
    judged = [
        line for line in lines if line["kind"] == "val" and all(is_number(line.get(name)) for name in ("map", "epoch"))
    ]
    if not judged:
        return None
    best = max(judged, key=lambda line: line["map"])  # max keeps the first
    return int(best["epoch"]), int(best["step"])


def _points(lines: list[dict[str, Any]], kind: str, name: str) -> Points:
    return [(line["step"], line[name]) for line in lines if line["kind"] == kind and is_number(line.get(name))]


def _shortened(points: Points) -> Points:
    if len(points) <= _POINTS:
        return points
    parts = np.array_split(np.array(points, dtype=np.float64), _POINTS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]

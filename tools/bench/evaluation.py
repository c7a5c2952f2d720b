"""`eval`: judging a split of full size, 188,426 objects x 204 attributes of which 9 % are known.

The limit sorts the scores of every attribute's known cells once, which any average precision has to. Each contender
gets the same arrays and returns AP, AUROC, precision, recall and F1 at 0.5 of every attribute; it is an error if they
differ. attrtrain has two turns. One computes just these, by what scores the objects of one category in use; the other
measures much else as well (tuned thresholds, calibration, top 15, instance scores, loss), as it does of the whole.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.files import atomic_write
from tools.bench.contest import BenchError, Contender, Row, take_turns
from tools.bench.data import Source
from tools.bench.result import Case, Result

OBJECTS, KNOWN = 188_426, 0.09
TOLERANCE = 1e-6
_TURNS_OF_PEERS = 2
OURS, EVERYTHING = "attrtrain", "attrtrain, everything"
SCORES = ("average_precision", "auroc", "precision", "recall", "f1")
_PLACE = "tools.bench.evaluation_contenders"


def run(arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    """Compares on one core."""
    objects, attributes = arguments.objects or OBJECTS, arguments.attributes
    draw_cells(work / "cells.npz", objects, attributes)

    def contender(name: str, role: Any, function: str, most_turns: int | None = None) -> Contender:
        settings = {"cells": str(work / "cells.npz"), "scores": str(work / f"{name}.npz")}
        return Contender(name, role, f"{_PLACE}:{function}", settings, most_turns=most_turns)

    contenders = [
        contender("one sort an attribute", "limit", "sort_only"),
        contender(OURS, "attrtrain", "ours"),
        contender(EVERYTHING, "attrtrain", "ours_with_everything"),
        contender("torchmetrics", "peer", "torchmetrics_peer", _TURNS_OF_PEERS),
        contender("scikit-learn", "peer", "sklearn_peer", _TURNS_OF_PEERS),
    ]
    rows = take_turns(contenders, arguments.repeats, arguments.cores[:1], arguments.limit_seconds)
    differences = require_equal(rows, work)
    settings = {"objects": objects, "attributes": attributes, "known": KNOWN, "tolerance": TOLERANCE}
    note = f"largest differences from attrtrain's scores: {_told(differences)}"
    cases = [
        Case(name, [row for row in rows if row.name != other], "objects per second", note=note)
        for name, other in (("the same five scores", EVERYTHING), ("everything that attrtrain measures", OURS))
    ]
    return Result("eval", cases, settings, {"largest_difference": differences})


def draw_cells(path: Path, objects: int, attributes: int) -> None:
    """Writes logits (N, A) float32 and labels (N, A) float32, NaN = unknown: attributes with rates from 1 in 200 to 1
    in 2, and logits that know something of them.

    Logits have three decimals, so some are equal.
    """
    rng = np.random.default_rng(0)
    rates = np.exp(rng.uniform(np.log(0.005), np.log(0.5), attributes))
    logits, labels = np.empty((objects, attributes), np.float32), np.empty((objects, attributes), np.float32)
    for a in range(attributes):
        positive = rng.random(objects) < rates[a]
        labels[:, a] = np.where(rng.random(objects) < KNOWN, positive, np.nan)
        logits[:, a] = (np.log(rates[a] / (1 - rates[a])) + 1.5 * positive + rng.normal(size=objects)).round(3)
    with atomic_write(path) as file:
        np.savez(file, logits=logits, labels=labels)


def require_equal(rows: list[Row], work: Path) -> dict[str, float]:
    """Compares every peer's scores, and those of attrtrain's other turn, with attrtrain's. Returns the largest
    difference of each.

    Raises:
        BenchError: more than 1e-6, or one has a score where the other has none.
    """
    ours = _scores(work / f"{OURS}.npz")
    differences = {}
    for row in rows:
        if row.role == "limit" or row.name == OURS or not row.values:
            continue
        its = _scores(work / f"{row.name}.npz")
        worst = 0.0
        for key in SCORES:
            difference = np.abs(ours[key] - its[key])
            if (
                not np.array_equal(np.isnan(ours[key]), np.isnan(its[key]))
                or np.nanmax(difference, initial=0) > TOLERANCE
            ):
                column = int(np.nanargmax(np.where(np.isnan(difference), np.inf, difference)))
                raise BenchError(
                    f"{row.name}: {key} of attribute {column} is {its[key][column]}, attrtrain says {ours[key][column]}; such times are not comparable"
                )
            worst = max(worst, float(np.nanmax(difference, initial=0)))
        differences[row.name] = worst
    return differences


def _scores(path: Path) -> dict[str, NDArray[np.float64]]:
    with np.load(path, allow_pickle=False) as content:
        return {key: content[key] for key in SCORES}


def _told(differences: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0e}" for name, value in differences.items()) or "nobody to compare with"

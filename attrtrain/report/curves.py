"""Precision-recall and calibration curves of one attribute, as few points as a drawing needs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.functional import CALIBRATION_BINS, bin_of

_POINTS = 64


@dataclass(frozen=True)
class CalibrationBin:
    """Objects whose score fell into one of equally wide bins.

    Attributes:
        score: their mean score.
        present: the share of them that has the attribute.
        objects: how many they are.
    """

    score: float
    present: float
    objects: int


def precision_recall(
    scores: NDArray[np.floating], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision, (K) each, at every distinct score from the highest down; K = 0 where nothing is present.

    The same points as scikit-learn's `precision_recall_curve` has, without the one it adds at recall 0.

    Args:
        scores: (n) of known cells.
        present: (n).
    """
    if not present.any():
        return np.zeros(0), np.zeros(0)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_its_score = np.append(ordered[1:] != ordered[:-1], True)
    hits = np.cumsum(present[order])[last_of_its_score]
    named = (np.arange(len(ordered)) + 1)[last_of_its_score]
    return hits / present.sum(), hits / named


def thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which points of a curve to keep, at most 64: evenly spaced along its length, with both ends."""
    if len(x) <= _POINTS:
        return np.arange(len(x))
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    return np.unique(np.searchsorted(way, np.linspace(0, way[-1], _POINTS)).clip(max=len(x) - 1))


def calibration(probabilities: NDArray[np.floating], present: NDArray[np.bool_]) -> list[CalibrationBin]:
    """The reliability diagram of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; empty bins are left
    out.

    Args:
        probabilities: (n) in [0, 1], of known cells.
        present: (n).
    """
    number = bin_of(probabilities)
    objects = np.bincount(number, minlength=CALIBRATION_BINS)
    score = np.bincount(number, weights=probabilities, minlength=CALIBRATION_BINS)
    positives = np.bincount(number, weights=present, minlength=CALIBRATION_BINS)
    return [
        CalibrationBin(float(score[b] / objects[b]), float(positives[b] / objects[b]), int(objects[b]))
        for b in np.flatnonzero(objects)
    ]

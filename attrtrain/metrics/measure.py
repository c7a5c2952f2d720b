"""All point scores of one judged set: the same code for a model, for a guesser, and for a view."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.decisions import Decisions, GivenThresholds, cross_fitted, second_half
from attrtrain.metrics.functional import expected_calibration_error
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.overall import is_judged, mean_over, overall_scores
from attrtrain.metrics.ranking import Ranking
from attrtrain.metrics.sums import Sums, all_objects


@dataclass(frozen=True)
class Measured:
    """Scores of A attributes and over them.

    Attributes:
        judged: (A,) whether an attribute counts in the means.
        decisions: what is predicted as present.
        sums: counts, instance scores and loss.
        average_precision, auroc, ece: (A,), NaN where they are not defined.
        overall: the keys of `overall_scores`, and ece.
    """

    judged: NDArray[np.bool_]
    decisions: Decisions
    sums: Sums
    average_precision: NDArray[np.float64]
    auroc: NDArray[np.float64]
    ece: NDArray[np.float64]
    overall: dict[str, float]


def rank_attributes(cells: JudgedSet) -> list[Ranking]:
    """(A) the ranking of each attribute."""
    return [Ranking.of(cells.scores[:, a], cells.known[:, a], cells.positive[:, a]) for a in range(len(cells.names))]


def measure(cells: JudgedSet, threshold: float, tuned: GivenThresholds | None = None) -> Measured:
    """Measures everything.

    Args:
        cells: what to judge.
        threshold: probability above which an attribute counts as predicted.
        tuned: thresholds tuned elsewhere; None: cross-fitted over two halves of the photographs.
    """
    scale = cells.scores.dtype
    average, auroc, ece = (np.empty(len(cells.names)) for _ in range(3))
    first, second = np.empty(len(cells.names), scale), np.empty(len(cells.names), scale)
    half = second_half(cells.image_id)
    for column in range(len(cells.names)):  # one ranking at a time: all of them take more memory than the scores
        ranking = Ranking.of(cells.scores[:, column], cells.known[:, column], cells.positive[:, column])
        average[column], auroc[column] = ranking.average_precision_and_auroc()
        ece[column] = _calibration_error(cells, column)
        if tuned is None:
            first[column], second[column] = cross_fitted(cells, column, ranking, half, cells.as_score(threshold))
    decisions = Decisions.of(cells, threshold, (tuned.values, tuned.values) if tuned else (first, second))
    sums = Sums.of(cells, decisions, all_objects)
    judged = is_judged(cells.positives, cells.negatives)
    overall = {key: float(value) for key, value in overall_scores(sums, average, auroc, judged).items()}
    overall["ece"] = float(mean_over(ece, judged))
    return Measured(judged, decisions, sums, average, auroc, ece, overall)


def _calibration_error(cells: JudgedSet, column: int) -> float:
    rows = np.flatnonzero(cells.known[:, column])
    return expected_calibration_error(cells.as_probability(cells.scores[rows, column]), cells.positive[rows, column])

"""All point scores of one judged set: the same code for a model, for a guesser, and for a view."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.decisions import Decisions, GivenThresholds, cross_fitted, second_half
from attrtrain.metrics.functional import expected_calibration_error
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.overall import is_judged, mean_over, overall_scores
from attrtrain.metrics.parallel import each_attribute
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

    def one(column: int) -> Ranking:
        return Ranking.of(cells.scores[:, column], cells.known[:, column], cells.positive[:, column])

    return each_attribute(one, len(cells.names), len(cells))


def measure(cells: JudgedSet, threshold: float, tuned: GivenThresholds | None = None) -> Measured:
    """Measures everything.

    Args:
        cells: what to judge.
        threshold: probability above which an attribute counts as predicted.
        tuned: thresholds tuned elsewhere; None: cross-fitted over two halves of the photographs.
    """
    scale = cells.scores.dtype
    half = second_half(cells.image_id)

    def one(column: int) -> tuple[float, ...]:
        # A ranking is not kept: all of them take more memory than the scores.
        ranking = Ranking.of(cells.scores[:, column], cells.known[:, column], cells.positive[:, column])
        thresholds = cross_fitted(cells, column, ranking, half, cells.as_score(threshold)) if tuned is None else ()
        return (*ranking.average_precision_and_auroc(), _calibration_error(cells, column), *thresholds)

    columns = np.array(each_attribute(one, len(cells.names), len(cells))).reshape(-1, 5 if tuned is None else 3).T
    average, auroc, ece = columns[:3]
    found = (tuned.values, tuned.values) if tuned else (columns[3].astype(scale), columns[4].astype(scale))
    decisions = Decisions.of(cells, threshold, found)
    sums = Sums.of(cells, decisions, all_objects)
    counts = sums.at_threshold
    judged = is_judged(counts.positives, counts.known - counts.positives)
    overall = {key: float(value) for key, value in overall_scores(sums, average, auroc, judged).items()}
    overall["ece"] = float(mean_over(ece, judged))
    return Measured(judged, decisions, sums, average, auroc, ece, overall)


def _calibration_error(cells: JudgedSet, column: int) -> float:
    rows = np.flatnonzero(cells.known[:, column])
    return expected_calibration_error(cells.as_probability(cells.scores[rows, column]), cells.positive[rows, column])

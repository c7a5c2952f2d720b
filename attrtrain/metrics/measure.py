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
from attrtrain.metrics.sums import Counts, EachOnce, Sums


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


@dataclass(frozen=True)
class AttributeScores:
    """What A attributes score, each by itself.

    Attributes:
        rankings: (A) what average precision and AUROC follow from, to be drawn again.
        average_precision, auroc: (A,), NaN where they are not defined.
        counts: (A,) of decisions, with precision, recall and F1.
    """

    rankings: list[Ranking]
    average_precision: NDArray[np.float64]
    auroc: NDArray[np.float64]
    counts: Counts


def score_attributes(cells: JudgedSet, threshold: float) -> AttributeScores:
    """The scores of single attributes and nothing over them; predicted is a probability above `threshold`."""
    rankings = rank_attributes(cells)
    both = np.array([ranking.average_precision_and_auroc() for ranking in rankings]).reshape(-1, 2)
    decided, positive = cells.predicted(threshold), cells.known.positive
    parts = (np.ones_like(positive), positive, decided, decided & positive)
    return AttributeScores(rankings, both[:, 0], both[:, 1], Counts(*map(EachOnce(cells.known).cells, parts)))


def rank_attributes(cells: JudgedSet) -> list[Ranking]:
    """(A) the ranking of each attribute."""

    def one(column: int) -> Ranking:
        return Ranking.of(cells.falling(column), len(cells))

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
        falling = cells.falling(column)
        thresholds = cross_fitted(falling, half, cells.as_score(threshold)) if tuned is None else ()
        error = expected_calibration_error(cells.as_probability(falling.scores), falling.positive)
        return (*Ranking.of(falling, len(cells)).average_precision_and_auroc(), error, *thresholds)

    columns = np.array(each_attribute(one, len(cells.names), len(cells))).reshape(-1, 5 if tuned is None else 3).T
    average, auroc, ece = columns[:3]
    found = (tuned.values, tuned.values) if tuned else (columns[3].astype(scale), columns[4].astype(scale))
    decisions = Decisions.of(cells, threshold, found)
    sums = Sums.of(cells, decisions, EachOnce(cells.known))
    counts = sums.at_threshold
    judged = is_judged(counts.positives, counts.known - counts.positives)
    overall = {key: float(value) for key, value in overall_scores(sums, average, auroc, judged).items()}
    overall["ece"] = float(mean_over(ece, judged))
    return Measured(judged, decisions, sums, average, auroc, ece, overall)

"""Metrics as pure functions of NumPy arrays. Unknown cells never count."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.known_cells import KnownCells
from attrtrain.metrics.overall import is_judged
from attrtrain.metrics.ranking import Ranking
from attrtrain.metrics.sums import logit_cross_entropy


@dataclass(frozen=True)
class MeanScores:
    """What an epoch is chosen by: means over the judged attributes, NaN without any, and the loss.

    Attributes:
        map: mean average precision.
        prior_map: mean share of positives, which is what guessing scores.
        loss: mean binary cross-entropy over known cells.
        judged: how many attributes have known positives and negatives enough.
        average_precision: (A,) of each attribute, NaN where it is not judged.
        positives, known: (A,) cells.
    """

    map: float
    prior_map: float
    loss: float
    judged: int
    average_precision: NDArray[np.float64] = field(repr=False, compare=False)
    positives: NDArray[np.int64] = field(repr=False, compare=False)
    known: NDArray[np.int64] = field(repr=False, compare=False)


def mean_scores(logits: NDArray[np.floating], labels: NDArray[np.floating], positive_at: float = 0.5) -> MeanScores:
    """The few scores that each epoch is told by; `metrics.judge` measures everything, and gives the same values for
    these.

    Args:
        logits: (N, A) without NaN.
        labels: (N, A) vote shares, NaN = unknown.
        positive_at: vote share from which an attribute counts as present.
    """
    known = KnownCells.of(labels, positive_at)
    scores = known.gather(logits)
    positives, size = known.count(known.positive), known.counts
    judged = np.flatnonzero(is_judged(positives, size - positives))
    precision = np.full(len(size), np.nan)
    for column in judged.tolist():
        ranking = Ranking.of(known.falling(column, scores), len(labels))
        precision[column] = ranking.average_precision_and_auroc()[0]
    return MeanScores(
        map=_mean(precision[judged]),
        prior_map=_mean(positives[judged] / size[judged]),
        loss=bce(scores, known.shares),
        judged=len(judged),
        average_precision=precision,
        positives=positives,
        known=size,
    )


CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""


def expected_calibration_error(probabilities: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Expected calibration error: over bins of equal width, the mean gap between mean probability and share of
    positives, weighted by objects (Guo et al., "On calibration of modern neural networks", ICML 2017, with the positive
    class's probability as confidence, as torchmetrics has it for binary tasks).

    Args:
        probabilities: (N,) in [0, 1], in the bins of `bin_of`.
        positive: (N,).

    Returns:
        In [0, 1]; NaN without objects.
    """
    gaps = np.bincount(bin_of(probabilities), weights=probabilities - positive, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(positive)) if len(positive) else float("nan")


def bin_of(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """(N,) the bin of equal width of each probability (N,); of n bins, bin b holds [b / n, (b + 1) / n), the last one
    also 1.
    """
    return np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def bce(logits: NDArray[np.floating], shares: NDArray[np.floating]) -> float:
    """Mean binary cross-entropy of logits (n,) on vote shares (n,), those of known cells; NaN without any."""
    return _mean(logit_cross_entropy(logits, shares))


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else float("nan")

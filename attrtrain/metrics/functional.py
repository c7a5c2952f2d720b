"""Metrics as pure functions of NumPy arrays. Unknown cells never count."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.overall import is_judged


@dataclass(frozen=True)
class AttributeScores:
    """Scores of A attributes, each array (A,); NaN where an attribute lacks a known positive or a known negative.

    Attributes:
        average_precision: area under precision over recall, as scikit-learn computes it.
        prior: share of positives among known cells, which is what guessing scores.
        positives, negatives, unknowns: counts.
    """

    average_precision: NDArray[np.float64]
    prior: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    unknowns: NDArray[np.int64]

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(A,) attributes with known positives and negatives enough to count in means."""
        return is_judged(self.positives, self.negatives)

    @property
    def map(self) -> float:
        """Mean average precision over judged attributes, NaN without any."""
        return _mean(self.average_precision[self.judged])

    @property
    def prior_map(self) -> float:
        """Mean prior over the same attributes."""
        return _mean(self.prior[self.judged])


def score_attributes(
    scores: NDArray[np.floating], labels: NDArray[np.floating], positive_at: float = 0.5
) -> AttributeScores:
    """Scores predictions attribute by attribute over known cells.

    Args:
        scores: (N, A), higher is more likely; only their order counts.
        labels: (N, A) vote shares, NaN = unknown.
        positive_at: vote share from which an attribute counts as present.

    Raises:
        ValueError: the shapes differ, or a score is NaN; the message names row and column.
    """
    if scores.shape != labels.shape:
        raise ValueError(f"scores have shape {scores.shape}, labels {labels.shape}")
    if np.isnan(scores).any():
        row, column = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"the score of row {row}, attribute column {column} is NaN")
    known = ~np.isnan(labels)
    positive = labels >= positive_at  # NaN compares false
    positives = positive.sum(axis=0)
    negatives = (known & ~positive).sum(axis=0)
    average = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero((positives > 0) & (negatives > 0)):
        rows = known[:, column]
        average[column] = average_precision(scores[rows, column], positive[rows, column])
    with np.errstate(invalid="ignore"):
        prior = positives / (positives + negatives)
    return AttributeScores(average, prior, positives, negatives, len(labels) - positives - negatives)


def average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Average precision, sum over thresholds of (R_n - R_(n-1)) P_n, equal scores sharing one threshold (scikit-learn's definition).

    Args:
        scores: (N,).
        positive: (N,) with at least one true.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits = np.cumsum(positive[order])
    last_of_ties = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits_at = hits[last_of_ties]
    precision = hits_at / (last_of_ties + 1)
    recall_gain = np.diff(hits_at, prepend=0) / hits[-1]
    return float((precision * recall_gain).sum())


CALIBRATION_BINS = 15


def expected_calibration_error(
    probabilities: NDArray[np.floating], positive: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: over bins of equal width, the mean gap between mean probability and share of positives, weighted by objects (Guo et al., "On
    calibration of modern neural networks", ICML 2017, with the positive class's probability as confidence, as torchmetrics has it for binary tasks).

    Args:
        probabilities: (N,) in [0, 1]; bin b holds [b / bins, (b + 1) / bins), the last one also 1.
        positive: (N,).
        bins: 15 as in the paper.

    Returns:
        In [0, 1]; NaN without objects.
    """
    bin_of = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, weights=probabilities - positive, minlength=bins)
    return float(np.abs(gaps).sum() / len(positive)) if len(positive) else float("nan")


def bce(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
    """Mean binary cross-entropy of logits (N, A) on vote shares (N, A) over known cells; NaN when none is known."""
    known = ~np.isnan(labels)
    x, y = logits[known].astype(np.float64), labels[known].astype(np.float64)
    return _mean(np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x))))


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else float("nan")

"""Everything that is a sum over objects: counts of decisions, instance scores, loss. Summed once, or once a bootstrap
replicate.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.decisions import Decisions
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.known_cells import KnownCells

_LEAST_LOG = -100.0
"""torch's `BCELoss` cuts logarithms there: a probability of exactly 0 or 1 that is wrong costs 100 nats, not
infinity.
"""


class Total(Protocol):
    """Sums over objects: each once, giving (C,), or as R replicates have them, (R, C)."""

    def cells(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(..., A) how many of some known cells (K,) are chosen."""

    def objects(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., C) a matrix (N, C) summed."""


@dataclass(frozen=True)
class EachOnce:
    """Each object of some known cells counts once."""

    known: KnownCells

    def cells(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(A,)."""
        return self.known.count(chosen).astype(np.float64)

    def objects(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """(C,)."""
        return np.asarray(matrix.sum(axis=0))


@dataclass(frozen=True)
class Counts:
    """Known cells of each attribute, (..., A): all of them, the positives, the predicted ones, and those that are
    both.
    """

    known: NDArray[np.float64]
    positives: NDArray[np.float64]
    predicted: NDArray[np.float64]
    hits: NDArray[np.float64]

    @property
    def precision(self) -> NDArray[np.float64]:
        """0 where nothing is predicted, as in scikit-learn and torchmetrics (VAW's evaluator says 1)."""
        return np.divide(self.hits, self.predicted, out=np.zeros_like(self.hits), where=self.predicted > 0)

    @property
    def recall(self) -> NDArray[np.float64]:
        """NaN without positives."""
        return _ratio(self.hits, self.positives)

    @property
    def specificity(self) -> NDArray[np.float64]:
        """True negative rate, NaN without negatives."""
        negatives = self.known - self.positives
        return _ratio(negatives - self.predicted + self.hits, negatives)

    @property
    def f1(self) -> NDArray[np.float64]:
        """NaN where nothing is positive and nothing predicted."""
        return _ratio(2 * self.hits, self.predicted + self.positives)

    @property
    def balanced_accuracy(self) -> NDArray[np.float64]:
        """NaN without positives or without negatives."""
        return (self.recall + self.specificity) / 2

    @property
    def over_attributes(self) -> "Counts":
        """All attributes in one, (..., 1)."""
        return Counts(
            *(part.sum(axis=-1, keepdims=True) for part in (self.known, self.positives, self.predicted, self.hits))
        )


@dataclass(frozen=True)
class Sums:
    """Sums over objects of one judged set.

    Attributes:
        at_threshold, tuned, top_k: counts (..., A) of each kind of decision.
        instance: (..., 4) accuracy, precision and recall summed over objects, and the number of objects.
        loss: (..., 2) binary cross-entropy summed over known cells, and their number.
    """

    at_threshold: Counts
    tuned: Counts
    top_k: Counts
    instance: NDArray[np.float64]
    loss: NDArray[np.float64]

    @classmethod
    def of(cls, judged: JudgedSet, decisions: Decisions, total: Total) -> "Sums":
        """Sums by `total`."""
        positive = judged.known.positive
        known, positives = total.cells(np.ones_like(positive)), total.cells(positive)

        def counts(decided: NDArray[np.bool_]) -> Counts:
            return Counts(known, positives, total.cells(decided), total.cells(decided & positive))

        return cls(
            at_threshold=counts(decisions.at_threshold),
            tuned=counts(decisions.tuned),
            top_k=counts(decisions.top_k),
            instance=total.objects(instance_scores(judged.known, decisions.at_threshold)),
            loss=total.objects(cross_entropy(judged)),
        )


def instance_scores(known: KnownCells, decided: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 4) accuracy (intersection over union), precision and recall of each object's attributes, of which some are
    decided on (K,), and 1 where it has a known cell.

    As in the code around PETA, RAP and PA-100K (Li et al., "A richly annotated dataset for pedestrian attribute
    recognition", 2016), a quotient whose denominator is 0 counts as 0: an object without a known positive has recall 0
    and accuracy 0, one of which nothing is predicted has precision 0. Objects without a known cell do not count.
    """
    hits, predicted, positives = map(known.count_by_object, (decided & known.positive, decided, known.positive))
    quotients = [hits / np.maximum(below, 1) for below in (predicted + positives - hits, predicted, positives)]
    return np.stack([*quotients, known.counts_by_object > 0], axis=1)


def cross_entropy(judged: JudgedSet) -> NDArray[np.float64]:
    """(N, 2) binary cross-entropy on vote shares summed over each object's known cells, in nats, and the number of
    those cells.
    """
    known = judged.known
    summed = np.zeros(len(judged))
    for attribute in range(known.attributes):
        cells = known.of_attribute(attribute)
        of_cells = logit_cross_entropy if judged.are_logits else _probability_cross_entropy
        summed[known.rows[cells]] += of_cells(judged.known_scores[cells], known.shares[cells])
    return np.stack([summed, known.counts_by_object], axis=1)


def logit_cross_entropy(logits: NDArray[np.floating], shares: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,) binary cross-entropy of logits (n,) on vote shares (n,), in nats, without overflow whatever the logit."""
    x, y = logits.astype(np.float64), shares.astype(np.float64)
    return np.asarray(np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x))))


def _probability_cross_entropy(
    probabilities: NDArray[np.floating], shares: NDArray[np.floating]
) -> NDArray[np.float64]:
    p, y = probabilities.astype(np.float64), shares.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(-(y * np.maximum(np.log(p), _LEAST_LOG) + (1 - y) * np.maximum(np.log1p(-p), _LEAST_LOG)))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

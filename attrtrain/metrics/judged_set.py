"""Scores beside labels, read under one rule: which cells count, and which of them are positive."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from attrtrain.metrics.known_cells import KnownCells
from attrtrain.metrics.ranking import Falling
from attrtrain.predictions import Predictions


@dataclass(frozen=True)
class JudgedSet:
    """N objects in the order of their photographs, A attributes, K known cells.

    Attributes:
        names: (A) attribute names.
        image: (N,) number of the photograph, 0 to M - 1, never falling.
        image_id: (N,) what the photographs are called.
        category: (N,) str, "" where unknown.
        scores: (N, A) of any floating type, finite; in memory as they were given.
        are_logits: whether scores are logits; else they are probabilities.
        known: the known cells, which of them are positive among it.
        known_scores: (K,) the scores of the known cells.
    """

    names: tuple[str, ...]
    image: NDArray[np.int64]
    image_id: NDArray[np.int64]
    category: NDArray[Any]
    scores: NDArray[np.floating]
    are_logits: bool
    known: KnownCells
    known_scores: NDArray[np.floating]

    @classmethod
    def of(cls, predictions: Predictions, positive_at: float) -> "JudgedSet":
        """The masked reading: known cells count, and a vote share of at least `positive_at` is positive."""
        return cls.from_arrays(
            predictions.names,
            predictions.logits,
            predictions.labels,
            are_logits=True,
            image_id=predictions.image_id,
            category=predictions.category,
            positive_at=positive_at,
        )

    @classmethod
    def from_arrays(
        cls,
        names: tuple[str, ...],
        scores: NDArray[np.floating],
        labels: NDArray[np.floating],
        *,
        are_logits: bool,
        image_id: NDArray[np.int64],
        category: NDArray[Any],
        positive_at: float,
    ) -> "JudgedSet":
        """The same from finite scores of any floating type, which stay in it: a threshold is compared in the scores'
        own precision.
        """
        if (image_id[1:] < image_id[:-1]).any():
            order = np.argsort(image_id, kind="stable")
            scores, labels, image_id, category = scores[order], labels[order], image_id[order], category[order]
        known = KnownCells.of(labels, positive_at)
        return cls(
            names=names,
            image=_numbered(image_id),
            image_id=image_id,
            category=category,
            scores=scores,
            are_logits=are_logits,
            known=known,
            known_scores=known.gather(scores),
        )

    def __len__(self) -> int:
        return len(self.image)

    @property
    def images(self) -> int:
        """The number of photographs."""
        return int(self.image[-1]) + 1 if len(self) else 0

    @property
    def positives(self) -> NDArray[np.int64]:
        """(A,) known positives."""
        return self.known.count(self.known.positive)

    @property
    def negatives(self) -> NDArray[np.int64]:
        """(A,) known negatives."""
        return self.known.counts - self.positives

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp] | None = None) -> "JudgedSet":
        """Some objects, rows rising, and some attributes, or all."""
        columns = np.arange(len(self.names)) if columns is None else columns
        scores, known = self.scores[rows[:, None], columns], self.known.take(rows, columns)
        return replace(
            self,
            names=tuple(self.names[column] for column in columns),
            image=_numbered(self.image[rows]),
            image_id=self.image_id[rows],
            category=self.category[rows],
            scores=scores,
            known=known,
            known_scores=known.gather(scores),
        )

    def with_scores(self, scores: NDArray[np.floating], *, are_logits: bool) -> "JudgedSet":
        """The same cells with other scores (N, A)."""
        return replace(self, scores=scores, are_logits=are_logits, known_scores=self.known.gather(scores))

    def falling(self, attribute: int) -> Falling:
        """The known cells of an attribute by falling score."""
        return self.known.falling(attribute, self.known_scores)

    def as_score(self, probability: float) -> float:
        """A probability on the scale of the scores; one half is a logit of exactly 0."""
        if not self.are_logits:
            return probability
        return float(logit(probability))

    def as_probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores, of any shape, as probabilities."""
        values: NDArray[np.float64] = scores.astype(np.float64)
        return expit(values) if self.are_logits else values

    def predicted(self, threshold: float) -> NDArray[np.bool_]:
        """(K,) known cells with a probability above a threshold."""
        return np.asarray(self.known_scores > self.scores.dtype.type(self.as_score(threshold)))

    def above(self, thresholds: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(K,) known scores above thresholds (A,) on their scale, both in the scores' own precision, as `scores > 0.3`
        is in NumPy.
        """
        above = np.empty(len(self.known), dtype=bool)
        for attribute, threshold in enumerate(thresholds.astype(self.scores.dtype)):
            cells = self.known.of_attribute(attribute)
            np.greater(self.known_scores[cells], threshold, out=above[cells])
        return above


def _numbered(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 0, 1, 2, 2 … for values that never fall."""
    changes: NDArray[np.int64] = np.zeros(len(image), dtype=np.int64)
    np.cumsum(image[1:] != image[:-1], out=changes[1:])
    return changes

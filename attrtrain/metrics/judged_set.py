"""Scores beside labels, read under one rule: which cells count, and which of them are positive."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.predictions import Predictions

_ROWS_AT_A_TIME = 256


@dataclass(frozen=True)
class JudgedSet:
    """N objects in the order of their photographs, A attributes. Scores, labels, known and positive lie column by column in memory, as they are read.

    Attributes:
        names: (A) attribute names.
        image: (N,) number of the photograph, 0 to M - 1, never falling.
        image_id: (N,) what the photographs are called.
        category: (N,) str, "" where unknown.
        scores: (N, A) of any floating type, finite.
        are_logits: whether scores are logits; else they are probabilities.
        labels: (N, A) vote shares, NaN = unknown.
        known, positive: (N, A); a positive cell is known.
    """

    names: tuple[str, ...]
    image: NDArray[np.int64]
    image_id: NDArray[np.int64]
    category: NDArray[Any]
    scores: NDArray[np.floating]
    are_logits: bool
    labels: NDArray[np.floating]
    known: NDArray[np.bool_]
    positive: NDArray[np.bool_]

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
        """The same from finite scores of any floating type, which stay in it: a threshold is compared in the scores' own precision."""
        if (image_id[1:] < image_id[:-1]).any():
            order = np.argsort(image_id, kind="stable")
            scores, labels, image_id, category = scores[order], labels[order], image_id[order], category[order]
        labels = _by_column(labels)
        with np.errstate(invalid="ignore"):
            positive = labels >= positive_at  # NaN compares false
        return cls(
            names=names,
            image=_numbered(image_id),
            image_id=image_id,
            category=category,
            scores=_by_column(scores),
            are_logits=are_logits,
            labels=labels,
            known=~np.isnan(labels),
            positive=positive,
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
        return np.asarray(self.positive.sum(axis=0))

    @property
    def negatives(self) -> NDArray[np.int64]:
        """(A,) known negatives."""
        return np.asarray(self.known.sum(axis=0) - self.positives)

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp] | None = None) -> "JudgedSet":
        """Some objects, rows rising, and some attributes, or all."""
        columns = np.arange(len(self.names)) if columns is None else columns
        return replace(
            self,
            names=tuple(self.names[column] for column in columns),
            image=_numbered(self.image[rows]),
            image_id=self.image_id[rows],
            category=self.category[rows],
            scores=take_cells(self.scores, rows, columns),
            labels=take_cells(self.labels, rows, columns),
            known=take_cells(self.known, rows, columns),
            positive=take_cells(self.positive, rows, columns),
        )

    def with_scores(self, scores: NDArray[np.floating], *, are_logits: bool) -> "JudgedSet":
        """The same cells with other scores (N, A)."""
        return replace(self, scores=scores, are_logits=are_logits)

    def as_score(self, probability: float) -> float:
        """A probability on the scale of the scores; one half is a logit of exactly 0."""
        if not self.are_logits:
            return probability
        with np.errstate(divide="ignore"):
            return float(np.log(probability) - np.log1p(-probability))

    def as_probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores, of any shape, as probabilities."""
        values: NDArray[np.float64] = scores.astype(np.float64)
        if not self.are_logits:
            return values
        small = np.exp(-np.abs(values))  # no overflow, and full precision at both ends
        return np.asarray(np.where(values >= 0, 1, small) / (1 + small))

    def above(self, thresholds: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N, A) scores above thresholds (A,) on their scale, both in the scores' own precision, as `scores > 0.3` is in NumPy."""
        return np.asarray(self.scores > thresholds.astype(self.scores.dtype))


def take_cells(matrix: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[Any]:
    """matrix[rows][:, columns], column by column in memory."""
    taken = np.empty((len(rows), len(columns)), dtype=matrix.dtype, order="F")
    for place, column in enumerate(columns):
        taken[:, place] = matrix[rows, column]
    return taken


def _by_column(matrix: NDArray[Any]) -> NDArray[Any]:
    """The same, column by column in memory: `numpy.asfortranarray`, a few rows at a time, so that what is read stays in the processor's cache until it is written."""
    if matrix.flags.f_contiguous:
        return matrix
    turned = np.empty(matrix.shape, dtype=matrix.dtype, order="F")
    for start in range(0, len(matrix), _ROWS_AT_A_TIME):
        turned[start : start + _ROWS_AT_A_TIME] = matrix[start : start + _ROWS_AT_A_TIME]
    return turned


def _numbered(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 0, 1, 2, 2 … for values that never fall."""
    changes: NDArray[np.int64] = np.zeros(len(image), dtype=np.int64)
    np.cumsum(image[1:] != image[:-1], out=changes[1:])
    return changes

"""What guessers score who have not seen a pixel: one knows how frequent each attribute is, one also the object's
category, one nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.decisions import second_half
from attrtrain.metrics.exchange import shuffle_photographs
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.known_cells import KnownCells
from attrtrain.metrics.overall import mean_over, rates
from attrtrain.metrics.ranking import average_precision, from_tied_scores

CATEGORY_SMOOTHING = 5.0
"""Objects of the attribute's overall rate that are added to each category: with none of its own, a category has that
rate.
"""
_LEAST_PLACEHOLDERS = 5  # equal scores of fewer cells may be those of copies of an object


@dataclass(frozen=True)
class CategoryCounts:
    """Known positives and known cells of A attributes, for each of C categories.

    Attributes:
        categories: (C,) names, sorted.
        positives, known: (C, A).
    """

    categories: NDArray[Any]
    positives: NDArray[np.float64]
    known: NDArray[np.float64]

    @classmethod
    def of(cls, category: NDArray[Any], known: KnownCells) -> "CategoryCounts":
        """Counts the known cells of objects (N,)."""
        names, code = np.unique(category, return_inverse=True)
        return cls(names, *_counted(known, code, len(names)))

    @property
    def attribute_rates(self) -> NDArray[np.float64]:
        """(A,) shares of positives over all categories; one half where nothing is known."""
        return np.nan_to_num(rates(self.positives.sum(axis=0), self.known.sum(axis=0)), nan=0.5)

    @property
    def category_rates(self) -> NDArray[np.float32]:
        """(C + 1, A) the rate of each attribute in each category, drawn towards the attribute's own rate; that rate in
        the last row.
        """
        overall = self.attribute_rates
        smoothed = (self.positives + CATEGORY_SMOOTHING * overall) / (self.known + CATEGORY_SMOOTHING)
        return np.concatenate([smoothed, overall[None]]).astype(np.float32)

    def row_of(self, category: NDArray[Any]) -> NDArray[np.intp]:
        """(N,) the row of `category_rates` for objects of some categories; the last where one was never seen."""
        names, code = np.unique(category, return_inverse=True)
        known = {name: row for row, name in enumerate(self.categories.tolist())}
        return np.array([known.get(name, len(known)) for name in names.tolist()], dtype=np.intp)[code]


@dataclass(frozen=True)
class TrainingRates:
    """How frequent each attribute was in the training split: what the guessers know, and what head, medium and tail are
    counted on.
    """

    counts: CategoryCounts

    @classmethod
    def of(cls, labels: NDArray[np.floating], category: NDArray[Any], positive_at: float) -> "TrainingRates":
        """Counts labels (N, A), vote shares with NaN = unknown, of objects with categories (N,)."""
        return cls(CategoryCounts.of(category, KnownCells.of(labels, positive_at)))

    @property
    def positives(self) -> NDArray[np.float64]:
        """(A,) known positives."""
        return np.asarray(self.counts.positives.sum(axis=0))


def prior_guess(cells: JudgedSet, training: TrainingRates | None, objects: JudgedSet | None = None) -> JudgedSet:
    """Every object gets each attribute's share of positives: of the training split, or else of the judged objects
    themselves.

    Args:
        cells: the judged objects.
        training: what the training split holds, if there is one.
        objects: those that get the scores, where they are not the judged ones.
    """
    if training is not None:
        shares = training.counts.attribute_rates
    else:
        shares = np.nan_to_num(rates(cells.positives.astype(float), cells.known.counts.astype(float)), nan=0.5)
    objects = cells if objects is None else objects
    return objects.with_scores(np.broadcast_to(shares, objects.scores.shape), are_logits=False)


@dataclass(frozen=True)
class CategoryGuess:
    """Every object gets each attribute's rate in its category.

    Attributes:
        judged: the judged objects.
        table: (T, A) the guesser's scores.
        row: (N,) which row of it each object gets.
        parts: rows of the table whose objects are compared with each other, two where there are halves, else one.
            Without a training split, an object's rates come from the other half of the photographs. Its own label must
            not be in them, and leaving out just its own photograph would rank positives below negatives of the same
            category. Scores of one half are compared with each other only, so that no half's labels speak against it.
        positives, known: (T, A) judged cells of the objects that get each row.
        source: where the rates come from, for people.
    """

    judged: JudgedSet
    table: NDArray[np.float32]
    row: NDArray[np.intp]
    parts: tuple[slice, ...]
    positives: NDArray[np.float64]
    known: NDArray[np.float64]
    source: str

    @cached_property
    def cells(self) -> JudgedSet:
        """The judged objects with the guesser's scores."""
        return self.judged.with_scores(self.table[self.row], are_logits=False)

    def mean_average_precision(self, judged: NDArray[np.bool_]) -> float:
        """The mAP over judged attributes (A,)."""
        return float(mean_over(self.average_precision_and_auroc[0], judged))

    @cached_property
    def average_precision_and_auroc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(A,) each; means over the two halves where there are halves. From the counts: objects of one row are equals
        in the ranking.
        """
        scores = np.array(
            [
                [
                    from_tied_scores(self.table[part, a], self.positives[part, a], self.known[part, a])
                    for a in range(len(self.judged.names))
                ]
                for part in self.parts
            ]
        ).reshape(len(self.parts), -1, 2)
        there = ~np.isnan(scores)
        mean = rates(np.where(there, scores, 0).sum(axis=0), there.sum(axis=0).astype(float))
        return mean[:, 0], mean[:, 1]


def category_guess(cells: JudgedSet, training: TrainingRates | None) -> CategoryGuess | None:
    """The guesser that knows categories; None where nobody named any, or all photographs fall into one half."""
    if not (cells.category != "").any():
        return None
    if training is not None:
        table = training.counts.category_rates
        row = training.counts.row_of(cells.category)
        positives, known = _counted(cells.known, row, len(table))
        return CategoryGuess(cells, table, row, (slice(None),), positives, known, "training split")
    half = second_half(cells.image_id)
    if half.all() or not half.any():
        return None
    names, code = np.unique(cells.category, return_inverse=True)
    size = len(names)
    row = code + half * size
    positives, known = _counted(cells.known, row, 2 * size)
    parts = (slice(0, size), slice(size, 2 * size))
    first, second = (CategoryCounts(names, positives[part], known[part]) for part in parts)
    table = np.concatenate([second.category_rates[:-1], first.category_rates[:-1]])  # each half learns from the other
    return CategoryGuess(
        judged=cells,
        table=table,
        row=row,
        parts=parts,
        positives=positives,
        known=known,
        source="cross-fitted over the judged objects: rates of the other half, AP and AUROC within each half",
    )


def _counted(known: KnownCells, code: NDArray[np.intp], codes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C, A) positives and known cells of each attribute among the objects of each code (N,)."""
    positives, cells = np.empty((2, codes, known.attributes))
    for attribute in range(known.attributes):
        mine = known.of_attribute(attribute)
        of_cell = code[known.rows[mine]]
        positives[:, attribute] = np.bincount(of_cell[known.positive[mine]], minlength=codes)
        cells[:, attribute] = np.bincount(of_cell, minlength=codes)
    return positives, cells


def shuffled_orders(cells: JudgedSet, count: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Orders (N,) of all objects in which the photographs are shuffled and the objects of each stay together."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.argsort(rng.permutation(cells.images)[cells.image], kind="stable")


def shuffled(cells: JudgedSet, order: NDArray[np.intp]) -> JudgedSet:
    """Scores moved between objects within each attribute's known cells.

    An attribute's j-th known object gets the score of the j-th known one in the order. So an attribute is said of as
    many known objects as by the model, and what goes together, attributes of an object and objects of a photograph,
    goes on doing so: shuffling every cell by itself would make chance look steadier than it is.

    Args:
        cells: the scores.
        order: (N,) all rows.
    """
    scores = np.array(cells.scores)
    for column in range(scores.shape[1]):
        is_known = np.zeros(len(cells), dtype=bool)
        is_known[cells.known.rows[cells.known.of_attribute(column)]] = True
        scores[is_known, column] = cells.scores[order[is_known[order]], column]
    return cells.with_scores(scores, are_logits=cells.are_logits)


def traded_maps(cells: JudgedSet, judged: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.float64]:
    """(count,) the mAP over judged attributes (A,) where each object gets another one's row of scores, as
    `shuffle_photographs` deals them out; its labels, known and unknown, stay.
    """
    rng, known, maps = np.random.default_rng(seed), cells.known, np.zeros(count)
    for number in range(count):
        origin = shuffle_photographs(cells.image, rng)
        for column in np.flatnonzero(judged).tolist():
            mine = known.of_attribute(column)
            scores = cells.scores[origin[known.rows[mine]], column]
            maps[number] += average_precision(scores, known.positive[mine])
    return maps / max(int(judged.sum()), 1)


def has_placeholders(cells: JudgedSet, judged: NDArray[np.bool_]) -> bool:
    """Whether the unknown cells of a judged attribute (A,), five of them or more, all hold one score while its known
    ones do not: whoever made the scores left them out there.
    """
    for column in np.flatnonzero(judged).tolist():
        mine, is_unknown = cells.known.of_attribute(column), np.ones(len(cells), dtype=bool)
        is_unknown[cells.known.rows[mine]] = False
        unknown = np.flatnonzero(is_unknown)
        few = unknown[:_LEAST_PLACEHOLDERS]  # which tell in nearly every case
        alike = len(few) == _LEAST_PLACEHOLDERS and all(
            np.ptp(cells.scores[rows, column]) == 0 for rows in (few, unknown)
        )
        if alike and np.ptp(cells.known_scores[mine]) > 0:
            return True
    return False

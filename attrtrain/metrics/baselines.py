"""What guessers score who have not seen a pixel: one knows how frequent each attribute is, one also the object's
category, one nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from attrtrain.metrics.decisions import second_half
from attrtrain.metrics.exchange import by_size, traded_orders
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.known_cells import KnownCells
from attrtrain.metrics.overall import mean_over, rates
from attrtrain.metrics.ranking import from_tied_scores

CATEGORY_SMOOTHING = 5.0
"""Objects of the attribute's overall rate that are added to each category: with none of its own, a category has that
rate.
"""


_CELLS_AT_A_TIME = 2**24  # that are shuffled, known or not


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
        source="cross-fitted over the judged objects: rates of the other half of the photographs, AP and AUROC within each half",
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


def shuffled(cells: JudgedSet, order: NDArray[np.intp], onto: NDArray[np.intp] | None = None) -> JudgedSet:
    """Scores moved between objects within each attribute's known cells.

    An attribute's j-th known object gets the score of the j-th known one in the order. So scores stay within known
    cells, and what goes together, attributes of an object and objects of a photograph, goes on doing so: shuffling
    every cell by itself would make chance look steadier than it is.

    Args:
        cells: the scores.
        order: (N,) all rows.
        onto: (N,) the rows in the order in which they are counted; as they are, if not given.
    """
    onto = np.arange(len(cells)) if onto is None else onto
    scores = np.array(cells.scores)
    for column in range(scores.shape[1]):
        is_known = np.zeros(len(cells), dtype=bool)
        is_known[cells.known.rows[cells.known.of_attribute(column)]] = True
        scores[onto[is_known[onto]], column] = cells.scores[order[is_known[order]], column]
    return cells.with_scores(scores, are_logits=cells.are_logits)


def traded_maps(cells: JudgedSet, judged: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.float64]:
    """(count,) the mAP over judged attributes (A,) of the scores `shuffled` along each of `traded_orders`: without
    sorting again, since a shuffle moves positives along a ranking.
    """
    totals = np.zeros(count)
    columns = np.flatnonzero(judged)
    at_a_time = max(1, _CELLS_AT_A_TIME // max(len(cells), 1))
    counted = np.empty(len(cells), dtype=np.intp)
    counted[by_size(cells.image)] = np.arange(len(cells))
    for start in range(0, len(columns), at_a_time):
        block = columns[start : start + at_a_time]
        places = _places(cells, block)
        hits = [_positives_in_order(cells.known, column, counted) for column in block]
        for number, order in enumerate(traded_orders(cells.image, count, seed)):
            moved = places[
                order
            ].tocsc()  # its rows stay in order, so each column is that attribute's known cells as they come
            for position, mine in enumerate(hits):
                at_or_above = np.sort(moved.data[moved.indptr[position] + mine])
                totals[number] += (np.searchsorted(at_or_above, at_or_above, side="right") / at_or_above).mean()
    return totals / max(len(columns), 1)


def _positives_in_order(known: KnownCells, attribute: int, counted: NDArray[np.intp]) -> NDArray[np.intp]:
    """Which of an attribute's known objects are positive, these counted in another order, in which each row (N,) has a
    place.
    """
    mine = known.of_attribute(attribute)
    return np.flatnonzero(known.positive[mine][np.argsort(counted[known.rows[mine]])])


def _places(cells: JudgedSet, columns: NDArray[np.intp]) -> Any:
    """(N, K) sparse: for each known cell of some attributes (K,), how many of the attribute's known cells have at least
    its score.
    """
    rows, places = [], []
    for column in columns:
        falling = cells.falling(column)
        last_of_ties = np.flatnonzero(np.append(falling.scores[1:] != falling.scores[:-1], True))
        rows.append(falling.rows)
        places.append(np.repeat(last_of_ties + 1, np.diff(last_of_ties, prepend=-1)).astype(np.int32))
    ends = np.cumsum([0, *map(len, rows)])
    shape = (len(cells), len(columns))
    return csc_array((np.concatenate(places), np.concatenate(rows), ends), shape=shape).tocsr()

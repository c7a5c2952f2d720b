"""What guessers score who have not seen a pixel: one knows how frequent each attribute is, one also the object's category, one nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.decisions import second_half
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.overall import mean_over, rates
from attrtrain.metrics.ranking import Ranking

CATEGORY_SMOOTHING = 5.0
"""Objects of the attribute's overall rate that are added to each category: with none of its own, a category has that rate."""


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
    def of(
        cls,
        category: NDArray[Any],
        positive: NDArray[np.bool_],
        known: NDArray[np.bool_],
        rows: NDArray[np.bool_] | None = None,
    ) -> "CategoryCounts":
        """Counts objects (N,) with cells (N, A): all of them, or those marked in `rows` (N,)."""
        names, code = np.unique(category, return_inverse=True)

        def counted(cells: NDArray[np.bool_]) -> NDArray[np.float64]:
            counts = np.empty((len(names), cells.shape[1]))
            for column in range(cells.shape[1]):  # by column, because that is how the matrices lie
                mine = cells[:, column] if rows is None else cells[:, column] & rows
                counts[:, column] = np.bincount(code[mine], minlength=len(names))
            return counts

        return cls(names, counted(positive), counted(known))

    @property
    def attribute_rates(self) -> NDArray[np.float64]:
        """(A,) shares of positives over all categories; one half where nothing is known."""
        return np.nan_to_num(rates(self.positives.sum(axis=0), self.known.sum(axis=0)), nan=0.5)

    @property
    def category_rates(self) -> NDArray[np.float32]:
        """(C + 1, A) the rate of each attribute in each category, drawn towards the attribute's own rate; that rate in the last row."""
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
    """How frequent each attribute was in the training split: what the guessers know, and what head, medium and tail are counted on."""

    counts: CategoryCounts

    @classmethod
    def of(cls, labels: NDArray[np.floating], category: NDArray[Any], positive_at: float) -> "TrainingRates":
        """Counts labels (N, A), vote shares with NaN = unknown, of objects with categories (N,)."""
        with np.errstate(invalid="ignore"):
            return cls(CategoryCounts.of(category, labels >= positive_at, ~np.isnan(labels)))

    @property
    def positives(self) -> NDArray[np.float64]:
        """(A,) known positives."""
        return np.asarray(self.counts.positives.sum(axis=0))


def prior_guess(cells: JudgedSet, training: TrainingRates | None) -> JudgedSet:
    """Every object gets each attribute's share of positives: of the training split, or else of the judged objects themselves."""
    if training is not None:
        shares = training.counts.attribute_rates
    else:
        shares = np.nan_to_num(rates(cells.positives.astype(float), cells.known.sum(axis=0).astype(float)), nan=0.5)
    return cells.with_scores(np.broadcast_to(shares, cells.scores.shape), are_logits=False)


@dataclass(frozen=True)
class CategoryGuess:
    """Every object gets each attribute's rate in its category.

    Attributes:
        cells: the guesser's scores.
        halves: (N,) or None. Without a training split, an object's rates come from the other half of the photographs. Its own label must not be in
            them, and leaving out just its own photograph would rank positives below negatives of the same category.
            Scores of one half are compared with each other only, so that no half's labels speak against it.
        source: where the rates come from, for people.
    """

    cells: JudgedSet
    halves: NDArray[np.bool_] | None
    source: str

    def mean_average_precision(self, judged: NDArray[np.bool_]) -> float:
        """The mAP over judged attributes (A,)."""
        return float(mean_over(self.average_precision_and_auroc[0], judged))

    @cached_property
    def average_precision_and_auroc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(A,) each; means over the two halves where there are halves."""
        parts = [np.ones(len(self.cells), dtype=bool)] if self.halves is None else [self.halves, ~self.halves]
        scores = np.array(
            [
                [
                    Ranking.of(
                        self.cells.scores[:, a], self.cells.known[:, a] & part, self.cells.positive[:, a]
                    ).average_precision_and_auroc()
                    for a in range(len(self.cells.names))
                ]
                for part in parts
            ]
        ).reshape(len(parts), -1, 2)
        there = ~np.isnan(scores)
        mean = rates(np.where(there, scores, 0).sum(axis=0), there.sum(axis=0).astype(float))
        return mean[:, 0], mean[:, 1]


def category_guess(cells: JudgedSet, training: TrainingRates | None) -> CategoryGuess | None:
    """The guesser that knows categories; None where nobody named any, or all photographs fall into one half."""
    if not (cells.category != "").any():
        return None
    if training is not None:
        row = training.counts.row_of(cells.category)
        return CategoryGuess(_looked_up(cells, training.counts.category_rates, row), None, "training split")
    half = second_half(cells.image_id)
    if half.all() or not half.any():
        return None
    first, second = (CategoryCounts.of(cells.category, cells.positive, cells.known, rows) for rows in (~half, half))
    row = first.row_of(cells.category)
    tables = np.concatenate([second.category_rates, first.category_rates])  # the first half learns from the second
    row = row + half * (len(first.categories) + 1)
    return CategoryGuess(
        _looked_up(cells, tables, row),
        half,
        "cross-fitted over the judged objects: rates of the other half of the photographs, AP and AUROC within each half",
    )


def _looked_up(cells: JudgedSet, table: NDArray[np.float32], row: NDArray[np.intp]) -> JudgedSet:
    """The guesser's scores (N, A): for each object its row of `table`."""
    scores: NDArray[np.float32] = np.empty((len(cells), len(cells.names)), dtype=np.float32, order="F")
    for column in range(len(cells.names)):
        scores[:, column] = table[row, column]
    return cells.with_scores(scores, are_logits=False)


def shuffled_orders(cells: JudgedSet, count: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Orders (N,) of all objects in which the photographs are shuffled and the objects of each stay together.

    An attribute's j-th known object gets the score of the j-th known one in such an order. So scores stay within known cells, and
    what goes together, attributes of an object and objects of a photograph, goes on doing so: shuffling every cell by itself would make chance look steadier than it is.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.argsort(rng.permutation(cells.images)[cells.image], kind="stable")


def shuffled(cells: JudgedSet, order: NDArray[np.intp]) -> JudgedSet:
    """Scores moved between objects within each attribute's known cells, along one of `shuffled_orders`."""
    scores = np.array(cells.scores, order="F")
    for column in range(scores.shape[1]):
        known = cells.known[:, column]
        scores[known, column] = cells.scores[order[known[order]], column]
    return cells.with_scores(scores, are_logits=cells.are_logits)


def shuffled_maps(cells: JudgedSet, judged: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.float64]:
    """(count,) the mAP over judged attributes (A,) under each of `shuffled_orders`: without sorting again, since a shuffle moves positives along a ranking."""
    totals = np.zeros(count)
    columns = np.flatnonzero(judged)
    places = np.empty((len(cells), len(columns)), dtype=np.int32, order="F")  # known objects with at least this score
    for position, column in enumerate(columns):
        rows = Ranking.of(cells.scores[:, column], cells.known[:, column], cells.positive[:, column]).rows
        values = cells.scores[rows, column]
        last_of_ties = np.flatnonzero(np.append(values[1:] != values[:-1], True))
        places[rows, position] = last_of_ties[np.searchsorted(last_of_ties, np.arange(len(rows)))] + 1
    hits = [np.flatnonzero(cells.positive[cells.known[:, column], column]) for column in columns]
    place_of = np.empty(len(cells), dtype=np.int32)
    for number, order in enumerate(shuffled_orders(cells, count, seed)):
        place_of[order] = np.arange(len(cells), dtype=np.int32)
        for position, column in enumerate(columns):
            drawn = _known_in_order(cells.known[:, column], order, place_of)[hits[position]]
            at_or_above = np.sort(places[drawn, position])
            totals[number] += (np.searchsorted(at_or_above, at_or_above, side="right") / at_or_above).mean()
    return totals / max(len(columns), 1)


def _known_in_order(known: NDArray[np.bool_], order: NDArray[np.intp], place_of: NDArray[np.int32]) -> NDArray[np.intp]:
    """The objects of one attribute's known cells (N,) as they come in `order`; `place_of` is its inverse. Few are sorted sooner than all are looked through."""
    rows = np.flatnonzero(known)
    if len(rows) < len(known) // 4:
        return rows[np.argsort(place_of[rows])]
    return order[known[order]]

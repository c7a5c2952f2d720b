"""Counts: attributes, splits, categories, photographs in two splits, and how rates lie beside those of fair coins."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from attrtrain.annotations.split import torn_apart
from attrtrain.annotations.table import ObjectTable
from attrtrain.auditing.document import CategoryEntry, CountEntry, LabelsOfSplit, RateSummary, TornPhotographs
from attrtrain.auditing.permutation import ALPHA

EXAMPLES = 10
NO_SPLIT, NO_CATEGORY = "(no split)", "(no category)"


def label_counts(labels: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Positives, negatives and unknowns (A,) of each attribute."""
    positives = (labels >= 0.5).sum(axis=0)
    negatives = (labels < 0.5).sum(axis=0)
    return positives, negatives, len(labels) - positives - negatives


def rate_summary(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> RateSummary:
    """Are these the rates of fair coins? Pearson's chi-squared test, one degree of freedom an attribute with known
    labels.
    """
    known = positives + negatives
    asked = known > 0
    if not asked.any():
        return RateSummary(mean=None, spread=None, spread_of_fair_coins=None, like_fair_coins=False)
    rates = positives[asked] / known[asked]
    statistic = float(((positives[asked] - negatives[asked]) ** 2 / known[asked]).sum())
    return RateSummary(
        mean=float(rates.mean()),
        spread=float(rates.std()),
        spread_of_fair_coins=float(np.sqrt((0.25 / known[asked]).mean())),
        like_fair_coins=bool(chdtrc(asked.sum(), statistic) > ALPHA),
    )


def count_splits(split: NDArray[Any], image_id: NDArray[np.int64]) -> list[CountEntry]:
    """Objects and photographs of each split (N,), the most objects first."""
    entries = [
        CountEntry(name=name, objects=len(rows), images=len(np.unique(image_id[rows])))
        for name, rows in _rows_by(split, NO_SPLIT)
    ]
    return sorted(entries, key=_most_first)


def count_categories(category: NDArray[Any], split: NDArray[Any], image_id: NDArray[np.int64]) -> list[CategoryEntry]:
    """Objects and photographs of each category (N,), the most objects first, and how many each split has."""
    entries = [
        CategoryEntry(
            name=name,
            objects=len(rows),
            images=len(np.unique(image_id[rows])),
            by_split=count_splits(split[rows], image_id[rows]),
        )
        for name, rows in _rows_by(category, NO_CATEGORY)
    ]
    return sorted(entries, key=_most_first)


def labels_by_split(labels: NDArray[np.float32], split: NDArray[Any]) -> list[list[LabelsOfSplit]]:
    """Known positives and negatives of each attribute (A) in each split, in alphabetical order of splits."""
    counted = [(name, *label_counts(labels[rows])) for name, rows in _rows_by(split, NO_SPLIT)]
    return [
        [
            LabelsOfSplit(name=name, positives=int(positives[column]), negatives=int(negatives[column]))
            for name, positives, negatives, _ in counted
        ]
        for column in range(labels.shape[1])
    ]


def _rows_by(names: NDArray[Any], unnamed: str) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Each name (N,) and its rows; "" is told as `unnamed`."""
    kinds, code = np.unique(names, return_inverse=True)
    rows = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code, minlength=len(kinds)))[:-1])
    for kind, own in zip(kinds.tolist(), rows, strict=False):  # of nothing, `split` gives one empty part
        yield str(kind) or unnamed, own


def _most_first(entry: CountEntry) -> tuple[int, str]:
    return -entry.objects, entry.name


def torn_photographs(table: ObjectTable) -> TornPhotographs:
    """Photographs whose objects are in more than one split."""
    pairs = torn_apart(table)
    _, one_each = np.unique(table.image_id[pairs[:, 0]], return_index=True)
    return TornPhotographs(count=len(one_each), examples=list(map(str, table.image[pairs[one_each[:EXAMPLES], 0]])))

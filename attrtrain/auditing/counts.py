"""Counts: attributes, splits, categories, photographs in two splits, and how rates lie beside those of fair coins."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from attrtrain.annotations.table import ObjectTable
from attrtrain.auditing.document import CountEntry, RateSummary, TornPhotographs
from attrtrain.auditing.permutation import ALPHA

EXAMPLES = 10


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
        like_fair_coins=bool(chi2.sf(statistic, asked.sum()) > ALPHA),
    )


def count_by(names: NDArray[Any], image_id: NDArray[np.int64], unnamed: str) -> list[CountEntry]:
    """Objects and photographs of each name (N,), the most objects first; "" is told as `unnamed`."""
    kinds, code = np.unique(names, return_inverse=True)
    entries = [
        CountEntry(name=str(kind) or unnamed, objects=int(mine.sum()), images=len(np.unique(image_id[mine])))
        for number, kind in enumerate(kinds)
        for mine in [code == number]
    ]
    return sorted(entries, key=lambda entry: (-entry.objects, entry.name))


def torn_photographs(table: ObjectTable) -> TornPhotographs:
    """Photographs whose objects are in more than one split."""
    _, first, number = np.unique(table.image_id, return_index=True, return_inverse=True)
    torn = np.unique(number[table.split != table.split[first][number]])
    return TornPhotographs(count=len(torn), examples=[str(table.image[first[image]]) for image in torn[:EXAMPLES]])

"""Scores of groups: attributes by kind and by frequency, objects by category."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.baselines import CategoryCounts
from attrtrain.metrics.bootstrap import resampled_rankings
from attrtrain.metrics.document import Frequency, GroupEntry
from attrtrain.metrics.intervals import interval_of_ranking
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import Measured, score_attributes
from attrtrain.metrics.overall import (
    is_judged,
    mean_over,
    per_attribute_and_per_cell,
    permutation_average_precision,
    rates,
)
from attrtrain.metrics.sums import Counts
from attrtrain.metrics.views import none_if_nan

FREQUENCIES: tuple[Frequency, ...] = ("head", "medium", "tail")
_CATEGORY_REPLICATES = 200  # there are many categories


def frequency_thirds(positives: NDArray[Any], counted_on: str) -> tuple[list[Frequency | None], str | None]:
    """Head, medium and tail: the attributes that have positives, ordered by how many and cut into three groups of equal
    size; equal counts in order of columns.

    VAW names its head, medium and tail attributes in a list, without a number to cut at; counts such as LVIS's would
    depend on how large a data set is.

    Args:
        positives: (A,) known positives.
        counted_on: where, for people.

    Returns:
        (A) frequencies, None without positives, and a sentence that says the cuts; None where fewer than three
        attributes have any.
    """
    frequency: list[Frequency | None] = [None] * len(positives)
    some = np.flatnonzero(positives)
    if len(some) < len(FREQUENCIES):
        return frequency, None
    parts = np.array_split(some[np.argsort(-positives[some].astype(np.float64), kind="stable")], len(FREQUENCIES))
    cuts = []
    for name, part in zip(FREQUENCIES, parts, strict=True):
        for column in part:
            frequency[column] = name
        cuts.append(f"{name} {positives[part].min():,.0f} to {positives[part].max():,.0f}")
    return (
        frequency,
        f"thirds of the {len(some)} attributes with positives in {counted_on}, by their number: {', '.join(cuts)}",
    )


def attribute_groups(
    cells: JudgedSet,
    measured: Measured,
    group_of: Sequence[str | None],
    replicates: NDArray[np.float64] | None,
    order: Sequence[str] | None = None,
) -> list[GroupEntry]:
    """One entry for each group of attributes.

    Args:
        cells, measured: the judged set.
        group_of: (A) the group of each attribute, None or "" for none.
        replicates: (R, A) average precision of bootstrap replicates.
        order: names in the order wanted; sorted by default.
    """
    names = order or sorted({name for name in group_of if name})
    entries = []
    for name in names:
        mine = np.array([group == name for group in group_of]) & measured.judged
        at = measured.sums.at_threshold
        counts = Counts(*(part[mine] for part in (at.known, at.positives, at.predicted, at.hits)))
        entries.append(
            _entry(
                name,
                cells.known.objects_with(np.flatnonzero(mine)),
                cells.images,
                counts,
                measured.average_precision[mine],
                measured.auroc[mine],
                replicates[:, mine] if replicates is not None else None,
            )
        )
    return entries


def category_groups(cells: JudgedSet, threshold: float, weights: NDArray[np.uint8] | None) -> list[GroupEntry]:
    """One entry for each object category, the largest first: its objects alone, over the attributes that have positives
    and negatives enough among them.

    Args:
        cells: the judged set.
        threshold: probability above which an attribute counts as predicted.
        weights: (R, M) image weights of the bootstrap.
    """
    if not (cells.category != "").any():
        return []
    names, code, sizes = np.unique(cells.category, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(code, kind="stable"), np.cumsum(sizes)[:-1])
    counted = CategoryCounts.of(cells.category, cells.known)
    judged = is_judged(counted.positives, counted.known - counted.positives)  # (C, A)
    entries = []
    for place in np.argsort(-sizes, kind="stable"):
        rows, columns = members[place], np.flatnonzero(judged[place])
        mine = cells.take(rows, columns)
        scored = score_attributes(mine, threshold)
        replicates = None
        if weights is not None and len(columns) and mine.images > 1:
            own = weights[:_CATEGORY_REPLICATES, np.unique(cells.image[rows])]
            replicates = resampled_rankings(mine, scored.rankings, own)[0]
        entries.append(
            _entry(
                str(names[place]),
                len(rows),
                mine.images,
                scored.counts,
                scored.average_precision,
                scored.auroc,
                replicates,
            )
        )
    return entries


def _entry(
    name: str,
    objects: int,
    images: int,
    counts: Counts,
    average_precision: NDArray[np.float64],
    auroc: NDArray[np.float64],
    replicates: NDArray[np.float64] | None,
) -> GroupEntry:
    """An entry from judged attributes only."""
    every = np.ones(len(average_precision), dtype=bool)
    overall = per_attribute_and_per_cell(counts, every)
    expected = permutation_average_precision(counts.positives, counts.known)
    mean = float(mean_over(average_precision, every))
    return GroupEntry(
        name=name,
        attributes=len(average_precision),
        objects=objects,
        map=none_if_nan(mean),
        map_interval=interval_of_ranking(mean_over(replicates, every), mean, images)
        if replicates is not None and len(every)
        else None,
        prior_map=_mean(rates(counts.positives, counts.known)),
        permutation_map=_mean(expected),
        auroc=_mean(auroc),
        cf1=none_if_nan(float(overall["cf1"])),
        of1=none_if_nan(float(overall["of1"])),
        mA=_mean(counts.balanced_accuracy),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    return none_if_nan(float(mean_over(values, np.ones(len(values), dtype=bool))))

"""The table of objects: how many attributes of each were right, and which were not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.keyed_random import mix64
from attrtrain.report.cells import Cells


@dataclass(frozen=True)
class SampleTable:
    """Objects and their counts over known cells.

    Attributes:
        rows: (K) rows of the predictions, in their order.
        known, correct, named, present: (K) counts over known cells.
        unknown: (K) attributes that are named where nobody labelled.
        right, wrong, missed: (K) lists of attribute columns.
    """

    rows: NDArray[np.int64]
    known: NDArray[np.int64]
    correct: NDArray[np.int64]
    named: NDArray[np.int64]
    present: NDArray[np.int64]
    unknown: NDArray[np.int64]
    right: list[list[int]]
    wrong: list[list[int]]
    missed: list[list[int]]


def draw_rows(object_ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Up to `count` rows by hashed object id: chosen by nobody, the same objects in every run."""
    return np.argsort(mix64(object_ids), kind="stable")[:count]


def tabulate(cells: Cells, object_ids: NDArray[np.int64], entries: int) -> SampleTable:
    """Counts every object's cells, or, where the lists would be too long, those of as many objects as fit.

    Args:
        cells: all predictions.
        object_ids: (N) their objects.
        entries: how many numbers the table may hold, counts and attributes in lists.
    """
    lengths = 6 + (cells.wrong | cells.present).sum(axis=1)  # six counts and the lists
    order = draw_rows(object_ids, len(object_ids))
    rows = np.sort(order[np.cumsum(lengths[order]) <= entries])
    drawn = cells.take(rows)
    right, wrong = drawn.right, drawn.wrong
    return SampleTable(
        rows=rows,
        known=drawn.known.sum(axis=1),
        correct=right.sum(axis=1) + (drawn.absent & ~drawn.named).sum(axis=1),
        named=right.sum(axis=1) + wrong.sum(axis=1),
        present=drawn.present.sum(axis=1),
        unknown=drawn.unknown.sum(axis=1),
        right=_columns(right),
        wrong=_columns(wrong),
        missed=_columns(drawn.missed),
    )


def _columns(cells: NDArray[np.bool_]) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in cells]

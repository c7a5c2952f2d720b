"""The most confident mistakes of each attribute."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.report.cells import Cells
from attrtrain.report.pictures import Pictures

MISTAKES = 6  # of each kind


@dataclass(frozen=True)
class Mistakes:
    """Rows of objects, the most confident mistake first.

    Attributes:
        wrong: named with a high score, but known to be absent.
        missed: present, but given a low score.
    """

    wrong: list[int]
    missed: list[int]


def find_mistakes(cells: Cells) -> list[Mistakes]:
    """Up to six mistakes of each kind for every attribute; equal scores in the order of rows."""
    wrong, missed = cells.wrong, cells.missed
    return [
        Mistakes(
            wrong=_first(wrong[:, column], -cells.logits[:, column]),
            missed=_first(missed[:, column], cells.logits[:, column]),
        )
        for column in range(cells.logits.shape[1])
    ]


def add_pictures(pictures: Pictures, mistakes: list[Mistakes], side: int) -> None:
    """Adds a picture of the worst mistake of every attribute before the second worst of any, until the page is full."""
    for place in range(MISTAKES):
        for entry in mistakes:
            for rows in (entry.wrong, entry.missed):
                if place < len(rows):
                    pictures.add(rows[place], side)


def _first(chosen: NDArray[np.bool_], key: NDArray[np.floating]) -> list[int]:
    rows = np.flatnonzero(chosen)
    return [int(row) for row in rows[np.argsort(key[rows], kind="stable")[:MISTAKES]]]

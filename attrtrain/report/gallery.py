"""Crops with what the model says of them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attrtrain.predictions import Predictions
from attrtrain.report.cells import Cells, probabilities
from attrtrain.report.pictures import Pictures
from attrtrain.report.samples import draw_rows

GALLERY_SIZE = 24
_SIDE_PX = 224
_SHOWN_KNOWN, _SHOWN_UNKNOWN = 9, 3


@dataclass(frozen=True)
class Guess:
    """One attribute of a crop."""

    name: str
    score: float
    verdict: Literal["right", "wrong", "missed", "unknown"]


@dataclass(frozen=True)
class Card:
    """One crop.

    Attributes:
        guesses: labelled attributes first: guesses that nobody can check would crowd them out where most cells are
            unknown.
        more_known: labelled attributes that were named or missed besides.
        more_unknown: attributes without a label here, of which other objects have one, that were named besides.
    """

    row: int
    object_id: int
    category: str
    uri: str | None
    guesses: list[Guess]
    more_known: int
    more_unknown: int


def draw_gallery(predictions: Predictions, cells: Cells, pictures: Pictures) -> list[Card]:
    """Objects by hashed id, and for each the attributes that are named, likeliest first, and then those that are
    missed. What no object has a label of is not shown: of most such attributes training knew none either.
    """
    labelled_anywhere: NDArray[np.bool_] = np.asarray(cells.known.any(axis=0))
    return [
        _card(int(row), predictions, cells, labelled_anywhere, pictures)
        for row in draw_rows(predictions.object_id, GALLERY_SIZE)
    ]


def _card(
    row: int, predictions: Predictions, cells: Cells, labelled_anywhere: NDArray[np.bool_], pictures: Pictures
) -> Card:
    pictures.add(row, _SIDE_PX)
    scores = probabilities(cells.logits[row])
    order = np.argsort(-scores, kind="stable")
    named, missed = cells.named[row][order], cells.missed[row][order]
    labelled = (cells.present[row] | cells.absent[row])[order]
    judged_somewhere = labelled_anywhere[order]
    known = [*order[named & labelled], *order[missed]]
    unknown = order[named & ~labelled & judged_somewhere]
    shown = [*known[:_SHOWN_KNOWN], *unknown[:_SHOWN_UNKNOWN]]
    return Card(
        row=row,
        object_id=int(predictions.object_id[row]),
        category=str(predictions.category[row]),
        uri=pictures.uris.get(row),
        guesses=[
            Guess(predictions.names[column], float(scores[column]), _verdict(cells, row, column)) for column in shown
        ],
        more_known=max(0, len(known) - _SHOWN_KNOWN),
        more_unknown=max(0, len(unknown) - _SHOWN_UNKNOWN),
    )


def _verdict(cells: Cells, row: int, column: int) -> Literal["right", "wrong", "missed", "unknown"]:
    if not cells.named[row, column]:
        return "missed"
    if cells.present[row, column]:
        return "right"
    return "wrong" if cells.absent[row, column] else "unknown"

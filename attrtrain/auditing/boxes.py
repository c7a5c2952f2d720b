"""Boxes that look wrong. Which of them sharding leaves out anyway is said with each kind."""

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable, repeated_boxes
from attrtrain.auditing.counts import EXAMPLES
from attrtrain.auditing.document import OddBoxes

TINY_PX = 12
EXTREME_ASPECT = 10
_REPEATED_SHARE = 0.02
_REPEATED_LEAST = 5
_CORNERS_LEAST, _CORNERS_SHARE = 20, 0.1  # boxes over the edge, and their share of all: annotators overshoot seldom


def odd_boxes(table: ObjectTable) -> list[OddBoxes]:
    """Counts boxes by what is odd about them; a box may be odd in several ways. What needs the photograph's size is
    only found where it is known.
    """
    x, y, width, height = table.box.T
    sized = (table.image_size > 0).all(axis=1)
    image_width, image_height = table.image_size.T.astype(np.float64)
    finite = np.isfinite(table.box).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        good = finite & (width > 0) & (height > 0)
        outside = good & ((x + width <= 0) | (y + height <= 0) | (sized & ((x >= image_width) | (y >= image_height))))
        over = (np.maximum(-x, -y) > 1) | (sized & (np.maximum(x + width - image_width, y + height - image_height) > 1))
        aspect = np.maximum(width / height, height / width)
        whole = good & sized & (width >= 0.98 * image_width) & (height >= 0.98 * image_height)
        kinds = [
            ("not_finite", "no box, or one that holds no numbers (left out of shards)", ~finite),
            ("empty", "width or height is not above 0 (left out of shards)", finite & ~good),
            ("outside", "outside the photograph (left out of shards)", outside),
            _over_the_edge(good & ~outside & over),
            (
                "tiny",
                f"narrower or lower than {TINY_PX} pixels: too little to see attributes",
                good & (np.minimum(width, height) < TINY_PX),
            ),
            ("whole_photograph", "as large as the photograph", whole),
            ("extreme_aspect", f"more than {EXTREME_ASPECT} times as long as wide", good & (aspect > EXTREME_ASPECT)),
            (
                "same_object_twice",
                "the same box of the same photograph as another object: an object is one row, with all of its labels",
                repeated_boxes(table),
            ),
            (
                "same_box_everywhere",
                f"the same box in at least {_REPEATED_LEAST} photographs and {_REPEATED_SHARE:.0%} of all: a placeholder?",
                _placeholder(table, good & ~whole),
            ),
            ("crowd", "a crowd, not an object (left out of shards)", table.crowd),
        ]
    return [
        OddBoxes(kind=kind, what=what, count=int(odd.sum()), examples=table.object_id[odd][:EXAMPLES].tolist())
        for kind, what, odd in kinds
        if odd.any()
    ]


def _over_the_edge(over: NDArray[np.bool_]) -> tuple[str, str, NDArray[np.bool_]]:
    """Boxes (N,) that reach over the edge; of many, there is a reason."""
    reaching = "more than a pixel over the photograph's edge (cut off there)"
    if over.sum() >= max(_CORNERS_LEAST, _CORNERS_SHARE * len(over)):
        question = f"; that is {over.mean():.0%} of all: are width and height really x2 and y2? name them so"
        return "corners_as_sizes", reaching + question, over
    return "over_the_edge", reaching, over


def _placeholder(table: ObjectTable, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether the same box is in conspicuously many photographs."""
    once = np.zeros(len(table), dtype=bool)  # one object for each box of each photograph
    key = np.column_stack([table.image_id.astype(np.float64), table.box])[good]
    if len(key) == 0:
        return once
    once[np.flatnonzero(good)[np.unique(key, axis=0, return_index=True)[1]]] = True
    photographs = len(np.unique(table.image_id))
    many = _in_groups(table.box, once) >= max(_REPEATED_LEAST, _REPEATED_SHARE * photographs)
    boxes = np.unique(table.box[once & many], axis=0)
    return np.asarray(good & (table.box[:, None] == boxes[None]).all(axis=2).any(axis=1))


def _in_groups(key: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) how many counted rows equal this one; 0 for rows that are not counted."""
    sizes = np.zeros(len(key), dtype=np.int64)
    if counted.any():
        _, group, count = np.unique(key[counted], axis=0, return_inverse=True, return_counts=True)
        sizes[counted] = count[group.reshape(-1)]
    return sizes

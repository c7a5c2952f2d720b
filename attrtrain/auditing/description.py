"""What a label file knows of an object besides its labels, as numbers: its category, and its box's shape, size and
place.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.keyed_random import mix64

_MOST_PIXELS = 1e6  # no photograph is as wide
_MOST_CATEGORIES = 60  # the rest counts as one
# A word in front of the key: without one it would be that by which `annotations.split` draws val, and a sample would
# hold photographs of train alone.
_SAMPLE = 101


def describe(category: NDArray[Any], box: NDArray[np.float64], image_size: NDArray[np.int64]) -> NDArray[np.float64]:
    """Describes objects, for a linear model to read.

    Args:
        category: (N,) names, "" where unknown.
        box: (N, 4) x, y, width, height in pixels; what is no number or not positive counts as middling.
        image_size: (N, 2) width and height of the photograph in pixels, 0 where unknown.

    Returns:
        (N, D): one column a common category; width, height, area and aspect ratio as logarithms, with squares, since
        labels may belong to middle sizes; the box's centre, as shares of the photograph where its size is known.
    """
    _, code, objects = np.unique(category, return_inverse=True, return_counts=True)
    common = np.argsort(-objects, kind="stable")[:_MOST_CATEGORIES]
    is_category = code[:, None] == common  # (N, C)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        box = np.where(np.abs(box) < _MOST_PIXELS, box, np.nan)
        width, height = np.log(box[:, 2]), np.log(box[:, 3])
        centre = box[:, :2] + box[:, 2:] / 2
        sizes = np.where((image_size > 0).all(axis=1, keepdims=True), image_size, np.nan)
        relative = np.log(box[:, 2:]) - np.log(sizes)
        place = np.where(np.isnan(sizes).any(), centre, centre / sizes)
        columns = [width, height, width - height, width + height, *relative.T, *place.T]
    tame = [_tamed(column) for column in columns]
    squares = [(column - _middle(column)) ** 2 for column in tame[2:4]]
    return np.column_stack([is_category.astype(np.float64), *tame, *squares])


def _tamed(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is no number becomes middling, and the outermost are drawn in: a single absurd box must not be all a column
    tells.
    """
    if len(column) == 0:
        return column
    filled = np.where(np.isfinite(column), column, _middle(column))
    return np.asarray(np.clip(filled, *np.quantile(filled, [0.005, 0.995])))


def _middle(column: NDArray[np.float64]) -> float:
    finite = column[np.isfinite(column)]
    return float(np.median(finite)) if len(finite) else 0.0


def sample_photographs(image_id: NDArray[np.int64], objects: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows (K,), rising, of whole photographs drawn until at least `objects` objects are together, or all there are.

    Where single photographs hold a large part of the objects, theirs are drawn singly, so that K stays below 2 x
    `objects`.
    """
    if len(image_id) <= objects:
        return np.arange(len(image_id))
    key = mix64(_SAMPLE, seed, image_id)  # photographs by rising key, of which only those that are drawn need sorting
    drawn = np.flatnonzero(key <= np.partition(key, objects - 1)[objects - 1])
    rows = drawn[np.lexsort((mix64(_SAMPLE, seed + 1, drawn), key[drawn]))]
    return np.sort(rows[: 2 * objects])

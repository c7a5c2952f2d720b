"""Photographs that may trade places in a permutation test: those that hold about as many objects.

Objects of one photograph are alike. Were photographs of any size shuffled, a large one would come to lie over parts of
several others, and shuffled data would be a little less clustered than real ones: chance would look steadier than it
is.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

LEAST_ALIKE = 2
"""Photographs that trade places with each other. With classes of ten, of 150 photographs of very unequal sizes whose
objects are strongly alike, 2.5 % of models without any skill had p <= 0.01; with classes of two 1.0 %, and with
photographs of all sizes shuffled 4.8 %."""


def size_classes(objects: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """Classes of photographs by the number of their objects, each (P,): one a size, or, of sizes that fewer than
    `least` have, several neighbouring ones.
    """
    sizes, number, photographs = np.unique(objects, return_inverse=True, return_counts=True)
    class_of_size, members = np.zeros(len(sizes), dtype=np.int64), 0
    for place, count in enumerate(photographs):
        begins = members >= least and photographs[place:].sum() >= least
        members = count if begins else members + count
        class_of_size[place] = class_of_size[max(place - 1, 0)] + begins
    return class_of_size[number]


def by_size(image: NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows (N,) in the order that `traded_orders` come from: photographs of like size one after the other.

    Args:
        image: (N,) number of the photograph, 0 to P - 1, never falling.
    """
    classes = _classes_of(image)
    return _in_order_of(np.arange(len(classes)), classes, image)


def traded_orders(image: NDArray[np.int64], count: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """So many orders of rows (N,): `by_size`, with photographs of like size shuffled whole."""
    rng, classes = np.random.default_rng(seed), _classes_of(image)
    for _ in range(count):
        yield _in_order_of(rng.permutation(len(classes)), classes, image)


def _classes_of(image: NDArray[np.int64]) -> NDArray[np.int64]:
    return size_classes(np.bincount(image), LEAST_ALIKE)


def _in_order_of(drawn: NDArray[np.int64], classes: NDArray[np.int64], image: NDArray[np.int64]) -> NDArray[np.intp]:
    place = np.empty_like(drawn)
    place[np.lexsort((drawn, classes))] = np.arange(len(drawn))
    return np.argsort(place[image], kind="stable")

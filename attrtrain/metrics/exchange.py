"""Photographs that trade places in a permutation test: those that hold about as many objects.

Objects of one photograph are alike. Were photographs of any size shuffled, a large one would come to lie over parts of
several others, and shuffled data would be a little less clustered than real ones: chance would look steadier than it
is. For the same reason whole rows of a matrix move, known cells and unknown ones: were each attribute's known cells
filled up one after the other, the rows of one photograph would come to lie over parts of two wherever these differ in
how many cells are known.
"""

from typing import Any

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


def shuffle_photographs(photograph: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Which row each row gets (N,) where photographs of like size are shuffled whole, and the objects inside each as
    well.

    Objects that share a photograph get rows that shared one: all of them where photographs trade places with others
    that hold as many objects; of the rare sizes, which have to make do with their like, nearly all.

    Args:
        photograph: (N,) number of the photograph of each row, 0 to P - 1.
        rng: what is drawn from.
    """
    classes = size_classes(np.bincount(photograph), LEAST_ALIKE)

    def places(key: NDArray[Any]) -> NDArray[np.int64]:
        place: NDArray[np.int64] = np.empty_like(classes)
        place[np.lexsort((key, classes))] = np.arange(len(classes))
        return place[photograph]

    drawn = places(rng.random(len(classes)))
    rows = np.empty_like(photograph)
    rows[np.argsort(places(np.arange(len(classes))), kind="stable")] = np.argsort(drawn + rng.random(len(drawn)))
    return rows

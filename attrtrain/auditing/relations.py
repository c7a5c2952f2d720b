"""Attributes that say the same, the opposite, or what another already said."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attrtrain.auditing.document import Relation, Relations

EXCEPTIONS = 0.01
"""Share of objects that may disagree: labels of two words for one thing are never quite equal."""
MIN_EXPECTED = 20
"""Exceptions that independent attributes of the same rates would have. So many are missing by chance with probability
exp(-20), in none of the 41,412 ordered pairs of 204 attributes."""
_SHOWN = 200
_ROWS = 16_384  # at a time


def find_relations(labels: NDArray[np.float32], names: Sequence[str]) -> Relations:
    """Compares all pairs of attributes over the objects for which both are known.

    Args:
        labels: (N, A) vote shares, NaN = unknown; a share of at least 0.5 is positive.
        names: (A).
    """
    both, first_only, neither = _tables(labels)
    second_only = first_only.T
    objects = both + first_only + second_only + neither
    total = np.maximum(objects, 1)
    first_rate, second_rate = (both + first_only) / total, (both + second_only) / total

    unequal, equal = first_only + second_only, both + neither
    expected_unequal = objects * (first_rate * (1 - second_rate) + second_rate * (1 - first_rate))
    expected_first_only = objects * first_rate * (1 - second_rate)
    duplicate = _holds(unequal, np.minimum(both, neither), expected_unequal)
    complement = _holds(equal, np.minimum(first_only, second_only), objects - expected_unequal)
    implies = _holds(first_only, both, expected_first_only) & ~duplicate & ~duplicate.T
    np.fill_diagonal(implies, False)
    upper = np.triu(np.ones(duplicate.shape, dtype=bool), 1)
    found = [
        Relation(
            kind=kind,  # type: ignore[arg-type]  # one of its literals
            first=names[a],
            second=names[b],
            objects=int(objects[a, b]),
            support=int(support[a, b]),
            exceptions=int(exceptions[a, b]),
            expected=round(float(expected[a, b]), 1),
        )
        for kind, holds, support, exceptions, expected in (
            ("duplicate", duplicate & upper, np.minimum(both, neither), unequal, expected_unequal),
            ("complement", complement & upper, np.minimum(first_only, second_only), equal, objects - expected_unequal),
            ("implies", implies, both + first_only, first_only, expected_first_only),
        )
        for a, b in np.argwhere(holds)[np.argsort(-support[holds], kind="stable")[:_SHOWN]]
    ]
    return Relations(
        duplicates=int((duplicate & upper).sum()),
        complements=int((complement & upper).sum()),
        implied=int(implies.sum()),
        examples=found,
    )


def _holds(
    exceptions: NDArray[np.float64], shown_by: NDArray[np.float64], expected: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether a rule has few exceptions among those that show it, where chance would have made many."""
    return np.asarray((exceptions <= EXCEPTIONS * shown_by) & (expected >= MIN_EXPECTED))


def _tables(labels: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For every ordered pair of attributes, jointly known objects with (both, only the first, neither), each (A, A)."""
    attributes = labels.shape[1]
    both, first_only, neither = (np.zeros((attributes, attributes)) for _ in range(3))
    for start in range(0, len(labels), _ROWS):
        block = labels[start : start + _ROWS]
        positive, negative = (block >= 0.5).astype(np.float32), (block < 0.5).astype(np.float32)
        both += positive.T @ positive
        first_only += positive.T @ negative
        neither += negative.T @ negative
    return both, first_only, neither

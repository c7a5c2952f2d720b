"""Structure inside a label matrix: do attributes go together, and are objects of one photograph alike?

Independent coin flips do neither. Labels that were shuffled between objects still go together, so the first test tells
coin flips and nothing else; the second tells both.
"""

import numpy as np
from numpy.typing import NDArray

from attrtrain.auditing.permutation import PermutationTest, permutation_p

MIN_PAIRS = 10
"""Pairs of attributes below which their independence says nothing: two or three real attributes may well be
independent.
"""


def co_occurrence_test(labels: NDArray[np.float32], permutations: int, seed: int = 0) -> PermutationTest | None:
    """Do attributes go together more than independent coin flips with the same rates?

    The effect is the root of the mean squared correlation (phi) over pairs of attributes, weighted by jointly known
    objects, less what chance gives. Shuffled data have the values of each attribute dealt out anew among its own known
    cells.

    Args:
        labels: (N, A) vote shares, NaN = unknown; a share of at least 0.5 is positive.
        permutations: shuffled data sets.
        seed: chooses the shuffles.

    Returns:
        None where no two attributes that vary are known together for two objects.
    """
    z, known = _standardised(labels)
    joint = known.T.astype(np.float32) @ known.astype(np.float32)  # (A, A) jointly known objects
    np.fill_diagonal(joint, 0)
    if z.shape[1] < 2 or not (joint >= 2).any():
        return None
    weight = float((joint.astype(np.float64) * (joint - 1)).clip(min=0).sum())

    def squared_phi(values: NDArray[np.float32]) -> float:
        # E[(sum of n products)^2] is n for independent attributes and n + n (n - 1) phi^2 otherwise.
        products = values.T @ values
        return float((np.where(joint > 0, products.astype(np.float64) ** 2, 0) - joint).sum() / weight)

    rng = np.random.default_rng(seed)
    values = np.ascontiguousarray(z.T)
    origin = np.argsort(~known.T, axis=1, kind="stable")  # (A, N): known cells first, as they stand
    values = np.take_along_axis(values, origin, axis=1)
    null = np.array([squared_phi(_dealt_out(values, known.T, rng)) for _ in range(permutations)])
    observed, expected = squared_phi(z), null.mean()
    return PermutationTest(
        effect=float(np.sqrt(max(observed - expected, 0))),
        p_value=permutation_p(observed, null),
        null=np.sqrt((null - expected).clip(min=0)),
    )


def photograph_test(
    labels: NDArray[np.float32], image_id: NDArray[np.int64], permutations: int, seed: int = 0
) -> PermutationTest | None:
    """Are objects of one photograph more alike than objects of different ones?

    The effect is the correlation between two objects of one photograph, over all such pairs and attributes that are
    known for both: an intraclass correlation, less what chance gives. Shuffled data have whole rows of labels dealt out
    anew to the objects.

    Args:
        labels: (N, A) vote shares, NaN = unknown.
        image_id: (N,) objects of one photograph share it.
        permutations: shuffled data sets.
        seed: chooses the shuffles.

    Returns:
        None where no photograph holds two objects that both have a known label of an attribute that varies.
    """
    z, known = _standardised(labels)
    order = np.argsort(image_id, kind="stable")
    z, known = z[order], known[order]
    starts = np.flatnonzero(np.diff(image_id[order], prepend=image_id[order][:1] - 1))

    def likeness(rows: NDArray[np.int64] | slice) -> tuple[float, float]:
        values, counted = z[rows], known[rows].astype(np.float32)
        pairs = _pairs_within(counted, starts)
        products = np.add.reduceat(values, starts, axis=0) ** 2 - np.add.reduceat(values**2, starts, axis=0)
        return float(products.sum(dtype=np.float64)) / 2, pairs

    if len(starts) == 0 or z.shape[1] == 0 or (observed := likeness(slice(None)))[1] == 0:
        return None
    rng = np.random.default_rng(seed)
    shuffled = np.array([likeness(rng.permutation(len(z))) for _ in range(permutations)])  # (permutations, 2)
    pairs = np.maximum(shuffled[:, 1], 1)
    # Compared by sum / sqrt(pairs): where labels are known depends on the photograph, so shuffled data have other
    # numbers of pairs.
    scaled = shuffled[:, 0] / np.sqrt(pairs)
    root = float(np.sqrt(observed[1]))
    statistic = observed[0] / root
    return PermutationTest(
        effect=(statistic - scaled.mean()) / root,
        p_value=permutation_p(statistic, scaled),
        null=(scaled - scaled.mean()) / root,
    )


def _pairs_within(known: NDArray[np.float32], starts: NDArray[np.int64]) -> float:
    """Pairs of objects in one photograph, over all attributes, for which both are known."""
    counts = np.add.reduceat(known, starts, axis=0)
    return float((counts * (counts - 1)).sum(dtype=np.float64)) / 2


def _standardised(labels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Positive or not as zero mean and unit variance over each attribute's known cells, 0 where unknown; only
    attributes that vary.
    """
    known = ~np.isnan(labels)
    positive = labels >= 0.5
    rate = positive.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    varies = (rate > 0) & (rate < 1)
    rate, known = rate[varies], known[:, varies]
    z = np.where(known, (positive[:, varies] - rate) / np.sqrt(rate * (1 - rate)), 0)
    return z.astype(np.float32), known


def _dealt_out(values: NDArray[np.float32], known: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """Deals the known values of each attribute, which come first in `values` (A, N), out among its known cells (A, N);
    returns (N, A).
    """
    keys = np.where(known, rng.random(known.shape, dtype=np.float32), np.float32(2))
    to = np.argsort(keys, axis=1)  # known cells first, in random order
    shuffled = np.empty_like(values)
    np.put_along_axis(shuffled, to, values, axis=1)
    return shuffled.T

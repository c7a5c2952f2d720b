"""Which attributes a model names wrongly when another one is present."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MIN_OBJECTS = 10  # on either side of the comparison; below it a rate is little more than luck
_MIN_ERRORS = 5  # z means little for fewer
_MIN_Z = 3.0  # of the pairs of few attributes, what is less clear is not worth a look
# Chance that any pair is shown of a model that confuses nothing: of 204 attributes there are 41,412 pairs.
_ALPHA = 0.05
_MAP_SIDE = 14


@dataclass(frozen=True)
class ConfusedPair:
    """`named` is predicted although it is known to be absent, more often where `present` is known to be present than
    where it is known to be absent.

    Attributes:
        present: column of the attribute that is there.
        named: column of the attribute that is not, and is predicted.
        errors: objects with `present`, without `named`, for which `named` was predicted.
        objects: objects with `present`, without `named`.
        rate: errors / objects.
        elsewhere: the share of objects with neither, both known, for which `named` was predicted.
        z: the two-proportion z statistic of rate and elsewhere.
    """

    present: int
    named: int
    errors: int
    objects: int
    rate: float
    elsewhere: float
    z: float


@dataclass(frozen=True)
class Confusion:
    """The clearest pairs, and rates for the attributes in them.

    Attributes:
        pairs: by falling z.
        rows: columns of attributes that are present.
        columns: columns of attributes that are named.
        rates: (rows, columns) share of objects with the one and without the other for which the other was predicted;
            NaN where there are fewer than ten such objects.
    """

    pairs: list[ConfusedPair]
    rows: list[int]
    columns: list[int]
    rates: NDArray[np.float64]


def find_confusion(
    predicted: NDArray[np.bool_], labels: NDArray[np.float32], positive_at: float, top: int
) -> Confusion:
    """Counts every pair of attributes over cells that are known for both.

    A pair is shown where Fisher's exact test, with Bonferroni's correction for all pairs that could have been, finds
    its rate above that elsewhere.

    Args:
        predicted: (N, A) what the model names.
        labels: (N, A) vote shares, NaN = unknown.
        positive_at: vote share that counts as present.
        top: pairs to keep.
    """
    # In here, because it takes most of a second, for which no training's first step need wait.
    from scipy.stats import hypergeom

    present = (labels >= positive_at).astype(np.float32)  # NaN compares false
    absent = (labels < positive_at).astype(np.float32)
    wrong = absent * predicted
    objects = (present.T @ absent).astype(np.float64)  # (A, A): row present, column absent; 0 with itself
    errors = (present.T @ wrong).astype(np.float64)
    others = (absent.T @ absent).astype(np.float64)
    errors_of_others = (absent.T @ wrong).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate, elsewhere = errors / objects, errors_of_others / others
        pooled = (errors + errors_of_others) / (objects + others)
        z = (rate - elsewhere) / np.sqrt(pooled * (1 - pooled) * (1 / objects + 1 / others))
    testable = (objects >= _MIN_OBJECTS) & (others >= _MIN_OBJECTS) & (errors + errors_of_others >= _MIN_ERRORS)
    clear = testable & (errors >= _MIN_ERRORS) & (z >= _MIN_Z)
    p_value = hypergeom.sf(
        errors[clear] - 1, (objects + others)[clear], (errors + errors_of_others)[clear], objects[clear]
    )
    clear[clear] = p_value * testable.sum() <= _ALPHA
    z[~clear] = -np.inf
    best = np.argsort(-z, axis=None, kind="stable")[:top]
    pairs = [
        ConfusedPair(
            int(i), int(j), int(errors[i, j]), int(objects[i, j]), float(rate[i, j]), float(elsewhere[i, j]), float(z[i, j])
        )
        for i, j in zip(*np.unravel_index(best, z.shape), strict=True)
        if clear[i, j]
    ]  # fmt: skip
    rows = list(dict.fromkeys(pair.present for pair in pairs))[:_MAP_SIDE]
    columns = list(dict.fromkeys(pair.named for pair in pairs))[:_MAP_SIDE]
    rate[objects < _MIN_OBJECTS] = np.nan
    return Confusion(pairs, rows, columns, rate[np.ix_(rows, columns)])

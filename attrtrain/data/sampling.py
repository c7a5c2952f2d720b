"""How often each sample is seen, where some attributes are rare."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from attrtrain.data.reader import ShardSet

_AT_A_TIME = 65_536  # rows of the label matrix


def repeat_factors(shards: ShardSet, below: float, positive_at: float) -> NDArray[np.float64]:
    """How often each sample (N,) is seen in relation to others: repeat-factor sampling (Gupta et al., "LVIS", 2019,
    arXiv 1908.03195).

    Of an attribute that a share f of all samples is known to have, the factor is max(1, sqrt(below / f)); a sample has
    the largest of the attributes it is known to have.

    Args:
        shards: the training split.
        below: share of samples from which on an attribute is not rare.
        positive_at: vote share from which an attribute counts as present.
    """
    counts, _ = shards.counts(positive_at)
    factor = np.sqrt(np.maximum(below * len(shards) / np.maximum(counts, 1), 1.0))
    return np.concatenate(
        [np.where(positive, factor, 1.0).max(axis=1, initial=1.0) for positive in _positives(shards, positive_at)]
    )


def _positives(shards: ShardSet, positive_at: float) -> Iterator[NDArray[np.bool_]]:
    for begin in range(0, len(shards), _AT_A_TIME):
        rows = np.arange(begin, min(begin + _AT_A_TIME, len(shards)))
        yield shards.labels(rows) >= positive_at  # unknown is not

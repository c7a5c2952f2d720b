"""What random numbers of a key are for, so that the draws of one purpose are independent of those of another."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """A word of the key beside seed, epoch and sample. Numbers never change: runs that go on draw what they would have
    drawn.
    """

    FLIP = 1
    JITTER = 2
    ROTATION = 3
    SCALE = 4
    POLICY = 5
    ERASING = 6
    MIXING = 7
    CATEGORY = 8
    SPACING = 9


def sample_key(index: NDArray[np.int64], repeat: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The word of a key that stands for each sample (B,): its number, and where an epoch shows it once more, one that
    no other sample has.

    Args:
        index: (B,) the samples.
        repeat: (B,) which time this is in the epoch, from 0 on; None where an epoch shows each once.
    """
    return index if repeat is None else index + (repeat << 40)  # there are no 2**40 samples

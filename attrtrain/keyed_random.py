"""Random numbers as a pure function of a key, so that order and augmentation never depend on who asks, or when.

A generator with hidden state gives different numbers when workers, ranks or restarts draw from it in another order.
Here a number is the hash of its key: `(seed, epoch, index, stream)` always gives the same one. Integer arithmetic only,
so the numbers are the same on every platform and with every NumPy.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FEISTEL_ROUNDS = 6


def mix64(*words: ArrayLike) -> NDArray[np.uint64]:
    """Hashes 64-bit words, broadcast against each other, into one 64-bit word each.

    Every word is folded in with the finaliser of SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014, constants by D. Stafford). Not for cryptography.

    Args:
        words: integers or integer arrays; negative ones count modulo 2**64.
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):  # wrap-around is the arithmetic meant here
        for word in words:
            state = (state + _GOLDEN) ^ _as_uint64(word)
            state ^= state >> np.uint64(30)
            state *= np.uint64(0xBF58476D1CE4E5B9)
            state ^= state >> np.uint64(27)
            state *= np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return np.asarray(state, dtype=np.uint64)


def uniform(*words: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 random bits, one for each (broadcast) key."""
    return (mix64(*words) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(positions: ArrayLike, size: int, *key: int) -> NDArray[np.int64]:
    """Sends positions of `range(size)` through a permutation chosen by `key`, without building the permutation.

    A balanced Feistel network is a bijection of a power of four; walking its cycle until the value falls below `size`
    makes it one of `range(size)` (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). The domain is
    less than 4 x `size`, so a few walks are enough.

    Args:
        positions: (K,) integers in `range(size)`.
        size: number of elements permuted.
        key: words that choose the permutation, such as (seed, epoch).

    Returns:
        (K,) int64, the images of `positions`.

    Raises:
        ValueError: a position is not in `range(size)`; it would come out as another one's image.
    """
    values = np.atleast_1d(_as_uint64(positions)).copy()
    if (values >= np.uint64(max(size, 0))).any():
        raise ValueError(f"positions must be in range({size})")
    if size <= 1 or values.size == 0:
        return values.astype(np.int64)
    half_bits = np.uint64(((size - 1).bit_length() + 1) // 2)
    half_mask = (np.uint64(1) << half_bits) - np.uint64(1)
    walking = np.arange(values.size)
    while walking.size:
        left, right = values[walking] >> half_bits, values[walking] & half_mask
        for round_number in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ (mix64(*key, round_number, right) & half_mask)
        values[walking] = (left << half_bits) | right
        walking = walking[values[walking] >= np.uint64(size)]
    return values.astype(np.int64)


def _as_uint64(word: ArrayLike) -> NDArray[np.uint64]:
    if isinstance(word, int):  # a Python integer may be negative or need all 64 bits, which NumPy's conversion refuses
        return np.asarray(word & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    array = np.asarray(word)
    if array.dtype.kind not in "biu" and array.size:
        raise TypeError(f"keys are made of integers, not {array.dtype}")  # 0.2 and 0.7 would both count as 0
    return array.astype(np.uint64, copy=False)

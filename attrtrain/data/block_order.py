"""An epoch's order that touches few shards at a time, for data that does not lie on the local disk as a whole.

Shards are permuted, and a window of K of them slides along that row, one shard further at a time. Every shard deals its
samples, permuted, out over the places of the window that hold it, evenly; the samples of one place of the window are
permuted among each other. So each sample is mixed with those of 2 K - 1 shards, and a reader needs K shards at any
time, K + 1 where it passes from one place to the next. A window as wide as the row has one place, and the order is a
permutation of everything.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attrtrain.keyed_random import mix64

# Which permutation a key chooses, after (seed, epoch).
_ROW, _SHARD, _PLACE = 1, 2, 3


@dataclass(eq=False)
class BlockOrder:
    """The order of samples numbered by shard, for every epoch: a pure function of (seed, epoch).

    Attributes:
        shard_samples: (S,) samples of each shard; those of a shard have consecutive numbers.
        window: shards touched at a time.
        seed: with the epoch, chooses the order.
    """

    shard_samples: NDArray[np.int64]
    window: int
    seed: int
    # What was worked out last, because steps go through an epoch one by one.
    _rows: dict[int, "_Row"] = field(default_factory=dict, repr=False)
    _shards: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict, repr=False)
    _places: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def samples(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples (P,) at some positions (P,) of an epoch."""
        row = self._row(epoch)
        place = np.searchsorted(row.starts, positions, side="right") - 1
        samples = np.empty_like(positions)
        for number in np.unique(place).tolist():
            mine = place == number
            samples[mine] = self._place(epoch, number)[positions[mine] - row.starts[number]]
        return samples

    def _row(self, epoch: int) -> "_Row":
        if epoch not in self._rows:
            self._rows.clear()
            self._rows[epoch] = _Row.of(self.shard_samples, self.window, self.seed, epoch)
        return self._rows[epoch]

    def _place(self, epoch: int, place: int) -> NDArray[np.int64]:
        """All samples of one place of the window, in order."""
        if (epoch, place) not in self._places:
            row = self._row(epoch)
            parts = []
            for number in range(place, place + row.window):
                size, first, last = (int(column[number]) for column in (row.samples, row.first, row.last))
                begin, end = (size * (place - first + more) // (last - first + 1) for more in (0, 1))
                parts.append(self._shard(epoch, number)[begin:end])
            dealt = np.concatenate(parts)
            _keep(self._places, 4, (epoch, place), dealt[_permutation(len(dealt), self.seed, epoch, _PLACE, place)])
        return self._places[epoch, place]

    def _shard(self, epoch: int, number: int) -> NDArray[np.int64]:
        """All samples of one shard of the row, in the order in which it deals them out."""
        if (epoch, number) not in self._shards:
            row = self._row(epoch)
            order = _permutation(int(row.samples[number]), self.seed, epoch, _SHARD, int(row.shards[number]))
            _keep(self._shards, row.window + 4, (epoch, number), row.offsets[number] + order)
        return self._shards[epoch, number]


def _permutation(size: int, *key: int) -> NDArray[np.int64]:
    """A permutation of `range(size)` that is needed as a whole: by sorting, which takes fewer steps than `permute`."""
    return np.argsort(mix64(*key, np.arange(size)), kind="stable")


def _keep(
    kept: dict[tuple[int, int], NDArray[np.int64]], most: int, key: tuple[int, int], value: NDArray[np.int64]
) -> None:
    while len(kept) >= most:
        kept.pop(next(iter(kept)))
    kept[key] = value


@dataclass(frozen=True, eq=False)
class _Row:
    """The shards of one epoch in their order, S of them, and the S - K + 1 places of a window of K shards over them."""

    window: int
    shards: NDArray[np.int64]  # (S,) numbers of the shards
    samples: NDArray[np.int64]  # (S,) how many each has
    offsets: NDArray[np.int64]  # (S,) the number of its first sample
    first: NDArray[np.int64]  # (S,) the first place of the window that holds it
    last: NDArray[np.int64]  # (S,) the last
    starts: NDArray[np.int64]  # (places + 1,) position at which each place begins, and the end

    @classmethod
    def of(cls, shard_samples: NDArray[np.int64], window: int, seed: int, epoch: int) -> "_Row":
        number = np.arange(len(shard_samples))
        window = min(window, len(number))
        shards = _permutation(len(number), seed, epoch, _ROW)
        samples = shard_samples[shards]
        offsets = np.cumsum(np.r_[0, shard_samples])[shards]
        last_place = len(number) - window
        first, last = np.maximum(number - window + 1, 0), np.minimum(number, last_place)
        # What has been dealt out by the end of each place, of the shards that the window has reached.
        dealt = np.zeros(last_place + 2, dtype=np.int64)
        for place in range(last_place + 1):
            held = slice(place, place + window)
            share = (place - first[held] + 1, last[held] - first[held] + 1)
            dealt[place + 1] = samples[:place].sum() + (samples[held] * share[0] // share[1]).sum()
        return cls(window, shards, samples, offsets, first, last, dealt)

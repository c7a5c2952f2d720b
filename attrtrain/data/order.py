"""Which sample is seen when: a pure function of (seed, epoch, position), the same whatever the number of processes or
restarts.

An epoch is a permutation of the data set, cut into steps of `global_batch`; a remainder that fills no step is left out
of that epoch. Of each step rank r takes the r-th contiguous part, in micro-batches. The permutation is of everything at
once, or touches few shards at a time (`block_order`).

Where some samples are to be seen more often than others, what is permuted are not samples but equally spaced places
along all their shares laid end to end (systematic sampling): an epoch is as long as ever, and a sample that has 2.3
times the mean share is in it two or three times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attrtrain.data.block_order import BlockOrder
from attrtrain.data.streams import Stream, sample_key
from attrtrain.errors import ConfigError
from attrtrain.keyed_random import permute, uniform
from attrtrain.wording import counted

_POSITIONS_AT_A_TIME = 8192


@dataclass(frozen=True, eq=False)
class BatchRequest:
    """What a loader is asked for.

    Attributes:
        epoch: counts from 0.
        index: (B,) int64 samples of this micro-batch.
        step_index: (global_batch,) int64 samples of the whole step, all ranks together.
        repeat: (B,) int64 which time this is that the epoch shows the sample, from 0 on; None where it shows each once.
    """

    epoch: int
    index: NDArray[np.int64]
    step_index: NDArray[np.int64]
    repeat: NDArray[np.int64] | None = None

    @property
    def key(self) -> NDArray[np.int64]:
        """(B,) what stands for each sample in the keys of random numbers."""
        return sample_key(self.index, self.repeat)


@dataclass(frozen=True)
class TrainOrder:
    """The order in which one rank sees a data set of `size` samples.

    Where `window_shards` is not 0, only about so many shards are touched at a time, of the `shard_samples` samples
    each. Where there are `shares`, (size,) and positive, a sample is seen in proportion to its own.
    """

    size: int
    seed: int
    global_batch: int
    micro_batch: int
    rank: int
    world_size: int
    shard_samples: tuple[int, ...] = ()
    window_shards: int = 0
    shares: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.window_shards and sum(self.shard_samples) != self.size:
            raise ValueError(f"shard_samples has {sum(self.shard_samples)} samples, the data set {self.size}")
        if self.shares is not None and (self.window_shards or len(self.shares) != self.size):
            raise ValueError("shares are one a sample, and go with an order of everything at once")
        if self.size < self.global_batch:
            raise ConfigError(
                f"train.global_batch: {self.global_batch} is more than the {counted(self.size, 'sample there is', 'samples there are')} to train on; lower it"
            )
        if self.global_batch % (self.world_size * self.micro_batch):
            raise ConfigError(
                f"train.global_batch: {self.global_batch} does not divide among {self.world_size} processes in micro-batches of {self.micro_batch}; "
                f"process counts that do: {', '.join(map(str, _divisors(self.global_batch // self.micro_batch)))}"
                if self.global_batch % self.micro_batch == 0
                else f"train.micro_batch: {self.micro_batch} does not divide train.global_batch, {self.global_batch}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return self.size // self.global_batch

    @property
    def accumulation(self) -> int:
        """Micro-batches of this rank in one step."""
        return self.global_batch // (self.world_size * self.micro_batch)

    def steps(self, epoch: int, first: int = 0) -> Iterator[BatchRequest]:
        """Each step of an epoch from step `first` on, over all ranks."""
        # Many steps at once: worked out one by one, the positions of a batch take a good part of the time of reading
        # its crops.
        together = max(1, _POSITIONS_AT_A_TIME // self.global_batch)
        for begin in range(first, self.steps_per_epoch, together):
            end = min(begin + together, self.steps_per_epoch)
            positions = np.arange(begin * self.global_batch, end * self.global_batch)
            samples, repeats = self.samples(epoch, positions), self.repeats(epoch, positions)
            for start in range(0, len(positions), self.global_batch):
                step = slice(start, start + self.global_batch)
                yield BatchRequest(epoch, samples[step], samples[step], None if repeats is None else repeats[step])

    def samples(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples (P,) at some positions (P,) of an epoch."""
        if self.window_shards:
            return self._blocks.samples(epoch, positions)
        places = permute(positions, self.size, self.seed, epoch)
        return places if self.shares is None else self._samples_at(epoch, places)

    def repeats(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Which time it is, from 0 on, that the epoch shows what it shows at some positions (K,); None where it shows
        each sample once.
        """
        if self.shares is None:
            return None
        places = permute(positions, self.size, self.seed, epoch)
        samples = self._samples_at(epoch, places)
        # The first place of a sample, computed but for rounding: from the one before it on, places are looked at.
        begins = np.where(samples > 0, self._ends[samples - 1], 0.0) * (self.size / self._ends[-1])
        first = (begins - uniform(self.seed, epoch, Stream.SPACING)).astype(np.int64).clip(0, places)
        while (before := self._samples_at(epoch, first) < samples).any():
            first += before
        repeat: NDArray[np.int64] = places - first
        return repeat

    def _samples_at(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples (K,) in whose shares some of the equally spaced places (K,) lie."""
        begun = (places + uniform(self.seed, epoch, Stream.SPACING)) * (self._ends[-1] / self.size)
        chosen: NDArray[np.int64] = np.searchsorted(self._ends, begun, side="right")
        return np.minimum(chosen, self.size - 1)

    @cached_property
    def _ends(self) -> NDArray[np.float64]:
        """(size,) where the share of each sample ends."""
        assert self.shares is not None
        return np.cumsum(self.shares)

    @cached_property
    def _blocks(self) -> BlockOrder:
        return BlockOrder(np.array(self.shard_samples, dtype=np.int64), self.window_shards, self.seed)

    def requests(self, epochs: int, epoch: int, samples_in_epoch: int) -> Iterator[BatchRequest]:
        """Micro-batches of this rank from a position on until `epochs` are over, `accumulation` of them a step."""
        share = self.global_batch // self.world_size
        for current in range(epoch, epochs):
            first = samples_in_epoch // self.global_batch if current == epoch else 0
            for step in self.steps(current, first):
                for begin in range(self.rank * share, (self.rank + 1) * share, self.micro_batch):
                    part = slice(begin, begin + self.micro_batch)
                    repeat = None if step.repeat is None else step.repeat[part]
                    yield BatchRequest(current, step.index[part], step.step_index, repeat)


def evaluation_requests(size: int, batch: int, rank: int, world_size: int) -> Iterator[BatchRequest]:
    """Rank r's samples r, r + W, r + 2 W, … in batches; every sample is in exactly one rank's. The last batch may be
    short.
    """
    own = np.arange(rank, size, world_size)
    for begin in range(0, len(own), batch):
        part = own[begin : begin + batch]
        yield BatchRequest(0, part, part)


def _divisors(number: int) -> list[int]:
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]

"""Order: a pure function of (seed, epoch, position), whoever asks."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from attrtrain.assembly import build_order
from attrtrain.config.schema import DataConfig, RunConfig, TrainConfig, TrainSection
from attrtrain.data.block_order import BlockOrder
from attrtrain.data.order import TrainOrder, evaluation_requests
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ConfigError

SHARDS = (20, 13, 0, 1, 30, 9, 17, 13)  # 103 samples
both_orders = pytest.mark.parametrize("window", [0, 3], ids=["global", "block"])


def orders(window: int, world_size: int, micro_batch: int, size: int = 103, global_batch: int = 12) -> list[TrainOrder]:
    shards = SHARDS if window else ()
    return [
        TrainOrder(size, 5, global_batch, micro_batch, rank, world_size, shards, window) for rank in range(world_size)
    ]


def global_sequence(
    window: int, world_size: int, micro_batch: int, epochs: int = 3, epoch: int = 0, samples: int = 0
) -> list[list[int]]:
    """The samples of every step, put together from what each rank sees."""
    per_rank = [list(order.requests(epochs, epoch, samples)) for order in orders(window, world_size, micro_batch)]
    accumulation = orders(window, world_size, micro_batch)[0].accumulation
    steps = []
    for begin in range(0, len(per_rank[0]), accumulation):
        steps.append(
            [
                int(sample)
                for rank in per_rank
                for request in rank[begin : begin + accumulation]
                for sample in request.index
            ]
        )
    return steps


def step_of(order: TrainOrder, epoch: int, step: int) -> list[int]:
    """The samples of one step, asked for by themselves."""
    sample: list[int] = order.samples(
        epoch, np.arange(step * order.global_batch, (step + 1) * order.global_batch)
    ).tolist()
    return sample


@both_orders
@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 12), (1, 4), (2, 6), (2, 3), (3, 2), (4, 1), (12, 1)])
def test_every_world_size_and_micro_batch_sees_the_same_steps(window: int, world_size: int, micro_batch: int) -> None:
    assert global_sequence(window, world_size, micro_batch) == global_sequence(window, 1, 12)


@both_orders
def test_an_epoch_sees_no_sample_twice_and_leaves_out_less_than_a_step(window: int) -> None:
    order = orders(window, 1, 12)[0]
    for epoch in range(4):
        seen = np.concatenate([step.index for step in order.steps(epoch)])
        assert len(set(seen.tolist())) == len(seen) == 96
        assert seen.min() >= 0 and seen.max() < 103


@both_orders
def test_epochs_and_seeds_differ(window: int) -> None:
    order = orders(window, 1, 12)[0]
    assert step_of(order, 0, 0) != step_of(order, 1, 0)
    assert step_of(order, 0, 0) != step_of(replace(order, seed=6), 0, 0)


@pytest.mark.parametrize("window", [0, 3], ids=["global", "block"])
@pytest.mark.parametrize("first", [0, 5, 700])
def test_steps_that_are_worked_out_together_are_those_asked_for_one_by_one(window: int, first: int) -> None:
    """Many batches of positions at a time, of an epoch that is no whole number of such times."""
    order = TrainOrder(50_000, 5, 48, 48, 0, 1, (2_000,) * 25, window)
    steps = [step.index.tolist() for step in order.steps(1, first)]
    assert len(steps) == 50_000 // 48 - first
    for step in (0, 1, 169, 170, 171, len(steps) - 1):
        assert steps[step] == step_of(order, 1, first + step)


def test_a_step_may_have_more_samples_than_positions_are_worked_out_at_a_time() -> None:
    order = TrainOrder(25_000, 5, 10_000, 100, 0, 1)
    steps = [step.index.tolist() for step in order.steps(1)]
    assert steps == [step_of(order, 1, 0), step_of(order, 1, 1)] and len(set(chain(*steps))) == 20_000


@both_orders
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 3), (1, 0), (2, 7)])
def test_going_on_from_a_position_is_the_rest_of_the_whole(window: int, epoch: int, step: int) -> None:
    whole = global_sequence(window, 1, 12)
    assert global_sequence(window, 2, 3, epoch=epoch, samples=step * 12) == whole[epoch * 8 + step :]


@both_orders
def test_a_step_does_not_depend_on_what_was_asked_before(window: int) -> None:
    used = orders(window, 1, 12)[0]
    for epoch, step in [(2, 7), (0, 0), (2, 0), (1, 4), (0, 7), (2, 7)]:
        fresh = orders(window, 1, 12)[0]
        assert step_of(used, epoch, step) == step_of(fresh, epoch, step)


@both_orders
def test_requests_carry_the_whole_step(window: int) -> None:
    for request in orders(window, 2, 3)[1].requests(1, 0, 0):
        assert len(request.step_index) == 12 and set(request.index) <= set(request.step_index)


def test_a_world_that_does_not_divide_is_refused_with_those_that_would() -> None:
    with pytest.raises(ConfigError, match=r"5 processes.*process counts that do: 1, 2, 3, 4, 6, 12"):
        TrainOrder(103, 0, 12, 1, 0, 5)
    with pytest.raises(ConfigError, match=r"micro_batch: 5 does not divide"):
        TrainOrder(103, 0, 12, 5, 0, 1)
    with pytest.raises(ConfigError, match=r"more than the 7 samples"):
        TrainOrder(7, 0, 12, 12, 0, 1)
    with pytest.raises(ConfigError, match=r"12 is more than the 1 sample there is to train on"):
        TrainOrder(1, 0, 12, 12, 0, 1)


@both_orders
def test_as_many_samples_as_the_batch_are_one_step_an_epoch(window: int) -> None:
    whole = TrainOrder(12, 5, 12, 12, 0, 1, (7, 5) if window else (), window)
    assert whole.steps_per_epoch == 1
    (request,) = whole.requests(1, 0, 0)
    assert sorted(request.index) == list(range(12))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 64, 65])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_gives_every_sample_to_one_rank_once(size: int, world_size: int) -> None:
    seen = [
        int(sample)
        for rank in range(world_size)
        for request in evaluation_requests(size, 4, rank, world_size)
        for sample in request.index
    ]
    assert sorted(seen) == list(range(size))


def test_shards_that_do_not_add_up_are_a_defect() -> None:
    with pytest.raises(ValueError, match="shard_samples"):
        TrainOrder(103, 0, 12, 12, 0, 1, (50, 50), 2)


@both_orders
@pytest.mark.parametrize("seed", [0, 3])
def test_a_run_sees_its_objects_in_the_order_of_its_seed(toy_shards: Path, window: int, seed: int) -> None:
    shards = ShardSet([toy_shards], "train")
    data = DataConfig(order="block", window_shards=window) if window else DataConfig()
    config = TrainConfig(run=RunConfig(seed=seed), data=data, train=TrainSection(global_batch=12, micro_batch=3))
    for rank in range(2):
        process = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2, process_index=rank))
        expected = TrainOrder(len(shards), seed, 12, 3, rank, 2, shards.shard_samples, window)
        given = [request.index.tolist() for request in build_order(config, shards, process).requests(2, 0, 0)]
        assert given == [request.index.tolist() for request in expected.requests(2, 0, 0)]


# --- few shards at a time


def whole_epoch(shards: list[int], window: int, seed: int = 0, epoch: int = 0) -> NDArray[np.int64]:
    return BlockOrder(np.array(shards), window, seed).samples(epoch, np.arange(sum(shards)))


SIZES = [[7], [5, 5], list(SHARDS), [40] * 12, [1] * 30, [0, 9, 0, 0, 3], list(range(25))]


@pytest.mark.parametrize("shards", SIZES, ids=str)
@pytest.mark.parametrize("window", [1, 2, 3, 7, 100])
def test_an_epoch_in_blocks_is_a_permutation(shards: list[int], window: int) -> None:
    for epoch in range(3):
        assert sorted(whole_epoch(shards, window, epoch=epoch).tolist()) == list(range(sum(shards)))


@pytest.mark.parametrize("shards", SIZES, ids=str)
@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_at_any_moment_only_a_window_of_shards_is_needed(shards: list[int], window: int) -> None:
    """A shard is needed from its first sample to its last."""
    owner = np.repeat(np.arange(len(shards)), shards)[whole_epoch(shards, window)]
    needed = np.zeros(len(owner), dtype=int)
    for shard in range(len(shards)):
        if (seen := np.flatnonzero(owner == shard)).size:
            needed[seen[0] : seen[-1] + 1] += 1
    assert needed.max() <= window


def test_a_step_that_is_shorter_than_a_shard_needs_one_shard_more_at_a_seam() -> None:
    order = TrainOrder(4000, 1, 50, 50, 0, 1, (200,) * 20, 4)
    touched = [len(set((step.index // 200).tolist())) for step in order.steps(0)]
    assert max(touched) == 5 and touched.count(5) <= 16 and min(touched) >= 3


def test_the_samples_of_a_shard_are_spread_over_its_whole_stay_in_the_window() -> None:
    """And among those of the others: a block is no row of shards one after another."""
    window, size = 4, 200
    owner = whole_epoch([size] * 20, window) // size
    for shard in np.unique(owner):
        seen = np.flatnonzero(owner == shard)
        if window * size < seen[0] and seen[-1] < len(owner) - window * size:  # not among the first and last
            assert seen[-1] - seen[0] > 0.95 * window * size
            for begin in range(0, window * size, size):  # the same share of each place
                assert ((seen >= seen[0] + begin) & (seen < seen[0] + begin + size)).sum() == pytest.approx(50, abs=8)
    runs = np.diff(np.flatnonzero(np.diff(owner)))
    assert runs.mean() < 1.6  # 4 / 3 where neighbours are independent


def test_every_order_of_a_small_epoch_comes_up_in_a_window_as_wide_as_the_row() -> None:
    orders = {tuple(whole_epoch([1, 2, 1], 3, seed).tolist()) for seed in range(400)}
    assert len(orders) == 24
    assert len({tuple(whole_epoch([1, 2, 1], 1, seed).tolist()) for seed in range(400)}) == 12  # 3! rows of shards, 2!


def shared(shares: NDArray[np.float64], global_batch: int = 5, rank: int = 0, world_size: int = 1) -> TrainOrder:
    return TrainOrder(len(shares), 5, global_batch, global_batch // world_size, rank, world_size, shares=shares)


def test_shares_decide_how_often_a_sample_is_seen_to_within_one() -> None:
    shares = np.random.default_rng(0).uniform(0.5, 6.0, 1000)
    order, expected = shared(shares), shares * 1000 / shares.sum()
    totals = np.zeros(1000)
    for epoch in range(20):
        seen = np.concatenate([step.index for step in order.steps(epoch)])
        counts = np.bincount(seen, minlength=1000)
        assert len(counts) == 1000 and counts.sum() == 1000
        assert (np.abs(counts - expected) < 1 + 1e-9).all()
        totals += counts
        assert len(set(np.diff(seen).tolist())) > 500  # and in no order of their own
    assert np.abs(totals / 20 - expected).max() < 0.5


def test_equal_shares_are_each_sample_once_and_shares_go_with_ranks_and_restarts() -> None:
    equal = shared(np.full(100, 3.0))
    seen = np.concatenate([step.index for step in equal.steps(2)])
    assert sorted(seen.tolist()) == list(range(100))
    shares = np.random.default_rng(1).uniform(1, 3, 100)
    whole = [request.index for request in shared(shares, 10).requests(2, 0, 0)]
    halves = [[request.index for request in shared(shares, 10, rank, 2).requests(2, 0, 0)] for rank in range(2)]
    for step, parts in zip(whole, zip(*halves, strict=True), strict=True):
        assert step.tolist() == np.concatenate(parts).tolist()
    resumed = [request.index.tolist() for request in shared(shares, 10).requests(2, 1, 30)]
    assert resumed == [index.tolist() for index in whole[13:]]
    with pytest.raises(ValueError, match="everything at once"):
        TrainOrder(103, 5, 12, 12, 0, 1, SHARDS, 3, np.ones(103))


def test_each_time_that_an_epoch_shows_a_sample_has_a_number_of_its_own() -> None:
    shares = np.random.default_rng(0).uniform(0.3, 6.0, 1000)
    shares[-1] = 40.0
    for epoch in range(5):
        shown: dict[int, list[int]] = {}
        for request in shared(shares).requests(epoch + 1, epoch, 0):
            for sample, repeat in zip(request.index.tolist(), request.repeat.tolist(), strict=True):
                shown.setdefault(sample, []).append(repeat)
        assert max(map(len, shown.values())) > 10
        assert all(sorted(repeats) == list(range(len(repeats))) for repeats in shown.values())


def test_keys_go_with_ranks_and_restarts_and_are_the_samples_where_nothing_is_repeated() -> None:
    shares = np.random.default_rng(1).uniform(1, 9, 100)
    whole = [request.key.tolist() for request in shared(shares, 10).requests(2, 0, 0)]
    halves = [[request.key.tolist() for request in shared(shares, 10, rank, 2).requests(2, 0, 0)] for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    small = replace(shared(shares, 10), micro_batch=2)
    assert np.concatenate([request.key for request in small.requests(2, 0, 0)]).tolist() == list(chain(*whole))
    assert [request.key.tolist() for request in shared(shares, 10).requests(2, 1, 30)] == whole[13:]
    assert len(set(chain(*whole[:10]))) == len(set(chain(*whole[10:]))) == 100
    for order in (shared(np.full(100, 3.0)), orders(0, 1, 12)[0], orders(3, 1, 12)[0]):
        assert all(request.key.tolist() == request.index.tolist() for request in order.requests(2, 0, 0))

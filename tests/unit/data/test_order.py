"""Order: a pure function of (seed, epoch, position), whoever asks."""

import numpy as np
import pytest

from attrtrain.data.order import TrainOrder, evaluation_requests
from attrtrain.errors import ConfigError


def orders(world_size: int, micro_batch: int, size: int = 103, global_batch: int = 12) -> list[TrainOrder]:
    return [TrainOrder(size, 5, global_batch, micro_batch, rank, world_size) for rank in range(world_size)]


def global_sequence(
    world_size: int, micro_batch: int, epochs: int = 3, epoch: int = 0, samples: int = 0
) -> list[list[int]]:
    """The samples of every step, put together from what each rank sees."""
    per_rank = [list(order.requests(epochs, epoch, samples)) for order in orders(world_size, micro_batch)]
    accumulation = orders(world_size, micro_batch)[0].accumulation
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


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 12), (1, 4), (2, 6), (2, 3), (3, 2), (4, 1), (12, 1)])
def test_every_world_size_and_micro_batch_sees_the_same_steps(world_size: int, micro_batch: int) -> None:
    assert global_sequence(world_size, micro_batch) == global_sequence(1, 12)


def test_an_epoch_sees_no_sample_twice_and_leaves_out_less_than_a_step() -> None:
    order = orders(1, 12)[0]
    for epoch in range(4):
        seen = np.concatenate([order.step_index(epoch, step) for step in range(order.steps_per_epoch)])
        assert len(set(seen.tolist())) == len(seen) == 96
        assert seen.min() >= 0 and seen.max() < 103


def test_epochs_and_seeds_differ() -> None:
    order = orders(1, 12)[0]
    assert order.step_index(0, 0).tolist() != order.step_index(1, 0).tolist()
    assert order.step_index(0, 0).tolist() != TrainOrder(103, 6, 12, 12, 0, 1).step_index(0, 0).tolist()


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 3), (1, 0), (2, 7)])
def test_going_on_from_a_position_is_the_rest_of_the_whole(epoch: int, step: int) -> None:
    whole = global_sequence(1, 12)
    assert global_sequence(2, 3, epoch=epoch, samples=step * 12) == whole[epoch * 8 + step :]


def test_requests_carry_the_whole_step() -> None:
    for request in orders(2, 3)[1].requests(1, 0, 0):
        assert len(request.step_index) == 12 and set(request.index) <= set(request.step_index)


def test_a_world_that_does_not_divide_is_refused_with_those_that_would() -> None:
    with pytest.raises(ConfigError, match=r"5 processes.*process counts that do: 1, 2, 3, 4, 6, 12"):
        TrainOrder(103, 0, 12, 1, 0, 5)
    with pytest.raises(ConfigError, match=r"micro_batch: 5 does not divide"):
        TrainOrder(103, 0, 12, 5, 0, 1)
    with pytest.raises(ConfigError, match=r"more than the 7 samples"):
        TrainOrder(7, 0, 12, 12, 0, 1)


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

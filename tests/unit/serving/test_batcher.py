"""Crops of several requests share passes, and each gets what the model says of it alone."""

import asyncio
import itertools
import math
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch

from attrtrain.inference.predictor import Outputs, Predictor
from attrtrain.serving.batcher import Batcher
from attrtrain.serving.contracts import RefusedError


class Reader:
    """A model whose logits are a crop's level and the length of its category's name, and which notes its passes."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, images: torch.Tensor, categories: list[str]) -> Outputs:
        self.passes.append(images[:, 0, 0, 0].tolist())
        assert self.may_go_on.wait(60)
        levels = images[:, 0, 0, 0].float()
        levels[levels == 255] = math.nan
        lengths = torch.tensor([float(len(name)) for name in categories])
        return Outputs(torch.stack([levels / 10, lengths], dim=1), torch.zeros(len(images), 1))


def crops(*levels: int) -> list[torch.Tensor]:
    return [torch.full((3, 2, 2), level, dtype=torch.uint8) for level in levels]


def expected(levels: Sequence[int], category: str) -> np.ndarray:
    logits = np.array([[level / 10, len(category)] for level in levels])
    return 1 / (1 + np.exp(-logits))


def working(batcher: Batcher, work: Coroutine[Any, Any, Any]) -> Any:
    async def all_of_it() -> Any:
        await batcher.start()
        try:
            async with asyncio.timeout(10):
                return await work
        finally:
            await batcher.stop()

    return asyncio.run(all_of_it())


def test_a_pass_holds_at_most_so_many_crops_and_each_gets_its_own_scores() -> None:
    reader = Reader()
    batcher = Batcher(cast(Predictor, reader), 4, 20)

    async def two() -> list[list[np.ndarray]]:
        return await asyncio.gather(
            batcher.scores(crops(*range(6)), "dog"), batcher.scores(crops(*range(6, 10)), "giraffe")
        )

    dogs, giraffes = working(batcher, two())
    assert [len(one) for one in reader.passes] == [4, 4, 2] and [*itertools.chain(*reader.passes)] == [*range(10)]
    np.testing.assert_allclose(dogs, expected(range(6), "dog"), rtol=1e-5)
    np.testing.assert_allclose(giraffes, expected(range(6, 10), "giraffe"), rtol=1e-5)
    assert (batcher.crops, batcher.batches) == (10, 3)


def test_a_crop_waits_for_others_as_long_as_it_was_told_and_no_longer() -> None:
    reader = Reader()
    patient = Batcher(cast(Predictor, reader), 2, 9_000)

    async def one_after_the_other() -> None:
        first = asyncio.create_task(patient.scores(crops(1)))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, patient.scores(crops(2)))  # and no longer, once the pass is full

    working(patient, one_after_the_other())
    assert reader.passes == [[1, 2]]
    hasty = Batcher(cast(Predictor, reader), 2, 20)  # milliseconds
    working(hasty, hasty.scores(crops(3)))
    assert reader.passes[1:] == [[3]]


def test_crops_of_a_request_that_was_let_go_cost_no_pass() -> None:
    reader = Reader()
    batcher = Batcher(cast(Predictor, reader), 8, 0)

    async def with_one_let_go() -> list[np.ndarray]:
        reader.may_go_on.clear()
        first = asyncio.create_task(batcher.scores(crops(0)))
        while not reader.passes:
            await asyncio.sleep(0.001)
        gone, last = (asyncio.create_task(batcher.scores(crops(*levels))) for levels in ((1, 2), (3,)))
        await asyncio.sleep(0)
        gone.cancel()
        reader.may_go_on.set()
        await asyncio.wait([gone])
        assert gone.cancelled()
        return [*await first, *await last]

    found = working(batcher, with_one_let_go())
    assert reader.passes == [[0], [3]]
    np.testing.assert_allclose(found, expected([0, 3], ""), rtol=1e-5)


def test_scores_that_are_no_numbers_are_refused_and_the_next_request_is_served() -> None:
    batcher = Batcher(cast(Predictor, Reader()), 8, 0)

    async def one_after_the_other() -> list[np.ndarray]:
        with pytest.raises(RefusedError) as caught:
            await batcher.scores(crops(5, 255))
        assert (caught.value.status, caught.value.code) == (500, "model_diverged") and batcher.fails
        return await batcher.scores(crops(5))

    np.testing.assert_allclose(working(batcher, one_after_the_other()), expected([5], ""), rtol=1e-5)
    assert not batcher.fails

"""Finders: what they try, what they choose, and where they say that there is nothing to choose."""

import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from attrtrain.config.schema import LossConfig
from attrtrain.data.augment import Augmentation
from attrtrain.data.loader import Batch
from attrtrain.engine import finders
from attrtrain.engine.objective import Objective
from attrtrain.engine.state import Learner
from attrtrain.engine.step import StepSettings
from attrtrain.errors import ConfigError
from attrtrain.losses import AttributeLoss
from attrtrain.runtime import build_runtime

SETTINGS = StepSettings(0, Augmentation(), Objective(AttributeLoss(LossConfig())), 0.0, False)


@pytest.fixture(scope="module")
def runtime():
    return build_runtime("no")


def learner() -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, dtype=torch.float32))
    model.forward = lambda images: model[1](model[0](images.float() / 255))
    group = {"params": list(model.parameters()), "lr_scale": 1.0, "is_head": True}  # as `build_optimizer` makes them
    return Learner(model, model, None, torch.optim.SGD([group], lr=99.0))


def batch(rows: int) -> Batch:
    generator = torch.Generator().manual_seed(rows)
    image = torch.randint(0, 256, (rows, 3, 2, 2), dtype=torch.uint8, generator=generator)
    target = (image.flatten(1)[:, :3] > 127).float()
    return Batch(image, target, torch.ones(rows, 3, dtype=torch.bool), torch.arange(rows), 0, rows * 3)


def test_the_rate_rises_by_the_same_factor_until_the_loss_goes_through_the_roof(runtime) -> None:
    found = finders.find_learning_rate(runtime, learner(), iter(lambda: [batch(8)], None), SETTINGS, 1e-4, 1e6, 60)
    factors = np.diff(np.log(found.rates))
    assert found.rates[0] == 1e-4 and factors == pytest.approx(np.full(len(factors), math.log(1e10) / 59))
    assert len(found.rates) < 60 and max(found.losses) <= 4 * min(found.losses)
    lowest = found.rates[int(np.argmin(found.losses))]
    assert found.chosen == pytest.approx(lowest / 10, rel=0.05)
    fresh = learner()
    for group in fresh.optimizer.param_groups:
        group["lr"] = found.chosen
    losses = [
        finders.optimizer_step(runtime, fresh.wrapped, fresh.optimizer, [batch(8)], step, SETTINGS)[0].item()
        for step in range(20)
    ]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("losses", "diverged", "told"),
    [([1, 2, 3], True, "--from: "), ([3, 2, 1], False, "--to: "), ([], True, "--from: ")],
)
def test_a_range_that_holds_no_good_rate_is_refused(losses: list[float], diverged: bool, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        finders.choose_rate([0.1, 1.0, 10.0][: len(losses)], losses, diverged)
    assert finders.choose_rate([0.1, 1.0, 12.345], [3, 2, 1], True) == 1.2


def test_the_largest_micro_batch_that_fits_and_is_nearly_as_fast_is_chosen(
    runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    seconds = {8: 1.02, 4: 1.0, 2: 3.0}  # of a global batch
    sizes: list[int] = []

    def step(_, __, optimizer, batches, *___):
        nonlocal clock
        size = len(batches[0].index)
        assert size * len(batches) == 16
        sizes.append(size)
        if size == 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        clock += seconds[size]
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(finders, "optimizer_step", step)
    monkeypatch.setattr(finders.time, "monotonic", lambda: clock)
    found = finders.find_micro_batch(
        runtime, learner(), 16, lambda size: iter([batch(size)] * (3 * 16 // size)), SETTINGS
    )
    assert found.chosen == 8
    assert found.objects_per_second == {
        16: None,
        8: pytest.approx(16 / 1.02),
        4: pytest.approx(16.0),
        2: pytest.approx(16 / 3),
    }
    assert sizes == [16, 8, 8, 8, 4, 4, 4, 2, 2, 2]


def test_short_steps_are_timed_for_a_second(runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = 0.0, 0

    def step(*_):
        nonlocal clock, made
        clock += 30.0 if made == 0 else 0.1
        made += 1
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(finders, "optimizer_step", step)
    monkeypatch.setattr(finders.time, "monotonic", lambda: clock)
    found = finders.find_micro_batch(runtime, learner(), 1, lambda size: iter([batch(size)] * 3), SETTINGS)
    assert found.objects_per_second == {1: pytest.approx(10.0)} and made in (11, 12)


def test_what_a_step_had_come_to_is_let_go_before_memory_is_given_back(
    runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next size is tried beside it. The error's frames hold it, as they do here."""
    held: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []

    def step(_, __, ___, batches, *____):
        if len(batches[0].index) > 4:
            activations = torch.zeros(8)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(finders, "optimizer_step", step)
    monkeypatch.setattr(
        finders,
        "clear_device_cache",
        lambda garbage_collection: left.append(sum(tensor() is not None for tensor in held)),
    )
    found = finders.find_micro_batch(
        runtime, learner(), 8, lambda size: iter([batch(size)] * (3 * 8 // size)), SETTINGS
    )
    assert found.objects_per_second[8] is None and found.objects_per_second[4] is not None
    assert len(held) == 1 and left == [0]


def test_where_nothing_fits_it_says_what_to_do_and_other_errors_are_no_lack_of_memory(
    runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception):
        def step(*_):
            raise error

        return step

    batches = lambda size: iter([batch(size)] * 100)  # noqa: E731
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),  # the driver's
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    ):
        monkeypatch.setattr(finders, "optimizer_step", failing(error))
        with pytest.raises(ConfigError, match=r"not even 3 objects fit .* lower data.image_px"):
            finders.find_micro_batch(runtime, learner(), 6, batches, SETTINGS)
    monkeypatch.setattr(finders, "optimizer_step", failing(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        finders.find_micro_batch(runtime, learner(), 6, batches, SETTINGS)

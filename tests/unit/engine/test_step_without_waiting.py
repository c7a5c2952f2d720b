"""A step on tensors that say they are a GPU's: not one of its operations makes the host wait for it.

They hold nothing (torch's FakeTensor), so that this needs no GPU; gradients are made up, since autograd would ask for
one. tests/gpu makes whole steps on a real one.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attrtrain.config.schema import LossConfig, OptimConfig
from attrtrain.data.augment import Augmentation
from attrtrain.data.device_resize import resize_packed
from attrtrain.data.loader import Batch
from attrtrain.data.policies import OPERATIONS, operated
from attrtrain.engine.objective import Objective
from attrtrain.engine.step import StepSettings, TrainingCategories, optimizer_step
from attrtrain.engine.window import Window
from attrtrain.losses import AttributeLoss
from attrtrain.models.network import build_network
from attrtrain.optim import build_optimizer
from attrtrain.runtime import Runtime

GPU = torch.device("cuda", 0)


def _asks_for_a_driver() -> bool:
    """Older releases of torch look for a GPU where values would be drawn or places looked up, be there any or not."""
    try:
        with FakeTensorMode():
            torch.empty(4, device=GPU).uniform_()[torch.zeros(2, dtype=torch.int64, device=GPU)]
    except RuntimeError:
        return True
    return False


pytestmark = pytest.mark.skipif(_asks_for_a_driver(), reason="this torch asks for a GPU where tensors hold nothing")

READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "bincount", "_unique2"}
INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: reading values, sizes that depend on them, and copies that are waited
    for.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function._schema.name.removeprefix("aten::")
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if any(tensor.device.type == "cuda" for tensor in tensors):
            assert name not in READS and "repeat_interleave" not in name, f"{name} reads a value"
        if name in INDEXES and args[0].device.type == "cuda":
            places = [place for place in args[1] if place is not None]
            assert all(place.device.type == "cuda" for place in places), f"{name} copies its places to the GPU"
            assert all(place.dtype == torch.int64 for place in places), f"{name} counts the places that are true"
        kinds = {tensor.device.type for tensor in tensors}
        if name == "_to_copy":
            kinds.add((kwargs.get("device") or args[0].device).type)
        if name in ("_to_copy", "copy_") and len(kinds) > 1:
            assert kwargs.get("non_blocking") or args[2:] == (True,), f"{name} is waited for"
        return function(*args, **kwargs)


@pytest.fixture(autouse=True)
def _no_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves out what would call a driver: pinning, generators, and counters of memory."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def make_steps(settings: StepSettings, head: str = "linear", count: int = 2) -> None:
    with GPU:
        model = build_network(
            "resnet18", head, 16, 0.1, 6, image_px=64, categories=("cat", "dog") if settings.categories else ()
        )
    accelerator = SimpleNamespace(
        process_index=0,
        num_processes=1,
        device=GPU,
        no_sync=lambda _: nullcontext(),
        backward=lambda _: [
            setattr(parameter, "grad", torch.empty_like(parameter)) for parameter in model.parameters()
        ],
        clip_grad_norm_=nn.utils.clip_grad_norm_,
        unscale_gradients=lambda: None,
    )
    runtime = Runtime(accelerator, "no")  # torch lets no autocast be without a GPU
    optimizer, window = build_optimizer(model.train(), OptimConfig()), Window(runtime)
    image = torch.empty((8, 3, 64, 64), dtype=torch.uint8, device=GPU)
    target, known = torch.empty((8, 6), device=GPU), torch.empty((8, 6), dtype=torch.bool, device=GPU)
    index = SimpleNamespace(numpy=lambda: np.arange(8))  # stays on the CPU, and holds something
    with NoWaiting():
        for step in range(count):
            batches = [Batch(image, target, known, index, 0, 20) for _ in range(2)]
            window.add(*optimizer_step(runtime, model, optimizer, batches, step, settings))


EVERYTHING = Augmentation(flip=0.5, rotate=10, erase=0.5, mixup=0.2, cutmix=1, scales=(0.75,), swaps=(1, 0, 2, 3, 4, 5))


def settings_of(unknown: str = "mask", loss: str = "bce", clip_norm: float = 1.0, **given: Any) -> StepSettings:
    rates = np.full((2, 6), 0.2, dtype=np.float32) if unknown == "selective" else None
    loss_of = AttributeLoss(LossConfig(name=loss), unknown, 0.4, 8, torch.ones(6, device=GPU))
    objective = Objective(loss_of, rates, np.zeros(8, dtype=np.intp))
    return StepSettings(0, given.pop("augmentation", Augmentation()), objective, clip_norm, True, **given)


@pytest.mark.parametrize(
    ("unknown", "loss", "clip_norm"),
    [("mask", "bce", 1.0), ("negative", "focal", 0.0), ("selective", "asl", 1.0), ("hill", "bce", 0.0), ("splc", "bce", 1.0)],
)  # fmt: skip
def test_no_loss_waits(unknown: str, loss: str, clip_norm: float) -> None:
    make_steps(settings_of(unknown, loss, clip_norm))


@pytest.mark.parametrize("policy", ["trivial", "randaugment"])
def test_no_augmentation_waits(policy: Any) -> None:
    make_steps(settings_of(augmentation=replace(EVERYTHING, policy=policy)), "mlp")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_operation_of_a_policy_waits(operation: str) -> None:
    images, fill = torch.empty((8, 3, 64, 64), dtype=torch.uint8, device=GPU), torch.empty((1, 3, 1, 1), device=GPU)
    with NoWaiting():
        places = np.full(8, OPERATIONS.index(operation))
        operated(images, places, np.ones(8), fill, lambda tensor: tensor.to(GPU, non_blocking=True))


def test_no_category_waits() -> None:
    make_steps(settings_of(categories=TrainingCategories(np.ones(8, dtype=np.int64), 0, 0.1)), "category")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_on_the_device_does_not_wait(interpolation: Any) -> None:
    sizes = [(20, 30), (40, 50), (10, 10)]
    pixels = torch.empty(sum(3 * height * width for height, width in sizes), dtype=torch.uint8, device=GPU)
    with NoWaiting():
        squares = resize_packed(pixels, sizes, 32, interpolation)
    assert squares.shape == (3, 3, 32, 32) and squares.device == GPU


@pytest.mark.parametrize(
    "waits",
    [
        lambda values: values.cpu(),
        lambda values: torch.tensor([1.0, 2.0, 3.0, 4.0]).to(GPU),
        lambda values: torch.tensor([1.0, 2.0], device=GPU),
        lambda values: values[values > 0],
        lambda values: values[torch.tensor([1, 2])],
        lambda values: values.sum().item(),
    ],
    ids=["to the CPU", "from the CPU", "from a list", "by a mask", "by places of the CPU", "a number"],
)
def test_what_waits_is_seen(waits: Any) -> None:
    with pytest.raises(AssertionError), NoWaiting():
        waits(torch.empty(4, device=GPU))

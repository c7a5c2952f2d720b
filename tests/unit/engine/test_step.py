"""One step: the same gradient however the global batch is cut up, and the reference's when done by hand."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attrtrain.config.schema import LossConfig
from attrtrain.data.augment import Augmentation, draw_mixing
from attrtrain.data.loader import Batch
from attrtrain.engine.objective import Objective
from attrtrain.engine.step import StepSettings, TrainingCategories, optimizer_step
from attrtrain.engine.window import Window
from attrtrain.losses import AttributeLoss
from attrtrain.optim import MovingAverage
from attrtrain.runtime import build_runtime


class Scaled(nn.Module):
    def forward(self, pixels):
        return pixels.float() / 255


def objective(unknown: str, positive_weight: torch.Tensor | None = None) -> Objective:
    return Objective(AttributeLoss(LossConfig(), unknown, 0.0, 8, positive_weight))


SETTINGS = StepSettings(
    seed=0, augmentation=Augmentation(), objective=objective("mask"), clip_norm=0.0, channels_last=False
)


class Small(nn.Module):
    """No batch statistics, so that cutting up a batch changes nothing."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(3 * 4 * 4, 5))

    def forward(self, images):
        return self.layers(images.float() / 255)


@pytest.fixture(scope="module")
def runtime():
    return build_runtime("no")


def data(rows: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(rows, 5, generator=generator) < 0.4
    return Batch(
        image=torch.randint(0, 256, (rows, 3, 4, 4), dtype=torch.uint8, generator=generator),
        target=torch.where(known, torch.rand(rows, 5, generator=generator), 0.0),
        known=known,
        index=torch.arange(rows),
        epoch=0,
        step_known=int(known.sum()),
    )


def cut(batch: Batch, size: int) -> list[Batch]:
    return [
        Batch(
            *(getattr(batch, name)[i : i + size] for name in ("image", "target", "known", "index")),
            batch.epoch,
            batch.step_known,
        )
        for i in range(0, len(batch.index), size)
    ]


def train_once(runtime, batches: list[Batch], settings: StepSettings = SETTINGS, dropout: float = 0.0, step: int = 3):
    torch.manual_seed(0)
    model = Small(dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loss, norm = optimizer_step(runtime, model, optimizer, batches, step, settings)
    return model.layers[2].weight.detach(), loss.item(), norm.item()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_accumulation_gives_the_whole_batchs_step(runtime, size: int) -> None:
    whole, whole_loss, whole_norm = train_once(runtime, [data()])
    parts, parts_loss, parts_norm = train_once(runtime, cut(data(), size))
    assert torch.allclose(whole, parts, atol=1e-7)
    assert parts_loss == pytest.approx(whole_loss, rel=1e-6) and parts_norm == pytest.approx(whole_norm, rel=1e-5)


@pytest.mark.parametrize("unknown", ["mask", "negative"])
def test_equals_a_step_by_hand(runtime, unknown: str) -> None:
    batch = data()
    settings = replace(SETTINGS, objective=objective(unknown))
    weight, loss, norm = train_once(runtime, [batch], settings)
    torch.manual_seed(0)
    model = Small()
    logits = model(batch.image)
    cells = nn.functional.binary_cross_entropy_with_logits(logits, batch.target, reduction="none")
    expected = cells[batch.known].mean() if unknown == "mask" else cells.mean()
    expected.backward()
    gradient = model.layers[2].weight.grad
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(weight, model.layers[2].weight.detach() - 0.5 * gradient, atol=1e-7)
    total = sum((parameter.grad**2).sum() for parameter in model.parameters()) ** 0.5
    assert norm == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize("unknown", ["mask", "negative"])
def test_a_mixed_step_equals_one_by_hand(runtime, unknown: str) -> None:
    batch, mixing = data(), Augmentation(seed=0, mixup=0.5)
    weight, loss, _ = train_once(runtime, [batch], replace(SETTINGS, objective=objective(unknown), augmentation=mixing))
    share = draw_mixing(0, 0, batch.index.numpy(), 0.5, 0.0, 4).own_share
    torch.manual_seed(0)
    model = Small()
    pixels, others = batch.image.float(), batch.image.float().roll(1, 0)
    logits = model((pixels * share[:, :, None, None] + others * (1 - share[:, :, None, None])).round())
    expected = torch.zeros(())
    for row in range(8):
        for sample, part in ((row, share[row, 0]), (row - 1, 1 - share[row, 0])):
            cells = nn.functional.binary_cross_entropy_with_logits(logits[row], batch.target[sample], reduction="none")
            counted = cells[batch.known[sample]] if unknown == "mask" else cells
            expected = expected + part * counted.sum()
    expected = expected / (batch.known.sum() if unknown == "mask" else 40)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    gradient = model.layers[2].weight.grad
    assert torch.allclose(weight, model.layers[2].weight.detach() - 0.5 * gradient, atol=1e-6)


def test_on_mirrored_crops_whose_labels_are_swapped_unknown_ones_have_each_others_rates(runtime) -> None:
    batch = data()
    rates = np.array([[0.01, 0.3, 0.02, 0.03, 0.04]], dtype=np.float32)
    loss_of, kind = AttributeLoss(LossConfig(), "selective", 0.1, 8), np.zeros(8, dtype=np.intp)
    swaps = (1, 0, 2, 3, 4)
    by_itself = Augmentation(seed=0, flip=1.0, swaps=swaps)
    weight, loss, _ = train_once(
        runtime, [batch], replace(SETTINGS, objective=Objective(loss_of, rates, kind), augmentation=by_itself)
    )
    swapped = replace(
        batch, image=batch.image.flip(-1), target=batch.target[:, list(swaps)], known=batch.known[:, list(swaps)]
    )
    theirs = Objective(loss_of, rates[:, list(swaps)], kind)
    by_hand, expected, _ = train_once(runtime, [swapped], replace(SETTINGS, objective=theirs))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(weight, by_hand, atol=1e-7)


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_step_with_the_rates_of_each_objects_own_kind_equals_one_by_hand(runtime, mixup: float) -> None:
    """An unknown cell is a negative as sure as the attribute is rare among objects of that kind, or counts for nothing
    where it is not rare.
    """
    batch = replace(data(), index=torch.tensor([30, 4, 17, 4, 22, 9, 11, 3]))
    rates = np.random.default_rng(0).uniform(0.0, 0.8, (3, 5)).astype(np.float32)
    kind = np.arange(31) * 2 % 3
    loss_of = AttributeLoss(LossConfig(), "selective", 0.4, 8)
    settings = replace(
        SETTINGS, objective=Objective(loss_of, rates, kind), augmentation=Augmentation(seed=0, mixup=mixup)
    )
    share = draw_mixing(0, 0, batch.index.numpy(), mixup, 0.0, 4).own_share if mixup else torch.ones(8, 1)
    torch.manual_seed(0)
    model = Small()
    pixels, others = batch.image.float(), batch.image.float().roll(1, 0)
    logits = model((pixels * share[:, :, None, None] + others * (1 - share[:, :, None, None])).round())
    expected, soft, left_out = torch.zeros(()), 0, 0
    for row in range(8):
        for sample, part in ((row, share[row, 0]), (row - 1, 1 - share[row, 0])):
            for column in range(5):
                target = batch.target[sample, column]
                if not batch.known[sample, column]:
                    rate = rates[kind[batch.index[sample]], column]
                    if rate > 0.4:
                        left_out += 1
                        continue
                    target, soft = torch.tensor(rate), soft + 1
                p = logits[row, column].sigmoid()
                expected = expected - part * (target * p.log() + (1 - target) * (1 - p).log())
    assert soft > 10 and left_out > 10
    expected = expected / 40
    expected.backward()
    by_hand = model.layers[2].weight.detach() - 0.5 * model.layers[2].weight.grad
    for batches in [[batch], *([cut(batch, 2)] if not mixup else [])]:  # an object's partner is of its micro-batch
        weight, loss, _ = train_once(runtime, batches, settings)
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert torch.allclose(weight, by_hand, atol=1e-6)


def test_long_gradients_are_shortened_and_the_norm_before_is_told(runtime) -> None:
    settings = replace(SETTINGS, clip_norm=1e-3)
    torch.manual_seed(0)
    before = Small().layers[2].weight.detach()
    weight, _, norm = train_once(runtime, [data()], settings)
    assert norm > 1e-3
    assert (weight - before).norm().item() <= 0.5 * 1e-3 * 1.001


def test_what_has_no_rate_shortens_no_gradient(runtime) -> None:
    """The body's gradient is far longer than the head's, and its rate is 0. What is remembered of it is clipped."""
    body, head = nn.Linear(3 * 4 * 4, 7), nn.Linear(7, 5)
    with torch.no_grad():
        head.weight.mul_(100)
    model = nn.Sequential(nn.Flatten(), Scaled(), body, head)
    fixed = deepcopy(model).requires_grad_(False)
    fixed[3].requires_grad_(True)

    def norm_and_optimizer(learns: nn.Module, rate_of_body: float) -> tuple[float, torch.optim.Optimizer]:
        groups = [{"params": learns[2].parameters(), "lr": rate_of_body}, {"params": learns[3].parameters(), "lr": 0.1}]
        optimizer = torch.optim.SGD(groups, momentum=0.9)
        _, norm = optimizer_step(runtime, learns, optimizer, [data()], 3, replace(SETTINGS, clip_norm=1e-2))
        return norm.item(), optimizer

    whole, _ = norm_and_optimizer(deepcopy(model), 0.1)
    norm, optimizer = norm_and_optimizer(model, 0.0)
    expected, _ = norm_and_optimizer(fixed, 0.0)
    assert norm == pytest.approx(expected) and norm < 0.5 * whole
    assert torch.allclose(model[3].weight, fixed[3].weight, atol=1e-7)
    assert norm > 1e-2
    for part in (body, model[3]):
        remembered = [optimizer.state[parameter]["momentum_buffer"] for parameter in part.parameters()]
        assert torch.nn.utils.get_total_norm(remembered).item() == pytest.approx(1e-2, rel=1e-3)


def test_dropout_follows_from_the_step_alone(runtime) -> None:
    first, *_ = train_once(runtime, [data()], dropout=0.5)
    torch.rand(17)  # whatever else drew random numbers in between
    second, *_ = train_once(runtime, [data()], dropout=0.5)
    assert torch.equal(first, second)
    next_step, *_ = train_once(runtime, [data()], dropout=0.5, step=4)
    other_seed, *_ = train_once(runtime, [data()], replace(SETTINGS, seed=1), dropout=0.5)
    assert not torch.equal(first, next_step) and not torch.equal(first, other_seed)


def test_each_process_drops_other_units(runtime) -> None:
    """Processes have other objects of a step; with the same draws they would drop the same units of each."""
    weights = []
    for rank in (0, 1):
        accelerator = SimpleNamespace(
            process_index=rank, num_processes=1, backward=Tensor.backward, unscale_gradients=lambda: None
        )
        process = SimpleNamespace(
            accelerator=accelerator, device=runtime.device, to_device=runtime.to_device, autocast=runtime.autocast
        )
        weights.append(train_once(process, [data()], dropout=0.5)[0])
    assert not torch.equal(*weights)


def test_gradients_of_a_step_are_gone_in_the_next(runtime) -> None:
    torch.manual_seed(0)
    model = Small()
    by_hand = deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    batch = data()
    for step in range(3):
        optimizer_step(runtime, model, optimizer, cut(batch, 4), step, SETTINGS)
        cells = nn.functional.binary_cross_entropy_with_logits(by_hand(batch.image), batch.target, reduction="none")
        gradients = torch.autograd.grad(cells[batch.known].mean(), list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter.sub_(0.5 * gradient)
    assert torch.allclose(model.layers[2].weight, by_hand.layers[2].weight, atol=1e-6)


def test_a_batch_without_any_known_label_changes_nothing(runtime) -> None:
    batch = data()
    batch.known[:] = False
    batch.step_known = 0
    torch.manual_seed(0)
    before = Small().layers[2].weight.detach()
    weight, loss, _ = train_once(runtime, [batch])
    assert torch.equal(weight, before) and loss == 0.0


class NoReading(TorchDispatchMode):
    """Refuses to turn a tensor into a Python number, for which the host would wait for a GPU."""

    def __init__(self, allowed: torch.Tensor) -> None:
        super().__init__()
        self.allowed = allowed

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default and args[0] is not self.allowed:
            raise AssertionError("a value was read")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("unknown", ["mask", "negative"])
def test_no_value_is_read_in_a_step(runtime, clip_norm: float, unknown: str) -> None:
    everything = Augmentation(flip=0.5, rotate=10, erase=0.5, mixup=0.2, cutmix=1, swaps=(1, 0, 2, 3, 4))
    settings = replace(
        SETTINGS, augmentation=everything, clip_norm=clip_norm, objective=objective(unknown), channels_last=True
    )
    model = Small()
    average, window = MovingAverage(model, 0.9), Window(runtime)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batches = cut(data(), 4)
    with NoReading(allowed=average.n_averaged):  # which stays on the CPU
        for step in range(3):
            window.add(*optimizer_step(runtime, model, optimizer, batches, step, settings))
            average.update_parameters(model)
    assert window.close(8)["loss"] > 0
    with pytest.raises(AssertionError, match="was read"), NoReading(average.n_averaged):
        float(torch.ones(()))


def test_a_share_of_categories_is_withheld_by_sample_and_epoch_alone() -> None:
    told = TrainingCategories(np.arange(1, 2001), seed=3, withheld=0.25)
    whole = replace(data(), index=torch.arange(2000))
    codes = told.of_batch(whole)
    kept = codes > 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.04)
    assert torch.equal(codes[kept], torch.arange(1, 2001)[kept])
    some = torch.tensor([1900, 7, 7, 250])
    assert torch.equal(told.of_batch(replace(whole, index=some)), codes[some])
    assert not torch.equal(told.of_batch(replace(whole, epoch=1)), codes)
    again = told.of_batch(replace(whole, repeat=torch.tensor([0, 1]).repeat(1000)))
    assert torch.equal(again[::2], codes[::2]) and not torch.equal(again[1::2], codes[1::2])
    assert (TrainingCategories(np.arange(1, 2001), 3, 0.0).of_batch(whole) > 0).all()

"""The losses, against plain loops over cells, torch's and torchvision's own, and finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from attrtrain.config.schema import LossConfig
from attrtrain.losses import AttributeLoss, Cells, positive_weights

UNKNOWNS = ("mask", "negative", "selective", "hill", "splc")
SETTINGS = [
    LossConfig(),
    LossConfig(smoothing=0.2),
    LossConfig(name="focal", gamma=2.0),
    LossConfig(name="focal", gamma=0.5, smoothing=0.1),
    LossConfig(name="asl"),
    LossConfig(name="asl", gamma_positive=1.0, gamma_negative=2.5, clip=0.2),
    LossConfig(name="asl", gamma_positive=0.0, gamma_negative=0.0, clip=0.0),
]
WEIGHT = torch.tensor([1.0, 3.0, 0.25, 1.0, 2.0], dtype=torch.float64)


def cells(rows: int = 7, seed: int = 0, epoch: int = 0) -> tuple[Tensor, Cells, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    known = torch.rand(rows, 5, generator=generator) < 0.4
    shares = torch.rand(rows, 5, generator=generator, dtype=torch.float64)
    shares[::2] = shares[::2].round()  # people agree on some
    rates = torch.rand(rows, 5, generator=generator, dtype=torch.float64)
    rates[:, 1] = 0.3  # as high as `selective` still takes for rare here
    return logits, Cells(torch.where(known, shares, 0.0), known, epoch, int(known.sum()), rates), rates


def cost(settings: LossConfig, weight: float, x: float, t: float, focus_at: float | None = None) -> float:
    """One cell by the formulas; `focus_at` is the logit at which what ASL holds constant is taken."""
    p, f = (1 / (1 + math.exp(-at)) for at in (x, x if focus_at is None else focus_at))
    if settings.name == "bce":
        positive, negative = -math.log(p), -math.log(1 - p)
    elif settings.name == "focal":
        positive = -((1 - p) ** settings.gamma) * math.log(p)
        negative = -(p**settings.gamma) * math.log(1 - p)
    else:
        shifted = max(p - settings.clip, 0.0)
        positive = -((1 - f) ** settings.gamma_positive) * math.log(p)
        negative = -(max(f - settings.clip, 0.0) ** settings.gamma_negative) * math.log(1 - shifted)
    return t * weight * positive + (1 - t) * negative


def unknown_cost(
    settings: LossConfig, unknown: str, weight: float, x: float, rate: float, epoch: int, focus_at: float | None
) -> float:
    p = 1 / (1 + math.exp(-x))
    if unknown == "negative":
        return cost(settings, weight, x, settings.smoothing / 2, focus_at)
    if unknown == "selective":
        return cost(settings, weight, x, rate, focus_at) if rate <= 0.3 else 0.0
    if unknown == "hill":
        return (1.5 - p) * p * p
    if unknown == "splc":
        return cost(settings, weight, x, 1.0 if epoch >= 1 and p > 0.6 else 0.0, focus_at)
    return 0.0


def by_hand(
    settings: LossConfig, unknown: str, weight: Tensor, logits: Tensor, given: Cells, rates: Tensor, focus: Tensor
) -> float:
    total = 0.0
    for row in range(len(logits)):
        for column in range(logits.shape[1]):
            x, w, f = logits[row, column].item(), weight[column].item(), focus[row, column].item()
            if given.known[row, column]:
                t = given.target[row, column].item()
                total += cost(settings, w, x, t * (1 - settings.smoothing) + settings.smoothing / 2, f)
            else:
                total += unknown_cost(settings, unknown, w, x, rates[row, column].item(), given.epoch, f)
    return total / (given.step_known if unknown == "mask" else 11 * logits.shape[1])


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("unknown", UNKNOWNS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_value_and_gradient_are_those_of_a_plain_loop(settings: LossConfig, unknown: str, epoch: int) -> None:
    logits, given, rates = cells(epoch=epoch)
    logits.requires_grad_()
    loss = AttributeLoss(settings, unknown, 0.3, 11, WEIGHT)(logits, given)
    loss.backward()
    values = logits.detach()

    def reference(changed: Tensor) -> float:
        return by_hand(settings, unknown, WEIGHT, changed, given, rates, values)

    assert loss.item() == pytest.approx(reference(values), rel=1e-5)
    step = 1e-6
    for row, column in [(row, column) for row in range(7) for column in range(5)]:
        there, back = values.clone(), values.clone()
        there[row, column] += step
        back[row, column] -= step
        slope = (reference(there) - reference(back)) / (2 * step)
        assert logits.grad[row, column].item() == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_asl_stays_finite_where_a_probability_rounds_to_one_and_its_clip_is_lost_in_it() -> None:
    logits = torch.tensor([[5.0, 30.0, 200.0]], requires_grad=True)
    absent = Cells(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), 0, 3)
    for clip in (1e-9, 1e-6, 0.05):
        settings = LossConfig(name="asl", gamma_negative=0.0, clip=clip)
        loss = AttributeLoss(settings, "mask", 1.0, 1)(logits, absent)
        exact = [-math.log(1 / (1 + math.exp(x)) + clip) for x in logits[0].tolist()]
        assert loss.item() == pytest.approx(sum(exact) / 3, rel=1e-6)
        loss.backward()
        assert logits.grad is not None and logits.grad.isfinite().all()


def test_bce_is_torchs_with_its_positive_weight_and_focal_is_torchvisions() -> None:
    logits, given, _ = cells(rows=40)
    logits, target = logits.float(), given.target.float()
    everything = Cells(target, torch.ones_like(given.known), 0, target.numel())
    weighted = AttributeLoss(LossConfig(), "mask", positive_weight=WEIGHT.float())(logits, everything)
    expected = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=WEIGHT.float())
    assert weighted.item() == pytest.approx(expected.item(), rel=1e-6)
    focal = AttributeLoss(LossConfig(name="focal", gamma=2.0), "mask")(
        logits, Cells(target.round(), everything.known, 0, target.numel())
    )
    peer = sigmoid_focal_loss(logits, target.round(), alpha=-1, gamma=2.0, reduction="mean")
    assert focal.item() == pytest.approx(peer.item(), rel=1e-5)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_unknown_cells_give_neither_loss_nor_gradient_even_from_infinite_logits(settings: LossConfig) -> None:
    logits = torch.tensor([[float("inf"), 2.0], [float("-inf"), -1.0]], requires_grad=True)
    given = Cells(torch.zeros(2, 2), torch.tensor([[False, True], [False, True]]), 0, 2)
    loss = AttributeLoss(settings)(logits, given)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None
    assert logits.grad[:, 0].tolist() == [0.0, 0.0]
    assert (logits.grad[:, 1] > 0).any()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("unknown", UNKNOWNS)
def test_logits_of_any_size_give_finite_losses_and_gradients(settings: LossConfig, unknown: str) -> None:
    logits = torch.tensor([[-300.0, -40.0, 0.0, 40.0, 300.0]] * 4, requires_grad=True)
    known = torch.tensor([[True] * 5, [True] * 5, [False] * 5, [False] * 5])
    target = torch.tensor([[1.0] * 5, [0.0] * 5, [0.0] * 5, [0.0] * 5])
    loss = AttributeLoss(settings, unknown, 1.0, 4, WEIGHT.float())(
        logits, Cells(target, known, 3, 10, torch.full((4, 5), 0.1))
    )
    loss.backward()
    assert math.isfinite(loss.item()) and logits.grad.isfinite().all()


@pytest.mark.parametrize("unknown", UNKNOWNS)
def test_parts_of_a_step_add_up_to_the_whole(unknown: str) -> None:
    logits, given, rates = cells(rows=8, epoch=1)
    loss = AttributeLoss(LossConfig(name="asl"), unknown, 0.3, 8)
    parts = [
        loss(
            logits[i : i + 2],
            Cells(given.target[i : i + 2], given.known[i : i + 2], 1, given.step_known, rates[i : i + 2]),
        )
        for i in range(0, 8, 2)
    ]
    assert torch.allclose(loss(logits, given), torch.stack(parts).sum())


@pytest.mark.parametrize("unknown", UNKNOWNS)
def test_an_object_of_weight_two_counts_as_two(unknown: str) -> None:
    logits, given, _ = cells(rows=3)
    loss = AttributeLoss(LossConfig(name="focal"), unknown, 0.3, 11)
    weighted = loss(logits, replace(given, weight=torch.tensor([[2.0], [0.0], [1.0]])))
    rows = torch.tensor([0, 0, 2])
    assert weighted.item() == pytest.approx(
        loss(
            logits[rows],
            Cells(given.target[rows], given.known[rows], 0, given.step_known, given.rates[rows]),
        ).item()
    )


def test_half_precision_logits_are_summed_in_float32() -> None:
    given = Cells(torch.zeros(4, 4), torch.ones(4, 4, dtype=torch.bool), 0, 16)
    loss = AttributeLoss(LossConfig())(torch.zeros(4, 4, dtype=torch.bfloat16), given)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_positive_weights_balance_an_attribute_within_their_bound() -> None:
    positives, negatives = torch.tensor([10, 90, 1, 99, 0, 7]), torch.tensor([90, 10, 99, 1, 50, 0])
    found = positive_weights(positives, negatives, 5.0)
    assert found.tolist() == pytest.approx([5.0, 0.2, 5.0, 0.2, 1.0, 1.0])
    found = positive_weights(positives, negatives, 10.0)
    assert found.tolist() == pytest.approx([9.0, 1 / 9, 10.0, 0.1, 1.0, 1.0])

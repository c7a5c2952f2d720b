"""Optimizer groups, learning rates and weight averages, against torch's own."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from attrtrain.config.schema import OptimConfig
from attrtrain.optim import MovingAverage, build_optimizer, keeps_state, learning_rate


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_norms_and_biases_are_not_decayed_and_nothing_is_forgotten(name: str, kind: type) -> None:
    model = network()
    optimizer = build_optimizer(model, OptimConfig(name=name, weight_decay=0.3))
    assert isinstance(optimizer, kind)
    decay = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for parameter_name, parameter in model.named_parameters():
        expected = 0.3 if parameter_name in ("0.weight", "3.weight") else 0.0
        assert decay[id(parameter)] == expected, parameter_name


@pytest.mark.parametrize(("name", "momentum"), [("adamw", 0.0), ("adam", 0.9), ("sgd", 0.6), ("sgd", 0.0)])
def test_steps_are_those_of_torchs_plain_optimizer_which_remembers_as_much(name: str, momentum: float) -> None:
    """Adam takes weight decay for a part of the gradient, AdamW does not."""
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.3, momentum=momentum)
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    theirs = copy.deepcopy(ours)
    weights, others = (
        [one for one in theirs.parameters() if (one.ndim > 1) == is_weight] for is_weight in (True, False)
    )
    groups = [{"params": weights, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    plain = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.01, foreach=False),
        "adam": lambda: torch.optim.Adam(groups, lr=0.01, foreach=False),
        "sgd": lambda: torch.optim.SGD(groups, lr=0.01, momentum=momentum, foreach=False),
    }[name]()
    optimizer = build_optimizer(ours, config)
    inputs = torch.rand(8, 6)
    for _ in range(4):
        for model, steps in ((ours, optimizer), (theirs, plain)):
            steps.zero_grad()
            model(inputs).square().sum().backward()
            steps.step()
    for own, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(own, expected, rtol=1e-5, atol=1e-7)
    remembered = [value for memory in plain.state.values() for value in memory.values() if value is not None]
    assert keeps_state(config) == bool(remembered)


def reference_rates(scheduler_of, total: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("total", [10, 37, 200])
def test_one_cycle_is_torchs(total: int) -> None:
    config = OptimConfig(lr=0.2, schedule="one_cycle")
    ours = [learning_rate(step, total, 5, config) for step in range(total)]
    theirs = reference_rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.2, total_steps=total + 1, cycle_momentum=False
        ),
        total,
    )
    # torch counts one more step than are taken; the same curve over `total` steps is compared at its own length
    exact = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2), 0.2, total_steps=total, cycle_momentum=False
    )
    assert ours[0] == pytest.approx(exact.get_last_lr()[0])
    assert ours[0] == pytest.approx(theirs[0])
    for step in range(1, total):
        exact.optimizer.step()
        exact.step()
        assert ours[step] == pytest.approx(exact.get_last_lr()[0]), step


def test_cosine_and_step_are_torchs() -> None:
    total, steps_per_epoch = 60, 4
    cosine = [
        learning_rate(step, total, steps_per_epoch, OptimConfig(lr=0.2, schedule="cosine")) for step in range(total)
    ]
    assert cosine == pytest.approx(
        reference_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, total), total)
    )
    halving = [
        learning_rate(step, total, steps_per_epoch, OptimConfig(lr=0.2, schedule="step", halve_every=3))
        for step in range(total)
    ]
    assert halving == pytest.approx(
        reference_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, 3 * steps_per_epoch, 0.5), total)
    )


def test_warm_up_rises_in_a_line_and_then_the_schedule_begins() -> None:
    config = OptimConfig(lr=1.0, schedule="constant", warmup_epochs=2.0)
    rates = [learning_rate(step, 100, 5, config) for step in range(14)]
    steps = [later - earlier for earlier, later in pairwise(rates[:11])]
    assert rates[0] > 0 and steps == pytest.approx([steps[0]] * 10) and rates[10:] == [1.0] * 4


def test_a_cosine_after_warm_up_spans_the_steps_that_are_left() -> None:
    total, warmup = 60, 8
    config = OptimConfig(lr=0.2, schedule="cosine", warmup_epochs=2.0)
    rates = [learning_rate(step, total, warmup // 2, config) for step in range(total)]
    assert max(rates[:warmup]) < 0.2
    assert rates[warmup:] == pytest.approx(
        reference_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, total - warmup), total - warmup)
    )


def test_rate_is_a_pure_function_of_the_step() -> None:
    config = replace(OptimConfig(), schedule="cosine", warmup_epochs=1.0)
    forwards = [learning_rate(step, 50, 5, config) for step in range(50)]
    backwards = [learning_rate(step, 50, 5, config) for step in reversed(range(50))]
    assert forwards == backwards[::-1]


def test_average_follows_the_warmed_up_decay_and_copies_counters() -> None:
    model = network()
    average = MovingAverage(model, 0.9)
    weight = lambda module: module[0].weight.detach().clone()  # noqa: E731
    expected = weight(model)
    for count in range(30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
        model[1].num_batches_tracked += 1
        average.update_parameters(model)
        if count == 0:  # the first update copies
            expected = weight(model)
        else:
            decay = min(0.9, (1 + count) / (10 + count))
            expected = decay * expected + (1 - decay) * weight(model)
    assert torch.allclose(average.module[0].weight, expected, atol=1e-5)
    assert average.module[1].num_batches_tracked.item() == 30


def test_average_state_round_trips() -> None:
    model = network()
    average = MovingAverage(model, 0.5)
    average.update_parameters(model)
    other = MovingAverage(copy.deepcopy(model), 0.5)
    other.load_state_dict(average.state_dict())
    assert int(other.n_averaged) == 1


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_an_overflow_in_the_first_step_of_fp16_costs_that_step_alone(name: str) -> None:
    """torch's fused SGD would go on with momentum that nobody wrote."""
    losses = []
    for overflows in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))
        optimizer, scaler = build_optimizer(model, OptimConfig(name=name, lr=0.01)), torch.amp.GradScaler("cpu")
        images = torch.randn(32, 64)
        for step in range(4 + overflows):
            junk = [torch.full((64, 64), 1e6) for _ in range(20)]
            del junk  # memory that is used again holds large numbers
            loss = model(images).square().mean()
            scaler.scale(loss).backward()
            if overflows and step == 0:
                model[0].weight.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        losses.append(model(images).square().mean().item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)

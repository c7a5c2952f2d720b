"""Optimizer, learning rate and weight averaging."""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from attrtrain.config.schema import OptimConfig


def build_optimizer(
    model: nn.Module,
    config: OptimConfig,
    layers: Mapping[str, int] | None = None,
    undecayed: Collection[str] = (),
) -> Optimizer:
    """The configured optimizer over a model's parameters that learn, without weight decay on biases and normalisation
    layers (all that is one-dimensional).

    Under `optim.layer_decay` d a parameter of layer group l of L has d ** (L - 1 - l) of the rate (Clark et al.,
    "ELECTRA", 2020; Bao et al., "BEiT", 2021).

    Args:
        layers: each parameter's layer group by name, the head's the largest; None: all are one.
        undecayed: names of more parameters without weight decay.
    """
    last = max(layers.values()) if layers else 0
    found: dict[tuple[float, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = config.layer_decay ** (last - layers[name]) if layers else 1.0
            decay = 0.0 if parameter.ndim <= 1 or name in undecayed else config.weight_decay
            found.setdefault((scale, name.startswith("head."), decay), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale, "is_head": is_head}
        for (scale, is_head, decay), parameters in found.items()
    ]
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=config.lr, fused=True)
        case "sgd":
            # Not fused: where fp16 overflows in the first step, torch's fused SGD leaves its momentum as uninitialised
            # memory; and it knows no sharded parameters.
            return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def keeps_state(config: OptimConfig) -> bool:
    """Whether the optimizer remembers anything from step to step."""
    return config.name != "sgd" or config.momentum > 0


def learning_rate(step: int, total_steps: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """The learning rate of optimizer step `step`, counted from 0: a pure function, so there is no scheduler state to
    lose.

    one_cycle is Smith & Topin's ("Super-convergence", 2018) with torch's defaults: from lr / 25 up a cosine for 30 % of
    the steps, then down to lr / 250,000; momentum stays as it is.
    """
    if config.schedule == "one_cycle":
        return config.lr * _one_cycle(step, total_steps)
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    match config.schedule:
        case "constant":
            return config.lr
        case "step":
            return config.lr * 0.5 ** (step // steps_per_epoch // config.halve_every)
        case "cosine":
            return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total_steps - warmup, 1)))


def _one_cycle(step: int, total_steps: int) -> float:
    start, end = 1 / 25, 1 / 25 / 1e4
    top = 0.3 * total_steps - 1
    if step <= top:
        return _cosine(start, 1.0, step / top)
    return _cosine(1.0, end, (step - top) / max(total_steps - 1 - top, 1))


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * share))


def trains_head_alone(step: int, steps_per_epoch: int, config: OptimConfig) -> bool:
    """Whether the backbone's rate is 0 at a step, counted from 0: a pure function, as the rate itself is."""
    return step < config.head_epochs * steps_per_epoch


def set_learning_rate(optimizer: Optimizer, rate: float, head_alone: bool = False) -> None:
    """Sets the rate of every parameter group, each by its own scale.

    Args:
        rate: of the head.
        head_alone: whether all but the head have a rate of 0.
    """
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if head_alone and not group["is_head"] else rate * group["lr_scale"]


def parameters_at_rest(optimizer: Optimizer) -> list[nn.Parameter]:
    """Parameters whose rate is 0, but of which the optimizer goes on to remember gradients."""
    return [parameter for group in optimizer.param_groups if group["lr"] == 0 for parameter in group["params"]]


class MovingAverage(AveragedModel):
    """An exponential moving average of weights and buffers whose decay warms up as (1 + n) / (10 + n), so that short
    runs are not held back by their start.

    torch's own `update_parameters` copies its counter to the device and reads it back in every step, which makes the
    host wait for a GPU; here the counter never leaves the CPU. The state dict is torch's.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Takes in the model's weights and buffers; the first time it copies them."""
        count = int(self.n_averaged)
        kept = min(self._decay, (1 + count) / (10 + count)) if count else 0.0
        averages, currents = _tensors(self.module), _tensors(model)
        pairs = list(zip(averages, currents, strict=True))
        moving = [pair for pair in pairs if kept and pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not kept or not pair[0].is_floating_point()]  # counters are not averaged
        if moving:
            torch._foreach_lerp_([average for average, _ in moving], [current for _, current in moving], 1 - kept)
        if copied:
            torch._foreach_copy_([average for average, _ in copied], [current for _, current in copied])
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]

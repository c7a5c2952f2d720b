"""What a run may be started with: the micro-batch that fits and is fast, and the learning rate that a few steps
suggest.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm

from attrtrain.data.loader import Batch
from attrtrain.engine.evaluate import BAR_SECONDS
from attrtrain.engine.state import Learner
from attrtrain.engine.step import StepSettings, optimizer_step
from attrtrain.errors import ConfigError, lacks_memory
from attrtrain.optim import set_learning_rate
from attrtrain.runtime import Runtime

_TIMED_STEPS = 2
_LEAST_SECONDS = 1.0  # else more steps are timed: a GPU takes so long to get up to its clock
_AS_FAST = 0.95  # of the fastest: then the larger micro-batch is taken
_SMOOTHING = 0.9
_DIVERGED = 4.0  # times the lowest loss
_SIZES = 6


@dataclass(frozen=True)
class MicroBatchFound:
    """Micro-batches that were tried.

    Attributes:
        chosen: the largest that is nearly as fast as the fastest.
        objects_per_second: of each size, the largest first; None where it did not fit into memory.
    """

    chosen: int
    objects_per_second: dict[int, float | None]


@dataclass(frozen=True)
class RateFound:
    """A range test (Smith, "Cyclical learning rates for training neural networks", 2017, arXiv 1506.01186).

    Attributes:
        chosen: a tenth of the rate at which the smoothed loss was lowest, the rule that fastai calls `minimum`.
        rates, losses: (K,) each; losses are smoothed.
    """

    chosen: float
    rates: list[float]
    losses: list[float]


def find_micro_batch(
    runtime: Runtime,
    learner: Learner,
    global_batch: int,
    batches: Callable[[int], Iterator[Batch]],
    settings: StepSettings,
    on_speed: Callable[[int, float | None], object] = lambda size, speed: None,
) -> MicroBatchFound:
    """Makes steps of a global batch in micro-batches of all of it, a half, a quarter … and takes the time.

    Args:
        runtime: one process.
        learner: is trained on the way.
        global_batch: objects a step.
        batches: the micro-batches of a size, one global batch after the other.
        settings: of steps.
        on_speed: called after each size with it and its objects a second, None where it does not fit into memory.

    Raises:
        ConfigError: not even the smallest one fits into memory.
    """
    halves = [global_batch >> times for times in range(_SIZES) if global_batch % (1 << times) == 0]
    sizes = [size for size in halves if size > 1 or global_batch == 1]  # one object has no batch statistics
    found: dict[int, float | None] = {}
    for size in sizes:
        found[size] = _objects_per_second(runtime, learner, global_batch, size, batches, settings)
        on_speed(size, found[size])
    fitting = {size: speed for size, speed in found.items() if speed is not None}
    if not fitting:
        raise ConfigError(
            f"train.micro_batch: not even {sizes[-1]} objects fit into memory at once; lower data.image_px, or choose a smaller model.backbone"
        )
    chosen = max(size for size, speed in fitting.items() if speed >= _AS_FAST * max(fitting.values()))
    return MicroBatchFound(chosen, found)


def _objects_per_second(
    runtime: Runtime,
    learner: Learner,
    global_batch: int,
    size: int,
    batches: Callable[[int], Iterator[Batch]],
    settings: StepSettings,
) -> float | None:
    micro_batches = batches(size)  # read before, so that reading is not timed
    ready = [list(islice(micro_batches, global_batch // size)) for _ in range(1 + _TIMED_STEPS)]

    def make(step: int) -> None:
        own = ready[step % len(ready)]
        optimizer_step(runtime, learner.wrapped, learner.optimizer, own, step, settings)
        _wait_for(runtime)

    try:
        make(0)  # which also allocates
        begun, steps, seconds = time.monotonic(), 0, 0.0
        while steps < _TIMED_STEPS or seconds < _LEAST_SECONDS:
            steps += 1
            make(steps)
            seconds = time.monotonic() - begun
    except Exception as error:  # each kind of device lacks memory in a way of its own
        if not lacks_memory(error):
            raise
    else:
        return steps * global_batch / seconds
    # Not in the `except`: the error's frames hold what the step had come to, so that nothing would be given back.
    learner.optimizer.zero_grad(set_to_none=True)
    clear_device_cache(garbage_collection=True)
    return None


def _wait_for(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)


def find_learning_rate(
    runtime: Runtime,
    learner: Learner,
    batches: Iterator[list[Batch]],
    settings: StepSettings,
    low: float,
    high: float,
    steps: int,
) -> RateFound:
    """Trains with a rate that rises from `low` to `high`, by the same factor in every step, until the loss goes through
    the roof.

    Args:
        runtime: one process.
        learner: is trained on the way, and worth nothing afterwards.
        batches: the micro-batches of each step.
        settings: of steps.
        low, high: rates.
        steps: how many to take at most.

    Raises:
        ConfigError: the loss was lowest at one end of the range.
    """
    rates: list[float] = []
    losses: list[float] = []
    mean, diverged = 0.0, False
    learner.wrapped.train()
    for step in tqdm(
        range(steps), desc="rising rates", unit="step", leave=False, dynamic_ncols=True, mininterval=BAR_SECONDS
    ):
        rate = low * (high / low) ** (step / (steps - 1))
        set_learning_rate(learner.optimizer, rate)
        loss, _ = optimizer_step(runtime, learner.wrapped, learner.optimizer, next(batches), step, settings)
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss.item()
        smoothed = mean / (1 - _SMOOTHING ** (step + 1))
        if diverged := not math.isfinite(smoothed) or (len(losses) > 0 and smoothed > _DIVERGED * min(losses)):
            break
        rates.append(rate)
        losses.append(smoothed)
    return RateFound(choose_rate(rates, losses, diverged), rates, losses)


def choose_rate(rates: list[float], losses: list[float], diverged: bool) -> float:
    """A tenth of the rate (K,) at which the smoothed loss (K,) is lowest, rounded to two digits.

    Args:
        rates: rising.
        losses: one a rate.
        diverged: whether the loss went through the roof after the last one.

    Raises:
        ConfigError: the loss only rose, or was still falling at the end, so the range does not hold what was looked
            for.
    """
    lowest = min(range(len(losses)), key=losses.__getitem__, default=0)
    if lowest == 0:
        raise ConfigError("--from: the loss only rose from the lowest rate on; begin lower")
    if lowest == len(losses) - 1 and not diverged:
        raise ConfigError(f"--to: the loss was still falling at {rates[-1]:g}; go higher, or take more --steps")
    return float(f"{rates[lowest] / 10:.2g}")

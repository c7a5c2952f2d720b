"""The bare step, and attrtrain's whole trainer."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch

from attrtrain.allocator import keep_freed_memory
from attrtrain.config.load import load_config
from attrtrain.config.schema import TrainConfig
from attrtrain.cores import core_count
from attrtrain.engine.compiling import compile_in_place
from attrtrain.models.network import build_network
from attrtrain.optim import build_optimizer
from attrtrain.runtime import autocast, resolve_precision
from tools.bench.loader import OURS, Spec, open_batches


class _Reached(BaseException):
    """All steps are made; no handler of errors is to take it for one."""


@dataclass
class StepClock:
    """Counts steps, and tells images per second from the end of the warm-up to the last one."""

    task: dict[str, Any]
    made: int = 0
    begun: float = 0.0
    seconds: float = 0.0

    def tick(self) -> bool:
        """Counts a step; returns whether it was the last. What a trainer clears up after that is no part of a step."""
        self.made += 1
        if self.made == self.task["warm_up"]:
            self._wait()
            self.begun = time.perf_counter()
        is_last = self.made == int(self.task["warm_up"]) + int(self.task["steps"])
        if is_last:
            self._wait()
            self.seconds = time.perf_counter() - self.begun
        return is_last

    def outcome(self, computed_in: str | None = None) -> dict[str, Any]:
        """To be called once the last step is made; `computed_in` where it is not attrtrain's own choice."""
        gpu = torch.cuda.get_device_name() if self.task["device"] == "cuda" else None
        return {
            "value": self.task["steps"] * self.task["spec"]["batch"] / self.seconds,
            "gpu": gpu,
            "precision": computed_in or precision(self.task["device"]),
        }

    def _wait(self) -> None:
        if self.task["device"] == "cuda":
            torch.cuda.synchronize()


def precision(device: str) -> Literal["no", "fp16", "bf16"]:
    """What attrtrain's `auto` comes to on this machine; every contender computes in it: "no" or "bf16" (or "fp16", on
    old GPUs).
    """
    return resolve_precision("auto", device)


def bare(task: dict[str, Any]) -> dict[str, Any]:
    """The same step on one resident batch."""
    return _bare(task, precision(task["device"]))


def bare_in_full_precision(task: dict[str, Any]) -> dict[str, Any]:
    """That step in float32."""
    return _bare(task, "no")


def _bare(task: dict[str, Any], computed_in: Literal["no", "fp16", "bf16"]) -> dict[str, Any]:
    if task["device"] == "cpu":
        keep_freed_memory()  # as training does, for the limit is to be one
    config, device = _config(task, "bare"), torch.device(task["device"])
    images, _ = next(open_batches(OURS, Spec(**{**task["spec"], "workers": 0})))
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    attributes = 204
    target = torch.rand(len(images), attributes, device=device).round()
    known = torch.rand(len(images), attributes, device=device) < 0.5
    model = build_network(config.model.backbone, "linear", 0, 0.0, attributes).to(device)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config.optim)
    if task["compiled"]:
        compile_in_place(model)
    clock, context = StepClock(task), autocast(device, computed_in)
    use_all_cores()
    torch.backends.cudnn.benchmark = True  # as training has it
    while True:
        with context:
            logits = model(images)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target, weight=known.float())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if clock.tick():
            return clock.outcome(computed_in)


def ours(task: dict[str, Any]) -> dict[str, Any]:
    """Training as `python -m attrtrain.train` does it, left after the last step."""
    if task["device"] == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from attrtrain.engine import fit
    from attrtrain.engine.step import optimizer_step
    from attrtrain.wiring import run

    clock = StepClock(task)

    def timed(*arguments: Any, **named: Any) -> Any:
        outcome = optimizer_step(*arguments, **named)
        if clock.tick():
            raise _Reached
        return outcome

    try:
        with patch.object(fit, "optimizer_step", timed):
            run(_config(task, f"run-{os.getpid()}"))
    except _Reached:
        return clock.outcome()
    raise RuntimeError(f"training ended after {clock.made} steps")


def _config(task: dict[str, Any], folder: str) -> TrainConfig:
    spec = Spec(**task["spec"])
    flags = {
        "data.shards": spec.shards,
        "data.image_px": str(spec.image_px),
        "data.workers": str(spec.workers),
        "run.dir": str(Path(task["work"]) / folder),
        "model.backbone": task["backbone"],
        "model.head": "linear",
        "model.weights": "none",
        "train.global_batch": str(spec.batch),
        "track.wandb": "disabled",
        "train.compile": str(task["compiled"]).lower(),
    }
    return load_config([word for name, value in flags.items() for word in (f"--{name}", value)])


def use_all_cores() -> None:
    """Loaders leave torch one thread, which is for decoding and not for a step."""
    torch.set_num_threads(core_count())

"""Processes that start, and stop after what is measured."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tools.bench import child

_SAVED_AT = 2  # the step whose checkpoint is gone on from


class _Reached(BaseException):
    """What was waited for has happened; no handler of errors is to take it for one."""


def command(words: list[str]) -> dict[str, Any]:
    """Seconds that the interpreter takes with these arguments."""
    for _ in range(2):  # the first time warms the page cache
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
    return {"value": seconds}


def make_checkpoint(**settings: Any) -> dict[str, Any]:
    """Trains until there is a checkpoint in the run folder."""
    return _train(settings, Path(settings["run_folder"]), steps=_SAVED_AT + 1)


def first_step(**settings: Any) -> dict[str, Any]:
    """Trains a new run for one step."""
    folder = Path(settings["run_folder"]).with_suffix(".new")
    shutil.rmtree(folder, ignore_errors=True)
    return _train(settings, folder, steps=1)


def resume(**settings: Any) -> dict[str, Any]:
    """Goes on with a copy of the run for one step."""
    folder = Path(settings["run_folder"]).with_suffix(".resumed")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(settings["run_folder"], folder)
    copied = time.monotonic() - child.started
    outcome = _train(settings, folder, steps=1)
    if outcome["last_step"] != _SAVED_AT:
        raise RuntimeError(f"went on with step {outcome['last_step']} instead of {_SAVED_AT}")
    return {**outcome, "copying_the_run": copied}


def bare_step(backbone: str, image_px: int, batch: int, **_: Any) -> dict[str, Any]:
    """Imports what training imports, and makes one step."""
    import accelerate  # noqa: F401
    import torch
    import torchvision

    network = getattr(torchvision.models, backbone)(num_classes=204).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    loss = network(torch.zeros(batch, 3, image_px, image_px)).square().mean()
    loss.backward()
    optimizer.step()
    return {"value": time.monotonic() - child.started}


def _train(settings: dict[str, Any], folder: Path, steps: int) -> dict[str, Any]:
    """Trains until `steps` steps are made; `value` is seconds from the start of the process to there."""
    from attrtrain.config.load import load_config

    config = load_config(
        [
            *("--data.shards", settings["shards"], "--run.dir", str(folder), "--model.backbone", settings["backbone"]),
            *("--model.weights", "none", "--data.image_px", str(settings["image_px"]), "--track.wandb", "disabled"),
            *("--train.global_batch", str(settings["batch"]), "--checkpoint.every_steps", str(_SAVED_AT)),
        ]
    )
    from attrtrain.engine import fit
    from attrtrain.engine.step import optimizer_step
    from attrtrain.wiring import run

    numbers: list[int] = []
    try:
        with patch.object(fit, "optimizer_step", _counted(optimizer_step, numbers, steps)):
            run(config)
    except _Reached:
        return {"value": time.monotonic() - child.started, "last_step": numbers[-1]}
    raise RuntimeError(f"training ended after {len(numbers)} of {steps} steps; give more samples")


def _counted(optimizer_step: Callable[..., Any], numbers: list[int], steps: int) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        outcome = optimizer_step(*arguments, **named)
        numbers.append(arguments[4])
        if len(numbers) >= steps:
            raise _Reached
        return outcome

    return counted

"""Trainings of a few steps in the process of the tests, whose imports take longer than they do."""

import signal
from pathlib import Path

from attrtrain.signals import STOP_SIGNALS
from attrtrain.train import main

SMALL = [
    *("demo", "--model.weights", "none", "--data.image_px", "32", "--train.global_batch", "64", "--train.precision", "no"),
    *("--optim.schedule", "constant", "--track.wandb", "disabled"),
]  # fmt: skip


def train(run: Path, shards: Path, *flags: str) -> int:
    """Trains and returns the exit code; what a run takes over of the process is given back."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        return main([*SMALL, "--run.dir", str(run), "--data.shards", str(shards), *flags])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

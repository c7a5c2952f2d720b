"""Trainings of a few steps: in the process of the tests, whose imports take longer than they do, or as a command; and
what they logged.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from attrtrain.signals import STOP_SIGNALS
from attrtrain.train import main

SMALL = [
    *("demo", "--model.backbone", "timm:test_resnet", "--model.weights", "none", "--data.image_px", "32"),
    *("--train.global_batch", "64", "--train.precision", "no"),
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


def train_command(run: Path, shards: Path, *flags: str) -> list[str]:
    """The same as a command, of the demo preset and these flags alone."""
    place = ["--run.dir", str(run), "--data.shards", str(shards)]
    return [sys.executable, "-m", "attrtrain.train", "demo", *place, *flags]


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

"""The kind of device that this process computes on: one rule for training, judging and using models."""

import os
from typing import Literal

import torch


def device_type() -> Literal["cuda", "mps", "cpu"]:
    """A CUDA or Apple GPU where there is one, else the CPU; the CPU too where Accelerate is told so by
    `ACCELERATE_USE_CPU`.
    """
    # As Accelerate reads it: were its answer another, it would compute elsewhere than everybody else.
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "t", "y"):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"

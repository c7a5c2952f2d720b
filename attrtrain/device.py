"""The kind of device that this process computes on: one rule for training, judging and using models; copies to it."""

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


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU, on a device. Copies to a CUDA GPU are not waited for; those to an Apple one are: it may read
    the memory when that has been used again (https://github.com/pytorch/pytorch/issues/189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")

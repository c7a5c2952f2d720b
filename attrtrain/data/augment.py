"""Augmentation of a whole batch on its device, from parameters that are a pure function of (seed, epoch, sample)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attrtrain.data.streams import Stream
from attrtrain.keyed_random import uniform


def draw_flips(seed: int, epoch: int, index: NDArray[np.int64], share: float) -> Tensor:
    """Which samples (B,) are mirrored in this epoch: (B,) bool, each with probability `share`."""
    return torch.from_numpy(uniform(seed, epoch, index, Stream.FLIP) < share)


def apply_flips(images: Tensor, flips: Tensor) -> Tensor:
    """Mirrors the chosen images (B, 3, H, W) left to right; `flips` is (B,) bool on the same device."""
    return torch.where(flips[:, None, None, None], images.flip(-1), images)

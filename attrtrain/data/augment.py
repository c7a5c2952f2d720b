"""Augmentation of a whole batch on its device, from parameters that are a pure function of (seed, epoch, sample), or of (seed, epoch, step) where all of a step shares them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from attrtrain.config.schema import DataConfig
from attrtrain.data.loader import Batch
from attrtrain.data.streams import Stream
from attrtrain.framing import MEAN_COLOUR
from attrtrain.keyed_random import uniform

ToDevice = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """What is done to training batches. The fields are those of `DataConfig`; by default nothing is done.

    Attributes:
        seed: of the run.
        flip: share of crops that are mirrored.
        rotate: largest angle, degrees.
        scales: sides of the network's input as multiples of the crops' own, one for each step.
    """

    seed: int = 0
    flip: float = 0.0
    rotate: float = 0.0
    scales: tuple[float, ...] = ()

    @classmethod
    def of(cls, config: DataConfig, seed: int) -> "Augmentation":
        """What a configuration asks for."""
        return cls(seed=seed, flip=config.flip, rotate=config.rotate, scales=tuple(config.scales))


def augmented(batch: Batch, settings: Augmentation, step: int, to_device: ToDevice) -> Tensor:
    """The images (B, 3, S, S) uint8 that the network is trained on.

    Args:
        batch: on the device.
        settings: what is done.
        step: optimizer steps before this one, over the whole run.
        to_device: brings what was drawn to the batch's device.
    """
    index = batch.index.numpy()
    flips = draw_flips(settings.seed, batch.epoch, index, settings.flip)
    images = apply_flips(batch.image, to_device(flips))
    if settings.rotate:
        angles = draw_angles(settings.seed, batch.epoch, index, settings.rotate)
        images = rotated(images, to_device(angles), to_device(mean_colour()))
    if settings.scales:
        images = resized(images, draw_scale(settings.seed, batch.epoch, step, settings.scales))
    return images


def mean_colour() -> Tensor:
    """`MEAN_COLOUR` as (1, 3, 1, 1) float32, on the CPU."""
    return torch.tensor(MEAN_COLOUR, dtype=torch.float32).view(1, 3, 1, 1)


def draw_flips(seed: int, epoch: int, index: NDArray[np.int64], share: float) -> Tensor:
    """Which samples (B,) are mirrored in this epoch: (B,) bool, each with probability `share`."""
    return torch.from_numpy(uniform(seed, epoch, index, Stream.FLIP) < share)


def apply_flips(images: Tensor, flips: Tensor) -> Tensor:
    """Mirrors the chosen images (B, 3, H, W) left to right; `flips` is (B,) bool on the same device."""
    return torch.where(flips[:, None, None, None], images.flip(-1), images)


def draw_angles(seed: int, epoch: int, index: NDArray[np.int64], most: float) -> Tensor:
    """The angle of each sample (B,) in this epoch: (B,) float32 degrees, uniform between -`most` and `most`."""
    return torch.from_numpy((2 * uniform(seed, epoch, index, Stream.ROTATION) - 1) * most).float()


def rotated(images: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Rotates images about their centres, bilinear; what comes in from outside is `fill`.

    Args:
        images: (B, 3, H, W) uint8.
        degrees: (B,) float32, counter-clockwise.
        fill: (1, 3, 1, 1) float32, levels.
    """
    height, width = images.shape[2:]
    cosine, sine = torch.cos(degrees * (math.pi / 180)), torch.sin(degrees * (math.pi / 180))
    # From where each pixel of the result is taken, in coordinates that run from -1 to 1 along either side.
    rows = (
        [cosine, -sine * (height / width), torch.zeros_like(sine)],
        [sine * (width / height), cosine, torch.zeros_like(sine)],
    )
    places = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (B, 2, 3)
    grid = functional.affine_grid(places, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images.float() - fill, grid, "bilinear", "zeros", align_corners=False) + fill
    return moved.round_().clamp_(0, 255).to(torch.uint8)


def draw_scale(seed: int, epoch: int, step: int, scales: tuple[float, ...]) -> float:
    """The scale of a step: one of `scales`, all of them as likely. Every rank and every micro-batch of the step draws the same."""
    return scales[int(uniform(seed, epoch, step, Stream.SCALE) * len(scales))]


def resized(images: Tensor, scale: float) -> Tensor:
    """Images (B, 3, S, S) uint8 with sides of `scale` x S, rounded, bilinear with antialiasing: as views of other sizes are made when a model is applied."""
    side = max(1, round(scale * images.shape[-1]))
    if side == images.shape[-1]:
        return images
    sized: Tensor = transforms.resize(images, [side, side], antialias=True)
    return sized

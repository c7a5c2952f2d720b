"""TrivialAugment (Müller & Hutter, ICCV 2021; one operation of any strength) and RandAugment (Cubuk et al., NeurIPS
2020; two operations of strength 9 of 31) for a whole batch on its device.

The operations and their strengths are those of torchvision's `TrivialAugmentWide` and `RandAugment`, which treat one
picture, or a batch all alike: picture by picture a GPU gets dozens of small kernels for each, and waits for their
matrices and filters. Here each picture of a batch has a strength of its own, and an operation is called once a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from attrtrain.config.schema import Policy
from attrtrain.data.streams import Stream
from attrtrain.data.warp import warped
from attrtrain.keyed_random import uniform

ToDevice = Callable[[Tensor], Tensor]
STRONGEST = 30  # strengths are whole numbers up to this
_WARPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_SIGNED = (*_WARPS, "brightness", "color", "contrast", "sharpness")
OPERATIONS = (*_SIGNED, "posterize", "solarize", "auto_contrast", "equalize", "identity")


@dataclass(frozen=True)
class Space:
    """What operations do at the greatest strength.

    Attributes:
        operations: of each picture.
        strength: of each; None draws it.
        shear: slope.
        translate_px, translate: pixels, and share of the side that is added to them.
        rotate: degrees.
        enhance: how far brightness, colour, contrast and sharpness are from 1.
        posterize: bits taken away.
    """

    operations: int
    strength: int | None
    shear: float
    translate_px: float
    translate: float
    rotate: float
    enhance: float
    posterize: int

    def amounts(self, side: int) -> NDArray[np.float64]:
        """(14, 31) what each operation takes at each strength, for pictures of a side: slopes, whole pixels, degrees,
        factors less 1, bits that are left, the level from which on is solarised, or nothing.
        """
        rising = np.arange(STRONGEST + 1) / STRONGEST
        pixels = np.trunc((self.translate_px + self.translate * side) * rising)
        taken = {
            **dict.fromkeys(("shear_x", "shear_y"), self.shear * rising),
            **dict.fromkeys(("translate_x", "translate_y"), pixels),
            "rotate": self.rotate * rising,
            **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), self.enhance * rising),
            "posterize": 8 - np.rint(self.posterize * rising),
            "solarize": 255 * (1 - rising),
        }
        return np.stack([taken.get(name, np.zeros_like(rising)) for name in OPERATIONS])


SPACES: dict[Policy, Space] = {
    "trivial": Space(1, None, 0.99, 32, 0, 135, 0.99, 6),
    "randaugment": Space(2, 9, 0.3, 0, 150 / 331, 30, 0.9, 4),
}


def draw_operations(
    seed: int, epoch: int, key: NDArray[np.int64], policy: Policy, side: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The operations (R, B) of each sample (B,) in this epoch, as places in `OPERATIONS`, one after the other, and
    their amounts (R, B): all operations equally likely, and those that have a sign in either direction.
    """
    space = SPACES[policy]
    rounds = np.arange(space.operations)[:, None, None]
    drawn = uniform(seed, epoch, key[None, :, None], Stream.POLICY, rounds, np.arange(3))  # (R, B, 3)
    operation = (drawn[..., 0] * len(OPERATIONS)).astype(np.int64)
    strength = (drawn[..., 1] * (STRONGEST + 1)).astype(np.int64)
    if space.strength is not None:
        strength[:] = space.strength
    sign = np.where((operation < len(_SIGNED)) & (drawn[..., 2] < 0.5), -1, 1)
    return operation, sign * space.amounts(side)[operation, strength]


def operated(
    images: Tensor, operation: NDArray[np.int64], amount: NDArray[np.float64], fill: Tensor, to_device: ToDevice
) -> Tensor:
    """Applies an operation to each picture.

    Args:
        images: (B, 3, S, S) uint8.
        operation: (B,) places in `OPERATIONS`.
        amount: (B,) as `Space.amounts` gives them, with their signs.
        fill: (1, 3, 1, 1) float32 levels of what comes in from outside.
        to_device: brings what was drawn to the device of the pictures.
    """
    results = images.clone()
    names = np.array(OPERATIONS)[operation]
    is_warp = np.isin(names, _WARPS)
    if is_warp.any():
        matrices = _matrices(names[is_warp], amount[is_warp], images.shape[-1])
        rows = to_device(torch.from_numpy(np.flatnonzero(is_warp)))
        results.index_copy_(0, rows, warped(images.index_select(0, rows), to_device(matrices), fill))
    for name, apply in _BY_AMOUNT.items():
        if (mine := np.flatnonzero(names == name)).size:
            rows, amounts = to_device(torch.from_numpy(mine)), to_device(torch.from_numpy(amount[mine]).float())
            results.index_copy_(0, rows, apply(images.index_select(0, rows), amounts.view(-1, 1, 1, 1)))
    return results


def _matrices(names: NDArray[np.str_], amount: NDArray[np.float64], side: int) -> Tensor:
    """(B, 2, 3) float32 from where `warped` takes the pixels: shears keep the upper left corner where it is, rotations,
    counter-clockwise, the centre.
    """
    shear_x, shear_y, move_x, move_y, turn = (np.where(names == name, amount, 0.0) for name in _WARPS)
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    rows = [
        [cosine, shear_x - sine, shear_x - 2 * move_x / side],
        [shear_y + sine, cosine, shear_y - 2 * move_y / side],
    ]
    return torch.from_numpy(np.stack([np.stack(row, axis=1) for row in rows], axis=1)).float()


def _brightness(images: Tensor, more: Tensor) -> Tensor:
    return _as_levels(images.mul(1 + more))


def _color(images: Tensor, more: Tensor) -> Tensor:
    return _beyond(transforms.rgb_to_grayscale(images, 1), images, more)


def _contrast(images: Tensor, more: Tensor) -> Tensor:
    grey: Tensor = transforms.rgb_to_grayscale(images, 1)
    return _beyond(grey.float().mean(dim=(1, 2, 3), keepdim=True), images, more)


def _sharpness(images: Tensor, more: Tensor) -> Tensor:
    """Away from the picture smoothed by Pillow's filter, 1 1 1 / 1 5 1 / 1 1 1 over 13; borders stay as they are."""
    smooth = images.float()
    # Not a convolution, for which cuDNN would try its ways with every number of pictures anew.
    box = functional.avg_pool2d(smooth, 3, stride=1, divisor_override=1)
    smooth[..., 1:-1, 1:-1] = ((box + 4 * smooth[..., 1:-1, 1:-1]) / 13).round_()
    return _beyond(smooth, images, more)


def _beyond(plain: Tensor, images: Tensor, more: Tensor) -> Tensor:
    """What lies `more` beyond the pictures, on the way to them from those without colour, contrast or sharpness."""
    return _as_levels(images.mul(1 + more).sub_(more * plain))


def _as_levels(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    return images & (256 - 2 ** (8 - bits)).to(torch.uint8)


def _solarize(images: Tensor, level: Tensor) -> Tensor:
    return torch.where(images >= level, 255 - images, images)


def _auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    lowest, highest = (extreme(images, dim=(-2, -1), keepdim=True).float() for extreme in (torch.amin, torch.amax))
    scaled = (images - lowest) / ((highest - lowest).clamp(min=1) / 255)
    return torch.where(highest > lowest, _as_levels(scaled), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    result: Tensor = transforms.equalize(images)
    return result


_BY_AMOUNT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
}

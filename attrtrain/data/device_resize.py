"""Resizing a whole batch of crops of all sizes on their device, so that those who decode do nothing else.

Resizing with antialiasing is a product with a matrix from the left, for the rows, and one from the right, for the columns. Crops are padded to the largest of a
few, every one gets its own two matrices, and the products of all of them are two calls, of the kind that a GPU does best.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attrtrain.config.schema import Interpolation

_AT_ONCE = 32  # crops padded to one size; more of them would hold more memory and pad more


def resize_packed(
    pixels: Tensor, sizes: Sequence[tuple[int, int]], side: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Resizes crops that lie one behind the other.

    Args:
        pixels: (sum of 3 H W,) uint8; each crop is H x W x 3.
        sizes: B times (H, W).
        side: of the squares.
        interpolation: how they are resized.

    Returns:
        (B, 3, side, side) uint8, channels last in memory, on the device of `pixels`: torchvision's `resize(antialias=True)` within rounding.
    """
    squares = torch.empty((len(sizes), side, side, 3), dtype=torch.uint8, device=pixels.device).permute(0, 3, 1, 2)
    # Whole numbers to 2048 are exact in half precision, and its tensor cores sum in single precision.
    on_gpu = pixels.device.type == "cuda"
    dtype = torch.float16 if on_gpu else torch.float32
    lengths = torch.tensor(sizes, dtype=torch.float32)  # (B, 2)
    lengths = (lengths.pin_memory() if on_gpu else lengths).to(pixels.device, non_blocking=True)
    end = 0
    for begin in range(0, len(sizes), _AT_ONCE):
        few = sizes[begin : begin + _AT_ONCE]
        padded = torch.zeros(
            (len(few), max(h for h, _ in few), max(w for _, w in few), 3), dtype=torch.uint8, device=pixels.device
        )
        for row, (height, width) in enumerate(few):
            start, end = end, end + 3 * height * width
            padded[row, :height, :width] = pixels[start:end].view(height, width, 3)
        part = lengths[begin : begin + _AT_ONCE]
        rows = resize_weights(part[:, 0], padded.shape[1], side, interpolation).to(dtype)
        columns = resize_weights(part[:, 1], padded.shape[2], side, interpolation).to(dtype)
        planes = padded.permute(0, 3, 1, 2).to(dtype)  # (b, 3, H, W)
        wide = planes @ columns[:, None].mT
        if interpolation == "bicubic":  # which overshoots at edges; in between there are levels, as torch has them
            wide = wide.round_().clamp_(0, 255)
        resized = rows[:, None] @ wide
        squares[begin : begin + len(few)] = resized.float().round_().clamp_(0, 255).to(torch.uint8)
    return squares


def resize_weights(lengths: Tensor, padded_to: int, side: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """The matrices (B, side, padded_to) float32 that resize lines of `lengths` (B,) pixels to `side` pixels each.

    A filter, for bilinear a triangle, for bicubic Keys' with a = -1/2 ("Cubic convolution interpolation for digital image processing", 1981), that is stretched to the distance of output
    pixels where a line shrinks, and to that of input pixels where it grows; cut off at the ends of the line and scaled to a sum of 1. This is what Pillow's and torch's antialiased
    resizing compute.
    """
    length = lengths[:, None, None]
    scale = length / side
    centre = (torch.arange(side, device=lengths.device)[:, None] + 0.5) * scale  # (B, side, 1)
    pixel = torch.arange(padded_to, device=lengths.device) + 0.5
    away = (pixel - centre).abs() / scale.clamp(min=1)
    weights = (1 - away).clamp_(min=0) if interpolation == "bilinear" else _keys(away)
    weights = torch.where(pixel < length, weights, 0.0)
    return weights / weights.sum(dim=2, keepdim=True)


def _keys(away: Tensor) -> Tensor:
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return torch.where(away < 1, near, torch.where(away < 2, far, 0.0))

"""Resizing a whole batch of crops of all sizes on their device, so that those who decode do nothing else.

Resizing with antialiasing is a product with a matrix from the left, for the rows, and one from the right, for the
columns. Crops of like size are padded to the largest of a few, every one gets its own two matrices, and the products of
all of them are two calls, of the kind that a GPU does best.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attrtrain.config.schema import Interpolation
from attrtrain.device import to_device

_AT_ONCE = 32  # crops of like size that are padded to the largest; more of them would hold more memory and pad more


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
        (B, 3, side, side) uint8, channels last in memory, on the device of `pixels`: torchvision's
        `resize(antialias=True)` within rounding.
    """
    squares = torch.empty((len(sizes), side, side, 3), dtype=torch.uint8, device=pixels.device).permute(0, 3, 1, 2)
    # Whole numbers to 2048 are exact in half precision, and its tensor cores sum in single precision.
    on_gpu = pixels.device.type == "cuda"
    dtype = torch.float16 if on_gpu else torch.float32
    # By length, so that crops are padded to the size of others about as long.
    order = sorted(range(len(sizes)), key=lambda row: max(sizes[row]))
    places = torch.tensor([[row, *sizes[row]] for row in order])  # (B, 3)
    places = to_device(places.pin_memory() if on_gpu else places, pixels.device)
    crops = torch.split(pixels, [3 * height * width for height, width in sizes])
    for begin in range(0, len(sizes), _AT_ONCE):
        few = order[begin : begin + _AT_ONCE]
        highest, widest = (max(sizes[row][side_of] for row in few) for side_of in (0, 1))
        padded = torch.zeros((len(few), highest, widest, 3), dtype=torch.uint8, device=pixels.device)
        for place, row in enumerate(few):
            height, width = sizes[row]
            padded[place, :height, :width] = crops[row].view(height, width, 3)
        rows_there, heights, widths = places[begin : begin + _AT_ONCE].T
        rows = resize_weights(heights, highest, side, interpolation).to(dtype)
        columns = resize_weights(widths, widest, side, interpolation).to(dtype)
        planes = padded.permute(0, 3, 1, 2).to(dtype)  # (b, 3, H, W)
        wide = planes @ columns[:, None].mT
        if interpolation == "bicubic":  # which overshoots at edges; in between there are levels, as torch has them
            wide = wide.round_().clamp_(0, 255)
        resized = rows[:, None] @ wide
        squares[rows_there] = resized.float().round_().clamp_(0, 255).to(torch.uint8)
    return squares


def resize_weights(lengths: Tensor, padded_to: int, side: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """The matrices (B, side, padded_to) float32 that resize lines of `lengths` (B,) whole pixels to `side` pixels each.

    A filter, for bilinear a triangle, for bicubic Keys' with a = -1/2 ("Cubic convolution interpolation for digital
    image processing", 1981), that is stretched to the distance of output pixels where a line shrinks, and to that of
    input pixels where it grows; cut off at the ends of the line and scaled to a sum of 1. This is what Pillow's and
    torch's antialiased resizing compute.
    """
    length = lengths[:, None, None].float()
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

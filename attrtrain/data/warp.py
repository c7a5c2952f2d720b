"""Pictures that are turned, sheared and moved, each of a batch by a matrix of its own."""

import torch
from torch import Tensor
from torch.nn import functional


def warped(images: Tensor, places: Tensor, fill: Tensor) -> Tensor:
    """Takes each pixel from elsewhere in its picture, bilinear; what comes in from outside is `fill`.

    Args:
        images: (B, 3, H, W) uint8.
        places: (B, 2, 3) float32, by which the x and y of a pixel of the result become those in the picture; both run
            from -1 to 1 along its sides.
        fill: (1, 3, 1, 1) float32, levels.
    """
    grid = functional.affine_grid(places, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images.float() - fill, grid, "bilinear", "zeros", align_corners=False) + fill
    return moved.round_().clamp_(0, 255).to(torch.uint8)

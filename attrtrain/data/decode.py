"""JPEG bytes → a square uint8 picture: the hot path of reading. Prediction goes through the same functions, so pixels
agree.
"""

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from attrtrain.config.schema import Interpolation
from attrtrain.framing import Framing
from attrtrain.shards.crop import Crop

cv2.setNumThreads(0)  # crops are small and many; threads are for batches of them


def decode_crop(jpeg: bytes, image_px: int) -> Tensor:
    """Decodes a crop and squashes it to a square.

    Returns:
        (3, image_px, image_px) uint8 RGB.

    Raises:
        ValueError: the bytes are no JPEG.
    """
    return squashed(decode(jpeg), image_px)


def framed_crop(crop: Crop, image_px: int, framing: Framing) -> Tensor:
    """A crop that was just cut out of a photograph, as `CropDataset` gives it once it is stored: (3, image_px,
    image_px) uint8.
    """
    window = framing.windows([crop.box], [crop.size])[0]
    return squashed(framing.shown(decode(crop.jpeg), window), image_px, framing.interpolation)


def squashed(pixels: NDArray[np.uint8], image_px: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """A picture (H, W, 3) as `squash` makes it, in the shape that networks take: (3, image_px, image_px) uint8."""
    square = np.empty((image_px, image_px, 3), dtype=np.uint8)
    squash(pixels, square, interpolation)
    return torch.from_numpy(square).permute(2, 0, 1)


def decode(jpeg: bytes, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decodes a crop in its own size, (H, W, 3) RGB, bit for bit as libjpeg-turbo does by default.

    Its faster modes are not used: they save about 5 % of decoding and change colours along edges.

    Args:
        jpeg: the file.
        into: memory for the pixels, at least (3 H W,); without it, memory of its own.

    Raises:
        ValueError: the bytes are no JPEG, or the pixels do not fit.
    """
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=into)
    return pixels


def squash(pixels: NDArray[np.uint8], square: NDArray[np.uint8], interpolation: Interpolation = "bilinear") -> None:
    """Resizes (H, W, 3) into (S, S, 3), with antialiasing.

    Squashed, not cropped: no part of an object is lost. Who wants to keep the aspect ratio pads before (`Framing`).

    Where neither side shrinks there is nothing to antialias, and OpenCV's bilinear kernel gives the pixels of
    torchvision's within rounding in a fifth of the time. Most objects of COCO are such: smaller than what networks
    take. Of those that are not, many stand upright, and are higher than the square but not wider: their height is
    shrunk first, which is the cheap one, and their width enlarged in what is left.
    """
    side = len(square)
    if interpolation != "bilinear" or pixels.shape[1] > side:
        square[:] = _antialiased(pixels, (side, side), interpolation)
        return
    if pixels.shape[0] > side:
        pixels = _antialiased(pixels, (side, pixels.shape[1]), interpolation)
    # By its name OpenCV must be asked for Intel's kernel because that is "not exact". It is nearer to exact arithmetic
    # than OpenCV's own (0.52 grey levels against 0.80), in half the time. The setting is each thread's own; where there
    # is no such kernel it does nothing.
    cv2.ipp.setUseIPP_NotExact(True)
    cv2.resize(pixels, (side, side), dst=square, interpolation=cv2.INTER_LINEAR)


def _antialiased(pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation) -> NDArray[np.uint8]:
    """A picture (H, W, 3) in another size (height, width), by torch's antialiasing kernels."""
    picture = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized: NDArray[np.uint8] = (
        interpolate(picture, size, mode=interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
    )
    return resized

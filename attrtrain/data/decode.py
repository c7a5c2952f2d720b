"""JPEG bytes → a square uint8 tensor: the hot path of reading. Prediction goes through the same function, so pixels agree."""

import simplejpeg
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms


def decode_crop(jpeg: bytes, image_px: int) -> Tensor:
    """Decodes a crop and squashes it to a square.

    Squashed, not cropped or padded: no part of an object is lost, and the aspect ratio carries little about attributes.

    Returns:
        (3, image_px, image_px) uint8 RGB.

    Raises:
        ValueError: the bytes are no JPEG.
    """
    pixels = simplejpeg.decode_jpeg(jpeg, "RGB")  # (H, W, 3)
    return squash(torch.from_numpy(pixels).permute(2, 0, 1), image_px)


def squash(image: Tensor, image_px: int) -> Tensor:
    """Resizes (3, H, W) uint8 to (3, image_px, image_px) uint8, bilinear with antialiasing."""
    resized: Tensor = transforms.resize(image, [image_px, image_px], antialias=True)
    return resized

"""A photograph's pixels and a box → JPEG bytes."""

import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from attrtrain.errors import LeftOutError
from attrtrain.shards.manifest import CropSettings

Box = tuple[float, float, float, float]
_LONGEST_JPEG_SIDE = 65500  # pixels that libjpeg writes


class Crop(NamedTuple):
    """A stored crop.

    Attributes:
        jpeg: its bytes.
        size: width and height in pixels.
        box: x, y, width, height of the object inside it, in its pixels.
        source_size: width and height of the upright photograph, in pixels.
    """

    jpeg: bytes
    size: tuple[int, int]
    box: Box
    source_size: tuple[int, int]


def whole_picture(image: NDArray[np.uint8]) -> Box:
    """The box of all of a photograph, (H, W, 3)."""
    return 0.0, 0.0, float(image.shape[1]), float(image.shape[0])


def cut(image: NDArray[np.uint8], box: Box, crowd: bool, settings: CropSettings) -> Crop:
    """Cuts one object out of a photograph, (H, W, 3).

    The box is widened by the context and then cut off at the picture's border; where R-CNN (Girshick et al., CVPR 2014)
    pads with the mean colour there, nothing is invented here, and the place of the box in the crop is recorded instead.
    Fractions of pixels at the edge are kept.

    Raises:
        LeftOutError: `crowd`, `box_not_finite`, `box_empty` or `box_outside_image`.
    """
    if crowd:
        raise LeftOutError("crowd", "a crowd, not an object")
    if not all(map(math.isfinite, box)):
        raise LeftOutError("box_not_finite", f"box {box} holds no number somewhere")
    x, y, width, height = box
    if not (x + width > x and y + height > y):
        raise LeftOutError("box_empty", f"box {box} has no area")
    source_size = image_width, image_height = image.shape[1], image.shape[0]
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + width, image_width), min(y + height, image_height)
    if left >= right or top >= bottom:
        raise LeftOutError("box_outside_image", f"box {box} lies outside the picture of {image_width}x{image_height}")
    beside, above = settings.context * width, settings.context * height
    frame = (  # cut off before rounding: a box may be too huge for an integer
        math.floor(max(x - beside, 0)),
        math.floor(max(y - above, 0)),
        math.ceil(min(x + width + beside, image_width)),
        math.ceil(min(y + height + above, image_height)),
    )
    image = np.ascontiguousarray(image)
    size = whole = frame[2] - frame[0], frame[3] - frame[1]
    scale = min(1.0, settings.store_px / min(whole), _LONGEST_JPEG_SIDE / max(whole))
    if scale < 1:
        size = max(1, round(whole[0] * scale)), max(1, round(whole[1] * scale))
        crop = np.asarray(_part(image, frame).resize(size, Image.Resampling.BICUBIC))
    else:
        crop = image[frame[1] : frame[3], frame[0] : frame[2]]
    scale_x, scale_y = size[0] / whole[0], size[1] / whole[1]
    inside = (
        (left - frame[0]) * scale_x,
        (top - frame[1]) * scale_y,
        (right - left) * scale_x,
        (bottom - top) * scale_y,
    )
    jpeg = simplejpeg.encode_jpeg(crop, quality=settings.quality, colorspace="RGB", colorsubsampling="420")
    return Crop(jpeg, size, inside, source_size)


def _part(image: NDArray[np.uint8], frame: tuple[int, int, int, int]) -> Image.Image:
    """The pixels of a picture, (H, W, 3), in a frame, for Pillow, which is told where rows begin: `Image.fromarray`
    would copy them into one piece first.
    """
    left, top, right, bottom = frame
    bytes_a_row = 3 * image.shape[1]
    pixels = image.reshape(-1)[top * bytes_a_row + 3 * left :]
    return Image.frombuffer("RGB", (right - left, bottom - top), pixels, "raw", "RGB", bytes_a_row, 1)

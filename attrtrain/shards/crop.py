"""A photograph and a box → JPEG bytes."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from attrtrain.errors import AttrtrainError
from attrtrain.shards.manifest import CropSettings

Box = tuple[float, float, float, float]


class LeftOutError(AttrtrainError):
    """An object of which no crop can be made. `reason` is the key under which it is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Crop:
    """A stored crop.

    Attributes:
        jpeg: its bytes.
        size: width and height in pixels.
        box: x, y, width, height of the object inside it, in its pixels.
    """

    jpeg: bytes
    size: tuple[int, int]
    box: Box


def find_image(name: str, folders: Sequence[Path]) -> Path:
    """Finds a photograph below the first of the folders that has it, under its 2017 or its 2014 name.

    COCO renamed its files between 2014 (`COCO_val2014_000000000042.jpg`) and 2017 (`000000000042.jpg`) but not its images or annotations, so
    annotations of one year find the pictures of the other.

    Raises:
        LeftOutError: `image_missing`.
    """
    path = Path(name)
    bare = path.name.removeprefix("COCO_train2014_").removeprefix("COCO_val2014_")
    names = (
        path,
        path.with_name(bare),
        path.with_name(f"COCO_train2014_{bare}"),
        path.with_name(f"COCO_val2014_{bare}"),
    )
    for candidate in names:
        for folder in folders:
            if (found := folder / candidate).is_file():
                return found
    raise LeftOutError("image_missing", f"{name} is in none of {', '.join(map(str, folders))}")


def load_image(path: Path, declared_size: tuple[int, int] = (0, 0)) -> Image.Image:
    """Opens a photograph of any format Pillow reads as upright 8-bit RGB.

    Args:
        declared_size: width and height that the annotation gives, (0, 0) where it gives none. Boxes are meant in that frame: a picture that has this
            size only as stored, not as its EXIF orientation turns it, is left as stored.

    Raises:
        LeftOutError: `image_broken`, or `image_size_differs` when no orientation has the declared size, so boxes would cut the wrong place.
    """
    try:
        with Image.open(path) as image:
            sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            upright_size = image.size[::-1] if sideways else image.size
            if declared_size not in ((0, 0), image.size, upright_size):
                raise LeftOutError(
                    "image_size_differs",
                    f"{path} is {image.width}x{image.height}, its annotation says {declared_size[0]}x{declared_size[1]}",
                )
            as_stored = declared_size == image.size != upright_size
            return _rgb(image if as_stored else ImageOps.exif_transpose(image))
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # what Pillow raises for damaged files
        raise LeftOutError("image_broken", f"{path}: {error}") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16-bit gray; Pillow's own conversion would clip it to white
        gray = np.asarray(image, dtype=np.float64)
        scale = 257.0 if gray.max(initial=0) > 255 else 1.0
        return Image.fromarray((gray / scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def cut(image: Image.Image, box: Box, crowd: bool, settings: CropSettings) -> Crop:
    """Cuts one object out of a photograph.

    The box is widened by the context and then cut off at the picture's border; where R-CNN (Girshick et al., CVPR 2014) pads with the mean colour there, nothing is
    invented here, and the place of the box in the crop is recorded instead. Fractions of pixels at the edge are kept.

    Raises:
        LeftOutError: `crowd`, `box_not_finite`, `box_empty` or `box_outside_image`.
    """
    if crowd:
        raise LeftOutError("crowd", "a crowd, not an object")
    if not all(map(math.isfinite, box)):
        raise LeftOutError("box_not_finite", f"box {box} holds no number somewhere")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise LeftOutError("box_empty", f"box {box} has no area")
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + width, image.width), min(y + height, image.height)
    if left >= right or top >= bottom:
        raise LeftOutError("box_outside_image", f"box {box} lies outside the picture of {image.width}x{image.height}")
    frame = (
        max(math.floor(x - settings.context * width), 0),
        max(math.floor(y - settings.context * height), 0),
        min(math.ceil(x + width + settings.context * width), image.width),
        min(math.ceil(y + height + settings.context * height), image.height),
    )
    crop = image.crop(frame)
    scale = min(1.0, settings.store_px / min(crop.size))
    if scale < 1:
        crop = crop.resize((round(crop.width * scale), round(crop.height * scale)), Image.Resampling.BICUBIC)
    scale_x, scale_y = crop.width / (frame[2] - frame[0]), crop.height / (frame[3] - frame[1])
    inside = (
        (left - frame[0]) * scale_x,
        (top - frame[1]) * scale_y,
        (right - left) * scale_x,
        (bottom - top) * scale_y,
    )
    buffer = io.BytesIO()
    crop.save(buffer, "JPEG", quality=settings.quality)
    return Crop(buffer.getvalue(), crop.size, inside)

"""A photograph and a box → JPEG bytes."""

import filecmp
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from attrtrain.annotations.table import without_year
from attrtrain.errors import AttrtrainError
from attrtrain.shards.manifest import CropSettings
from attrtrain.urls import below, read_url

Box = tuple[float, float, float, float]
_JPEG_MAGIC = b"\xff\xd8\xff"
_LONGEST_JPEG_SIDE = 65500  # pixels that libjpeg writes
_WIDEST = 2**31 // 32  # pixels whose bits Pillow can count; of more, it says that memory is short


class LeftOutError(AttrtrainError):
    """An object of which no crop can be made. `reason` is the key under which it is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


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


@dataclass(frozen=True)
class FetchedImage:
    """A photograph's file from a URL."""

    url: str
    content: bytes


def find_image(name: str, folders: Sequence[Path | str]) -> Path | FetchedImage:
    """Finds a photograph below the first of the folders, paths or URLs, that has it, under its 2017 or its 2014 name.

    COCO renamed its files between 2014 (`COCO_val2014_000000000042.jpg`) and 2017 (`000000000042.jpg`) but not its
    images or annotations, so annotations of one year find the pictures of the other. Where folders on a disk hold
    different files of one name, nothing tells which is meant.

    Raises:
        LeftOutError: `image_missing`, `image_ambiguous`, or `image_outside` for a name that leads out of the folders:
            under another spelling, a photograph would be another one.
        ShardError: a URL cannot be read, for another reason than that there is no such file.
    """
    path = Path(_below(name, folders))
    if not path.name:
        raise LeftOutError("image_missing", f"'{name}' names no file")
    for candidate in _names_of(str(path)):
        for number, folder in enumerate(folders):
            if isinstance(folder, str):
                with suppress(FileNotFoundError):
                    url = below(folder, candidate)
                    return FetchedImage(url, read_url(url))
            elif _is_file(found := _in(folder, candidate)):
                _require_no_other(found, candidate, folders[number + 1 :])
                return Path(found)
    raise LeftOutError("image_missing", f"{name} is in none of {', '.join(map(str, folders))}")


def _below(name: str, folders: Sequence[Path | str]) -> str:
    """The name of a photograph as a path below a folder: as it is, but for an absolute one that lies below one of
    them.
    """
    if ".." not in name and not name.startswith("/"):
        return name
    tidy = Path(os.path.normpath(name))
    if not tidy.is_absolute() and tidy.parts[:1] != ("..",):
        return name
    for folder in folders:
        if isinstance(folder, Path) and tidy.is_relative_to(folder.absolute()):
            return str(tidy.relative_to(folder.absolute()))
    raise LeftOutError(
        "image_outside",
        f"{name} is not below {', '.join(map(str, folders))}; name photographs by their path below a folder of images",
    )


def _in(folder: Path, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118  for each photograph: two fifths of the time that Path takes


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises where a folder may not be searched or a name is too long


def _require_no_other(found: str, name: str, folders: Sequence[Path | str]) -> None:
    """Raises LeftOutError where one of the folders holds another content under that name."""
    for folder in folders:
        if isinstance(folder, str):
            continue
        other = _in(folder, name)
        with suppress(OSError):  # what cannot be read is told when it is read
            if _is_file(other) and not filecmp.cmp(found, other, shallow=False):
                raise LeftOutError(
                    "image_ambiguous",
                    f"{found} and {other} are different photographs of one name; give each a name of its own",
                )


def _names_of(name: str) -> Iterator[str]:
    yield name
    bare = without_year(name)
    folder, slash, file = bare.rpartition("/")
    for other in (bare, f"{folder}{slash}COCO_train2014_{file}", f"{folder}{slash}COCO_val2014_{file}"):
        if other != name:
            yield other


def load_image(
    source: Path | FetchedImage, declared_size: tuple[int, int] = (0, 0), formats: tuple[str, ...] | None = None
) -> NDArray[np.uint8]:
    """Reads a photograph of any format Pillow reads as upright 8-bit RGB, (H, W, 3). What is transparent becomes white,
    as a viewer shows it.

    Args:
        source: its file.
        declared_size: width and height that the annotation gives, 0 where it gives none. Boxes are meant in that frame:
            a picture that has this size only as stored, not as its EXIF orientation turns it, is left as stored.
        formats: names of the formats that it may have; None: all that Pillow reads.

    Raises:
        LeftOutError: `image_unreadable` when the file may not or cannot be read, `image_broken` when its content is
            damaged or no photograph, `image_too_large` when it is beyond Pillow's guard against decompression bombs, or
            `image_size_differs` when no orientation has the declared size, so boxes would cut the wrong place.
    """
    path = source.url if isinstance(source, FetchedImage) else source
    try:
        pixels, orientation = _as_stored(source, formats)
    except UnidentifiedImageError:
        raise LeftOutError("image_broken", f"{path}: no picture of a known format") from None
    except Image.DecompressionBombError as error:
        raise LeftOutError("image_too_large", f"{path}: {error}") from None
    except MemoryError:
        raise  # this machine's failure, not the picture's
    except OSError as error:
        reason = "image_broken" if error.errno is None else "image_unreadable"  # Pillow's own OSErrors have no errno
        raise LeftOutError(reason, f"{path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001  damaged files make Pillow's decoders raise nearly anything
        raise LeftOutError("image_broken", f"{path}: {type(error).__name__}: {error}") from None
    upright = _TO_UPRIGHT.get(orientation)
    size = pixels.shape[1], pixels.shape[0]
    turned_size = size[::-1] if upright in _SIDEWAYS else size
    if 0 not in declared_size and declared_size not in (size, turned_size):
        raise LeftOutError(
            "image_size_differs",
            f"{path} is {size[0]}x{size[1]}, its annotation says {declared_size[0]}x{declared_size[1]}",
        )
    if upright is None or declared_size == size != turned_size:
        return pixels
    return np.ascontiguousarray(upright(pixels))  # once, where crops are cut out of it again and again


_PROGRAMS = ("EPS", "WMF")  # Pillow hands these to an interpreter

# EXIF orientation → the operation on (H, W, 3) that undoes it; 1 and unknown values need none.
_TO_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: np.fliplr,
    3: lambda stored: stored[::-1, ::-1],
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
_SIDEWAYS = tuple(_TO_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))


def _as_stored(source: Path | FetchedImage, formats: tuple[str, ...] | None) -> tuple[NDArray[np.uint8], int]:
    """The pixels (H, W, 3) of a photograph as they are stored, and its EXIF orientation.

    A sound JPEG in colour or grey, as nearly all photographs are, is decoded by libjpeg-turbo itself: the pixels that
    Pillow would give, in four fifths of the time. Pillow is asked about its metadata only where there may be some that
    matter.
    """
    content = source.content if isinstance(source, FetchedImage) else _jpeg_or_path(source)
    pixels = _sound_jpeg(content) if isinstance(content, bytes) else None
    if pixels is not None and isinstance(content, bytes) and not _has_metadata(content):
        return pixels, 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata in thousands of good photographs
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=formats) as image:
            if image.format in _PROGRAMS:
                raise OSError(f"{image.format} is a drawing program, not a photograph")
            if pixels is None or image.format != "JPEG":
                if image.width > _WIDEST:
                    raise Image.DecompressionBombError(f"{image.width} pixels are more than a line may have")
                image.load()
                pixels = np.asarray(_rgb(image))
            return pixels, _orientation(image)


def _jpeg_or_path(path: Path) -> bytes | Path:
    """All of a JPEG; the path of anything else, of which Pillow reads as much as it needs."""
    with path.open("rb", buffering=0) as file:  # read in one piece: pieces would be copied together
        return file.read() if os.pread(file.fileno(), len(_JPEG_MAGIC), 0) == _JPEG_MAGIC else path


# What stands in a JPEG that has an orientation, in EXIF or XMP, or holds several pictures.
_METADATA = (b"Exif\0\0", b"http://ns.adobe.com/xap/", b"MPF\0")
_START_OF_SCAN = b"\xff\xda"


def _has_metadata(content: bytes) -> bool:
    """Whether a sound JPEG may hold metadata that matter: in the segments before its first scan (ITU-T T.81, annex B),
    or, where they are not laid out as usual, anywhere.
    """
    end = 2
    while (marker := content[end : end + 2]) != _START_OF_SCAN:
        if marker[:1] != b"\xff" or marker == b"\xff\xff":
            end = len(content)
            break
        end += 2 + int.from_bytes(content[end + 2 : end + 4])
    return any(content.find(mark, 0, end) >= 0 for mark in _METADATA)


def _sound_jpeg(content: bytes) -> NDArray[np.uint8] | None:
    """The pixels (H, W, 3) of a JPEG in colour or grey.

    None for anything else, for what is so large that Pillow has its say first, and for whatever libjpeg has a word of
    warning about: what Pillow makes of that counts.
    """
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
        if colorspace in ("CMYK", "YCCK") or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB")
    except (ValueError, RuntimeError):
        return None
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  damaged EXIF data; the pixels may be good all the same
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith(("I", "F")):  # more than 8 bits a pixel; Pillow's own conversion would clip them to white
        gray = np.asarray(image, dtype=np.float64)
        brightest = gray.max(initial=0)
        scale = 257.0 if image.mode.startswith("I;16") or brightest > 255 else 1.0
        if image.mode == "F" and brightest <= 1:
            scale = 1 / 255
        return Image.fromarray((gray / scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


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

"""The file of a photograph → its pixels, upright."""

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from attrtrain.downloads import head_of, left_instead
from attrtrain.errors import LeftOutError
from attrtrain.shards.image_lookup import FetchedImage

_JPEG_MAGIC = b"\xff\xd8\xff"
_WIDEST = 2**31 // 32  # pixels whose bits Pillow can count; of more, it says that memory is short


class _TooWideError(Image.DecompressionBombError):
    """Not too many pixels, but too many in a line."""


def load_image(
    source: Path | FetchedImage, declared_size: tuple[int, int] = (0, 0), formats: tuple[str, ...] | None = None
) -> NDArray[np.uint8]:
    """Reads a photograph of any format Pillow reads as upright 8-bit RGB, (H, W, 3). What is transparent becomes white,
    as a viewer shows it.

    Args:
        source: its file.
        declared_size: width and height that the annotation gives, 0 where it gives none. Boxes are meant in that frame:
            a picture that has this size only as stored, not as its EXIF orientation turns it, is left as stored. That
            holds for all but TIFF, which Pillow turns itself.
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
        raise LeftOutError("image_broken", f"{path}: {_what_else(source)}") from None
    except _TooWideError as error:
        raise LeftOutError("image_too_large", f"{path}: {error}") from None
    except Image.DecompressionBombError:  # whose own words speak of an attack, and not of what to do
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        told = f"more than {most:,} pixels; make it smaller, and its boxes with it, or cut it into several"
        raise LeftOutError("image_too_large", f"{path}: {told}") from None
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


def _what_else(source: Path | FetchedImage) -> str:
    """What a file is that Pillow does not know as a picture."""
    head = source.content if isinstance(source, FetchedImage) else head_of(source)
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "a HEIC picture, as phones make them, which is not read; convert it to JPEG"
    return left_instead(head) or "no picture of a known format"


_HEIC = (b"heic", b"heix", b"mif1", b"msf1")  # brands of ISO 23008-12
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
                    raise _TooWideError(f"{image.width:,} pixels are more than a line may have")
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
        gray = np.asarray(image)
        brightest = gray.max(initial=0)
        scale = 257.0 if image.mode.startswith("I;16") or brightest > 255 else 1.0
        if image.mode == "F" and brightest <= 1:
            scale = 1 / 255
        levels = np.empty(gray.shape, dtype=np.uint8)
        for row, line in enumerate(gray):  # all at once would take eight bytes a pixel, and twice
            levels[row] = (line.astype(np.float64) / scale).clip(0, 255)
        return Image.fromarray(levels).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")

"""A request's body → a picture and boxes, within limits; each thing that can be wrong has one answer."""

import asyncio
import io
import warnings
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from fastapi import Request
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from torch import Tensor

from attrtrain.errors import LeftOutError
from attrtrain.inference.predictor import Predictor
from attrtrain.serving.contracts import BoxField, Limits, RefusedError
from attrtrain.shards.crop import whole_picture
from attrtrain.shards.image_decode import load_image
from attrtrain.shards.image_lookup import FetchedImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_BOXES = TypeAdapter(list[BoxField])
_LINGER_SECONDS = 5
_FIELDS = ("boxes", "category")
_SHOWN = 5  # categories in a refusal
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin-1", b"latin1")
_JPEG, _START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
_MOST_SCANS = 100  # as many as libtiff allows; progressive files have about ten
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_REASONS = {
    "image_broken": "the picture is damaged or cut off, and cannot be decoded",
    "image_too_large": "the picture has more pixels than are accepted",
}


@dataclass(frozen=True)
class Asked:
    """A request. `boxes` are x, y, width, height in pixels; none stands for the whole picture. `category` is what all
    of them are, "" where that is not known. `picture` is to be closed.
    """

    picture: BinaryIO
    boxes: list[BoxField]
    category: str


async def read_request(request: Request, limits: Limits, categories: Sequence[str]) -> Asked:
    """Reads a form that has a file `image` and may have fields `boxes` and `category`; stops reading where it is too
    large.

    Args:
        request: a form.
        limits: of requests.
        categories: what objects may be said to be.

    Raises:
        RefusedError: it is none of that.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "multipart/form-data":
        raise RefusedError(
            415, "wrong_content_type", "send multipart/form-data with a file 'image' and fields 'boxes' and 'category'"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.bytes:
        await linger(request)
        raise _too_large(limits)
    # Fields are decoded by whichever codec of Python the client names, beside all other requests; one takes a minute.
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8").lower()
    if charset not in _CHARSETS:
        await linger(request)
        raise RefusedError(400, "bad_form", "the form's charset cannot be read; send it in UTF-8")
    parser = MultiPartParser(request.headers, _bounded(request, limits), max_files=1, max_fields=len(_FIELDS))
    try:
        form = await parser.parse()
    # Older versions of Starlette let the parser's own errors through, and a field may be none of its charset.
    except (MultiPartException, FormParserError, UnicodeError):
        await linger(request)
        message = "the form cannot be read; send one file 'image' and at most the fields 'boxes' and 'category', of at most 1 MiB each"
        raise RefusedError(400, "bad_form", message) from None
    except ClientDisconnect:
        raise RefusedError(400, "cut_off", "the request ended before it was whole") from None
    except OSError as error:  # what is large is kept in a temporary file while it comes
        await linger(request)
        raise RefusedError(507, "no_room", f"there is no room for the picture ({error.strerror or error})") from None
    try:
        return _asked(form, limits, categories)
    except RefusedError:
        await form.close()
        raise


def _asked(form: FormData, limits: Limits, categories: Sequence[str]) -> Asked:
    """What a form that has been read asks for. Raises RefusedError where it is no request of ours."""
    if unknown := sorted(set(form) - {"image", *_FIELDS}):
        message = f"'{unknown[0]}' is no field; send a file 'image' and at most the fields 'boxes' and 'category'"
        raise RefusedError(422, "unknown_field", message)
    image, boxes, category = form.get("image"), form.get("boxes", "[]"), form.get("category", "")
    if not isinstance(image, UploadFile):
        raise RefusedError(422, "no_image", "the form has no file 'image'")
    if not isinstance(boxes, str):
        raise RefusedError(422, "bad_boxes", "'boxes' has to be a field, not a file")
    if not isinstance(category, str):
        raise RefusedError(422, "bad_category", "'category' has to be a field, not a file")
    if repeated := [name for name in _FIELDS if len(form.getlist(name)) > 1]:
        raise RefusedError(422, f"bad_{repeated[0]}", f"'{repeated[0]}' is there twice; send one")
    require_category(category, categories)
    return Asked(image.file, parse_boxes(boxes, limits.boxes), category)


def parse_boxes(text: str, most: int) -> list[BoxField]:
    """Boxes from JSON; whether they lie in the picture is seen when they are cut.

    Raises:
        RefusedError: it is not a list of [x, y, width, height], or has too many.
    """
    try:
        boxes = _BOXES.validate_json(text.strip() or "[]", strict=True)
    except (ValidationError, ValueError):
        message = "'boxes' has to be JSON such as [[10, 20, 30, 40]]: x, y, width, height in pixels"
        raise RefusedError(422, "bad_boxes", message) from None
    if len(boxes) > most:
        raise RefusedError(422, "too_many_boxes", f"{len(boxes)} boxes; at most {most} are accepted in a request")
    return boxes


def require_category(category: str, known: Sequence[str]) -> None:
    """Refuses a category that the model does not know; "" stands for none.

    Raises:
        RefusedError: saying some that it does.
    """
    if not category or category in known:
        return
    if not known:
        raise RefusedError(422, "no_categories", "this model looks at crops alone; leave 'category' out")
    more = f" and {len(known) - _SHOWN} more, which GET /model lists" if len(known) > _SHOWN else ""
    message = f"'category' is none that the model was trained on; those are {', '.join(known[:_SHOWN])}{more}; leave it out for anything else"
    raise RefusedError(422, "unknown_category", message)


def cut_crops(
    asked: Asked, predictor: Predictor, limits: Limits
) -> tuple[tuple[int, int], list[BoxField], list[Tensor]]:
    """Decodes the picture and cuts its boxes as `attrtrain predict` does. Blocks; no pixel is decoded before the
    header's size is checked.

    Returns:
        Width and height of the upright picture, the boxes, and their crops (3, image_px, image_px) uint8.

    Raises:
        RefusedError: the picture or a box is not usable.
    """
    # Read here, where few are at work: not each request that waits holds its picture in memory.
    content = asked.picture.read()
    _check_header(content, limits)
    try:
        image = load_image(FetchedImage("picture", content), formats=FORMATS)
    except LeftOutError as error:
        status = 413 if error.reason == "image_too_large" else 422
        raise RefusedError(status, error.reason, _REASONS.get(error.reason, "the picture cannot be used")) from None
    boxes = asked.boxes or [whole_picture(image)]
    crops = []
    for number, box in enumerate(boxes, 1):
        try:
            crops.append(predictor.crop(image, box))
        except LeftOutError as error:
            raise RefusedError(422, error.reason, f"box {number} of {len(boxes)}: {error}") from None
    return (image.shape[1], image.shape[0]), boxes, crops


async def linger(request: Request) -> None:
    """Throws away what a client still sends, for a few seconds at most: it reads no answer before it has sent all."""
    with suppress(ClientDisconnect, RuntimeError, TimeoutError):  # RuntimeError: all of it has been read already
        async with asyncio.timeout(_LINGER_SECONDS):
            async for _ in request.stream():
                pass


def _check_header(picture: bytes, limits: Limits) -> None:
    """Refuses what would take more time or memory to decode than a picture of that many pixels."""
    # Each scan goes through all pixels again, in a few bytes. Such a marker stands nowhere else but in thumbnails.
    if picture.startswith(_JPEG) and picture.count(_START_OF_SCAN) > _MOST_SCANS:
        message = f"the picture is a JPEG of more than {_MOST_SCANS} scans, which are not read; save it anew"
        raise RefusedError(422, "image_broken", message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs, too: the limit below is ours
            with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
                width, height = image.size
                tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
                tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
                in_python = any(part.codec_name == "bmp_rle" for part in image.tile)  # where nothing goes on beside it
    except Image.DecompressionBombError:
        raise RefusedError(413, "image_too_large", _REASONS["image_too_large"]) from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  damaged files make Pillow's readers raise nearly anything
        message = f"not a picture of a known kind; these are read: {', '.join(FORMATS)}"
        raise RefusedError(422, "not_an_image", message) from None
    if in_python:
        raise RefusedError(422, "not_an_image", "run-length encoded BMP is not read; send it as PNG or JPEG")
    if tile > limits.pixels:
        message = f"the picture has tiles of {tile:,} pixels; at most {limits.pixels:,} are accepted"
        raise RefusedError(413, "image_too_large", message)
    if width * height > limits.pixels:
        message = f"the picture has {width} x {height} pixels; at most {limits.pixels:,} are accepted"
        raise RefusedError(413, "image_too_large", message)


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, "too_large", f"the request is larger than the {limits.bytes:,} bytes that are accepted")


async def _bounded(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body's parts as they come. What is large goes to a temporary file, so memory holds little of it."""
    seen = 0
    async for part in request.stream():
        seen += len(part)
        if seen > limits.bytes:
            await linger(request)
            raise _too_large(limits)
        yield part

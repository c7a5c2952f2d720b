"""Small copies of crops as data URIs, so many as a page may hold."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError

_QUALITY = 62  # WebP; a crop of 96 pixels takes about 2 kB


class Pictures:
    """Crops of some objects. Each is stored once, at the size it was first asked for, as long as the budget lasts."""

    def __init__(self, shards: ShardSet | None, object_ids: NDArray[np.int64], budget: int) -> None:
        """Finds the objects in the shards.

        Args:
            shards: where the crops are; None gives no pictures.
            object_ids: (N) the objects that rows stand for.
            budget: characters that all data URIs may take together.
        """
        self._shards = shards
        self._positions = np.full(len(object_ids), -1) if shards is None else _find(object_ids, shards.object_ids)
        self._left = budget
        self.uris: dict[int, str] = {}

    def add(self, row: int, side: int) -> bool:
        """Stores the crop of one object, its longer side at most `side` pixels; returns whether it is there.

        Raises:
            ShardError: the shards are damaged.
        """
        if row in self.uris:
            return True
        if self._shards is None or self._positions[row] < 0 or self._left <= 0:
            return False
        uri = small_uri(self._shards.jpeg(int(self._positions[row])), side)
        if len(uri) > self._left:
            self._left = 0  # full; a smaller one later would make the choice depend on sizes
            return False
        self._left -= len(uri)
        self.uris[row] = uri
        return True


def _find(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions (N) of wanted ids (N) among ids (M), -1 where there is none."""
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids[order], wanted).clip(max=len(ids) - 1)
    return np.where(ids[order][place] == wanted, order[place], -1)


def small_uri(jpeg: bytes, side: int) -> str:
    """A JPEG as a data URI, its longer side at most `side` pixels.

    Raises:
        ShardError: it is damaged.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            image.draft("RGB", (side, side))  # decodes at a half, a quarter ... where that is still large enough
            small = image.convert("RGB")
    except OSError as error:
        raise ShardError(f"a crop cannot be decoded ({error}); check the shards with `attrtrain verify`") from None
    return _as_uri(small, side)


def picture_uri(pixels: NDArray[np.uint8], side: int) -> str:
    """A picture (H, W, 3) in the same way."""
    return _as_uri(Image.fromarray(pixels), side)


def _as_uri(small: Image.Image, side: int) -> str:
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

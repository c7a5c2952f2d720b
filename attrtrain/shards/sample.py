"""An object and its crop → the bytes of one sample in a tar."""

import tarfile
from functools import lru_cache

import numpy as np
from pydantic_core import to_json

from attrtrain.annotations.table import ObjectTable
from attrtrain.shards.crop import Crop

# A USTAR header (POSIX.1-1988) is one block: 100 bytes of name, mode and owner, 12 bytes of size in octal at 124, 12 of
# time, 8 of checksum at 148, which is the sum of all bytes with the checksum itself as spaces. Only name, size and
# checksum differ between our members, so the rest comes from the standard library once; its own writer takes longer for
# a header than libjpeg for a small crop.
_EMPTY = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_NAME_BYTES = 100
_MODE_AND_OWNER, _TIME, _REST = _EMPTY[_NAME_BYTES:124], _EMPTY[136:148], _EMPTY[156:]
_SUM_OF_FIXED = sum(_MODE_AND_OWNER + _TIME + b" " * 8 + _REST)
_LARGEST = 8**11 - 1


def tar_member(name: bytes, content: bytes) -> tuple[bytes, bytes, bytes]:
    """One USTAR member, uncompressed, without time or owner: its header, its content, and what fills its last block.
    Equal content gives equal bytes.

    Args:
        name: at most 100 ASCII characters.
        content: less than 8 GiB.
    """
    if len(name) > _NAME_BYTES or len(content) > _LARGEST:
        raise ValueError(f"{name.decode()}: a name or a content too long for USTAR")
    size = b"%011o\0" % len(content)
    checksum = b"%06o\0 " % (_SUM_OF_FIXED + sum(name) + sum(size))
    header = b"".join((name.ljust(_NAME_BYTES, b"\0"), _MODE_AND_OWNER, size, _TIME, checksum, _REST))
    return header, content, bytes(-len(content) % tarfile.BLOCKSIZE)


class SampleWriter:
    """Turns rows of a table into samples: `<object id>.jpg` and `<object id>.json`."""

    def __init__(self, table: ObjectTable, split: str) -> None:
        self._split = split
        # For all rows at once, and as lists: looking at arrays row by row costs several times as much.
        rows, attributes = np.nonzero(table.labels == table.labels)  # NaN alone is not itself
        self._label_from = np.searchsorted(rows, np.arange(len(table) + 1)).tolist()
        self._label_names = [table.vocabulary.names[attribute] for attribute in attributes.tolist()]
        self._label_values = list(map(_shortest, table.labels[rows, attributes].tolist()))
        self._columns = list(
            zip(
                table.object_id.tolist(), table.image_id.tolist(), table.image.tolist(), table.category.tolist(), table.box.tolist(),
                strict=True,
            )
        )  # fmt: skip

    def sample(self, row: int, crop: Crop) -> bytes:
        """The members of one row's sample."""
        key = b"%012d" % self._columns[row][0]
        return b"".join((*tar_member(key + b".jpg", crop.jpeg), *tar_member(key + b".json", self._json(row, crop))))

    def _json(self, row: int, crop: Crop) -> bytes:
        object_id, image_id, image, category, box = self._columns[row]
        labels = slice(self._label_from[row], self._label_from[row + 1])
        content = {
            "object_id": object_id,
            "image_id": image_id,
            "image": image,
            "category": category,
            "split": self._split,
            "source_size": crop.source_size,
            "source_box": box,
            "crop_size": crop.size,
            "box": [round(value * 1000) / 1000 for value in crop.box],  # `round(value, 3)` takes three times as long
            "labels": dict(zip(self._label_names[labels], self._label_values[labels], strict=True)),
        }
        return to_json(content)


@lru_cache(maxsize=4096)  # vote shares are few different numbers
def _shortest(value: float) -> float:
    """The number with the fewest digits that reads back as the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))

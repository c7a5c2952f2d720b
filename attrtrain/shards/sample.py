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


def tar_member(name: str, data: bytes) -> bytes:
    """One USTAR member, uncompressed, without time or owner: equal content gives equal bytes.

    Args:
        name: at most 100 ASCII characters.
        data: its content, less than 8 GiB.
    """
    name_bytes = name.encode("ascii")
    if len(name_bytes) > _NAME_BYTES or len(data) > _LARGEST:
        raise ValueError(f"{name}: a name or a content too long for USTAR")
    size = b"%011o\0" % len(data)
    checksum = b"%06o\0 " % (_SUM_OF_FIXED + sum(name_bytes) + sum(size))
    padding = bytes(-len(data) % tarfile.BLOCKSIZE)
    return b"".join(
        (name_bytes.ljust(_NAME_BYTES, b"\0"), _MODE_AND_OWNER, size, _TIME, checksum, _REST, data, padding)
    )


class SampleWriter:
    """Turns rows of a table into samples: `<object id>.jpg` and `<object id>.json`."""

    def __init__(self, table: ObjectTable, split: str) -> None:
        self._split = split
        self._names = table.vocabulary.names
        self._labels = table.labels
        # As lists: taking single values out of arrays costs several times as much.
        self._columns = list(
            zip(
                table.object_id.tolist(), table.image_id.tolist(), table.image.tolist(), table.category.tolist(), table.box.tolist(),
                strict=True,
            )
        )  # fmt: skip

    def sample(self, row: int, crop: Crop) -> bytes:
        """The members of one row's sample."""
        key = f"{self._columns[row][0]:012d}"
        return tar_member(f"{key}.jpg", crop.jpeg) + tar_member(f"{key}.json", self._json(row, crop))

    def _json(self, row: int, crop: Crop) -> bytes:
        object_id, image_id, image, category, box = self._columns[row]
        labels = self._labels[row]
        (known,) = (labels == labels).nonzero()  # NaN alone is not itself
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
            "labels": {
                self._names[i]: _shortest(value)
                for i, value in zip(known.tolist(), labels[known].tolist(), strict=True)
            },
        }
        return to_json(content)


@lru_cache(maxsize=4096)  # vote shares are few different numbers
def _shortest(value: float) -> float:
    """The number with the fewest digits that reads back as the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))

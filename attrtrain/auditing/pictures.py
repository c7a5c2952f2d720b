"""The same picture under two names: in two splits, it is learnt from and then judged on.

Two perceptual hashes must agree: of the picture's low frequencies (pHash) and of its horizontal gradients (dHash). They
survive another size and another JPEG quality, and hardly ever agree for two photographs.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import imagehash
import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from tqdm import tqdm

from attrtrain.auditing.document import Pictures, SamePicture
from attrtrain.cores import core_count
from attrtrain.errors import LeftOutError
from attrtrain.shards.image_decode import load_image
from attrtrain.shards.image_lookup import find_image

T = TypeVar("T")
_SHOWN = 50
_PHASH_BITS, _DHASH_BITS = 4, 8  # of 64, that may differ
_LEAST_SIDE = 32  # pixels; smaller pictures look alike too easily
_LEAST_CONTRAST = 6.0  # standard deviation of gray values, of 255; a plain picture has no low frequencies to compare


@dataclass(frozen=True)
class Hashed:
    """What was computed of one picture: two 64-bit hashes, None where they would mean nothing, and its size in
    pixels.
    """

    hashes: tuple[int, int] | None
    size: tuple[int, int]


def hash_picture(picture: Image.Image) -> Hashed:
    """Hashes an upright picture."""
    gray = picture.convert("L")
    small = np.asarray(gray.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64)
    if min(picture.size) < _LEAST_SIDE or small.std() < _LEAST_CONTRAST:
        return Hashed(None, picture.size)
    return Hashed((int(str(imagehash.phash(gray)), 16), int(str(imagehash.dhash(gray)), 16)), picture.size)


def hash_photographs(names: Sequence[str], folders: Sequence[Path | str]) -> list[Hashed | None]:
    """Hashes whole photographs, found as sharding finds them; None for one that is missing or broken."""

    def one(name: str) -> Hashed | None:
        try:
            return hash_picture(Image.fromarray(load_image(find_image(name, folders))))
        except LeftOutError:
            return None

    return _in_threads(one, names, "comparing photographs")


def hash_crops(jpegs: Callable[[int], bytes], rows: Sequence[int]) -> list[Hashed | None]:
    """Hashes stored crops; None for one that cannot be decoded."""

    def one(row: int) -> Hashed | None:
        try:
            with Image.open(io.BytesIO(jpegs(row))) as image:
                return hash_picture(image.convert("RGB"))
        except OSError:
            return None

    return _in_threads(one, rows, "comparing crops")


def _in_threads(one: Callable[[T], Hashed | None], items: Sequence[T], what: str) -> list[Hashed | None]:
    with ThreadPoolExecutor(min(8, core_count())) as pool:
        return list(tqdm(pool.map(one, items), total=len(items), desc=what, unit="", disable=None))


def compare_pictures(
    compared: Literal["photographs", "crops"],
    names: Sequence[str],
    splits: Sequence[str],
    hashed: Sequence[Hashed | None],
    note: str = "",
) -> Pictures:
    """Groups pictures that look the same and have different names.

    Args:
        compared: what was hashed.
        names: (N,) the photograph each is, or is cut out of.
        splits: (N,) the split it is in; for a photograph in several, "a + b".
        hashed: (N,).
        note: what was not compared, and why.
    """
    found = []
    for group in same_groups(hashed):
        split_of = {names[position]: splits[position] for position in group}
        if len(split_of) > 1:
            images = sorted(split_of)
            found.append(SamePicture(images=images, splits=[split_of[image] for image in images]))
    across = [group for group in found if len(set(group.splits)) > 1]
    others = [group for group in found if len(set(group.splits)) == 1]
    return Pictures(
        compared=compared,
        pictures=len(hashed),
        groups=len(found),
        across_splits=len(across),
        examples=[*across, *others][:_SHOWN],
        unreadable=sum(entry is None for entry in hashed),
        note=note,
    )


def same_groups(hashed: Sequence[Hashed | None]) -> list[list[int]]:
    """Positions of pictures that look the same, in groups of at least two; a group's members need not all resemble each
    other.
    """
    usable = [(position, entry.hashes) for position, entry in enumerate(hashed) if entry is not None and entry.hashes]
    groups = DisjointSet(position for position, _ in usable)
    for bucket in _buckets(usable):
        rest = bucket
        while rest:
            # What is reached is compared with nothing again: of a standing camera's pictures, thousands look the same.
            reached, rest = [rest[0]], rest[1:]
            while reached and rest:
                a, hashes = reached.pop()
                others: list[tuple[int, tuple[int, int]]] = []
                for b, its in rest:
                    if _look_the_same(hashes, its):
                        groups.merge(a, b)
                        reached.append((b, its))
                    else:
                        others.append((b, its))
                rest = others
    return sorted(sorted(group) for group in groups.subsets() if len(group) > 1)


def _look_the_same(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return (a[0] ^ b[0]).bit_count() <= _PHASH_BITS and (a[1] ^ b[1]).bit_count() <= _DHASH_BITS


def _buckets(usable: list[tuple[int, tuple[int, int]]]) -> Iterable[list[tuple[int, tuple[int, int]]]]:
    """Pictures that agree in one of five pieces of the pHash: two that differ in at most four bits agree in one at
    least.
    """
    pieces = [(0, 13), (13, 13), (26, 13), (39, 13), (52, 12)]
    for shift, width in pieces:
        buckets = defaultdict(list)
        for entry in usable:
            buckets[(entry[1][0] >> shift) & ((1 << width) - 1)].append(entry)
        yield from (bucket for bucket in buckets.values() if len(bucket) > 1)

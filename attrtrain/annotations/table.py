"""ObjectTable: what every label format is turned into, one row a labelled object."""

import math
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.errors import LabelError
from attrtrain.files import legible, sha256_of
from attrtrain.vocabulary import AttributeVocabulary

_BLOCK_ROWS = 1024
_ROUNDED = 0.01


@dataclass(frozen=True)
class SourceFile:
    """A file the labels came from: its name, size in bytes, and SHA-256."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "SourceFile":
        """Reads `path` once to describe it."""
        return cls(name=legible(path.name), bytes=path.stat().st_size, sha256=sha256_of(path))


@dataclass(frozen=True)
class ObjectTable:
    """Labelled objects as columns of N rows.

    Attributes:
        vocabulary: what the A columns of `labels` mean.
        object_id: (N,) int64, distinct and not negative. COCO: the annotation id.
        image_id: (N,) int64; objects of one photograph share it.
        image: (N,) object, file name or path below one of the image folders. Texts are references to one `str` each,
            since NumPy's own strings take four bytes for each character of the longest, in every row.
        image_size: (N, 2) int64 width and height in pixels as the annotation says, 0 where it says nothing.
        box: (N, 4) float64 x, y, width, height in pixels; may hold nonsense, which the writer leaves out and counts.
        category: (N,) object, "" where unknown.
        split: (N,) object, such as "train" or "val", "" where the file has none.
        crowd: (N,) bool, COCO's iscrowd.
        labels: (N, A) float32 vote shares in [0, 1], NaN = unknown.
        unmatched: (U,) int64 ids of labelled objects for which no annotation was found.
        sources: the files all this came from.
    """

    vocabulary: AttributeVocabulary
    object_id: NDArray[np.int64]
    image_id: NDArray[np.int64]
    image: NDArray[Any]
    image_size: NDArray[np.int64]
    box: NDArray[np.float64]
    category: NDArray[Any]
    split: NDArray[Any]
    crowd: NDArray[np.bool_]
    labels: NDArray[np.float32]
    unmatched: NDArray[np.int64]
    sources: tuple[SourceFile, ...]

    def __post_init__(self) -> None:
        n = len(self.object_id)
        shapes = {
            "image_id": (n,), "image": (n,), "image_size": (n, 2), "box": (n, 4), "category": (n,), "split": (n,), "crowd": (n,),
            "labels": (n, len(self.vocabulary)),
        }  # fmt: skip
        for name, shape in shapes.items():
            if (actual := getattr(self, name).shape) != shape:
                raise ValueError(f"column {name} has shape {actual}, expected {shape}")
        check_texts(self.vocabulary.names, self.image, self.category, self.split)
        check_object_ids(self.object_id)
        check_vote_shares(self.labels, self.object_id)

    def __len__(self) -> int:
        return len(self.object_id)

    def take(self, rows: NDArray[np.int64]) -> "ObjectTable":
        """The objects of some rows (K,), in that order; `unmatched` stays behind."""
        columns = ("object_id", "image_id", "image", "image_size", "box", "category", "split", "crowd", "labels")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns}, unmatched=self.unmatched[:0])

    def with_split(self, split: NDArray[Any]) -> "ObjectTable":
        """The same objects with another split column (N,)."""
        return replace(self, split=split)


def without_year(name: str) -> str:
    """A photograph's path without COCO's prefix of 2014, `COCO_val2014_000000000042.jpg`, which 2017 dropped."""
    folder, slash, file = name.rpartition("/")
    short = file.removeprefix("COCO_train2014_").removeprefix("COCO_val2014_")
    return name if short in ("", file) else f"{folder}{slash}{short}"  # no second text where nothing changes


def tidy_name(name: str) -> str:
    """A photograph's path without `./` and doubled slashes: one photograph, one name."""
    tidy = posixpath.normpath(name)
    return tidy[1:] if tidy.startswith("//") else tidy  # which POSIX lets stand for something else


def photograph_of(name: str) -> str:
    """What says, of a photograph's path, which photograph it is: the path without COCO's prefix and with accents as
    part of their letters (NFC). macOS writes them apart, in names that look the same.
    """
    return unicodedata.normalize("NFC", without_year(name))


def text_of(value: object) -> str:
    """A cell as text; "" for None and for the NaN that pandas writes where there is none."""
    is_nothing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if is_nothing else str(value).strip()


def check_pixels(box: NDArray[np.float64]) -> None:
    """Raises LabelError where boxes (N, 4) x, y, width, height lie within a single pixel and divide it, all but one in
    a hundred: they are shares of their pictures, perhaps rounded.
    """
    usable = within = divided = 0
    for start in range(0, len(box), _BLOCK_ROWS):  # copies of all would be larger than the table
        block = box[start : start + _BLOCK_ROWS]
        block = block[np.isfinite(block).all(axis=1) & (block[:, 2:] > 0).all(axis=1)]
        near, far = block[:, :2], block[:, :2] + block[:, 2:]
        usable += len(block)
        within += int(((near >= -_ROUNDED).all(axis=1) & (far <= 1 + _ROUNDED).all(axis=1)).sum())
        divided += int((block % 1).any(axis=1).sum())
    if divided and within >= 0.99 * usable:
        raise LabelError(
            "the boxes lie between 0 and 1: these are shares of the picture; give pixels, multiplied by its width and height"
        )


def one_id_a_photograph(table: ObjectTable, folders: Sequence[Path | str] = ()) -> ObjectTable:
    """The table with one image_id, the smallest, for all objects of one file name: merged files list a photograph under
    several, in which it could be trained on and judged at once.

    Args:
        table: any.
        folders: of the photographs, paths or URLs; an absolute name below one of them is the name from there. Where
            one lies in another, `b.jpg` in it is the `inner/b.jpg` of the other, if something is called so.
    """
    here, inner = _absolute(folders), inner_folders(folders)
    names = set(table.image)
    known = {_from(name, here) for name in names} if inner else set()

    def photograph(name: str) -> str:
        short = _from(name, here)
        return photograph_of(next((longer for folder in inner if (longer := f"{folder}/{short}") in known), short))

    photographs = {name: photograph(name) for name in names}
    least: dict[str, int] = {}
    for name, image_id in zip(table.image, map(int, table.image_id), strict=True):
        of_name = photographs[name]
        least[of_name] = min(image_id, least.get(of_name, image_id))
    one_id = np.fromiter((least[photographs[name]] for name in table.image), dtype=np.int64, count=len(table))
    return table if np.array_equal(one_id, table.image_id) else replace(table, image_id=one_id)


def repeated_boxes(table: ObjectTable) -> NDArray[np.bool_]:
    """(N,) whether another object has the same box, which is one, in the same photograph."""
    columns = [table.image_id, *table.box.T]
    is_box = np.logical_and(np.isfinite(table.box).all(axis=1), (table.box[:, 2:] > 0).all(axis=1))
    order = np.lexsort(columns)
    same = is_box[order[1:]]  # as the one before it
    for column in columns:  # rows as keys would be larger than the boxes
        ordered = column[order]
        same &= ordered[1:] == ordered[:-1]
    repeated = np.zeros(len(table), dtype=bool)
    repeated[order[1:][same]] = repeated[order[:-1][same]] = True
    return repeated


def inner_folders(folders: Sequence[Path | str]) -> list[str]:
    """Where one of the folders lies in another: the path of the one from the other."""
    here = _absolute(folders)
    return [one.removeprefix(f"{other}/") for one in here for other in here if one.startswith(f"{other}/")]


def _absolute(folders: Sequence[Path | str]) -> list[str]:
    return [os.path.abspath(folder) for folder in folders if isinstance(folder, Path)]  # noqa: PTH100  without `..`


def _from(name: str, folders: Sequence[str]) -> str:
    for folder in folders:
        if name.startswith(f"{folder}/"):
            return name.removeprefix(f"{folder}/")
    return name


def check_texts(*columns: Iterable[str]) -> None:
    """Raises LabelError where a text holds a NUL, or half a character as cut-off emojis in JSON do: no file of ours
    could hold it.
    """
    for text in chain(*columns):  # a set of them would be larger than a column
        if "\0" in text:  # which arrays of texts lose at their ends
            raise LabelError(f"{str(text)!a} holds a NUL character; take it out")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise LabelError(
                    f"{str(text)!a} holds half a character (a lone surrogate); write it as UTF-8"
                ) from None


def check_object_ids(object_id: NDArray[np.int64]) -> None:
    """Raises LabelError where an id is given twice or is negative."""
    ids = np.sort(object_id)
    if len(repeated := ids[1:][ids[1:] == ids[:-1]]):
        times = int((ids == repeated[0]).sum())
        raise LabelError(f"object id {repeated[0]} is given {times} times; each object needs an id of its own")
    if len(ids) and ids[0] < 0:
        raise LabelError(f"object id {ids[0]} is negative; ids must be 0 or more")


def check_vote_shares(labels: NDArray[np.float32], object_id: NDArray[np.int64]) -> None:
    """Raises LabelError, naming the object, where a label is neither unknown nor in [0, 1]."""
    for start in range(0, len(labels), _BLOCK_ROWS):  # in the processor's cache, without masks of the whole matrix
        block = labels[start : start + _BLOCK_ROWS]
        with np.errstate(invalid="ignore"):
            wrong = (block < 0) | (block > 1)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise LabelError(
                f"object {object_id[start + row]}: label {block[row, column]:g} in attribute column {column} is not a vote share; "
                "use 0 to 1, and -1 or an empty cell for unknown"
            )

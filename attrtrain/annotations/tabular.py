"""Anybody's own boxes: a CSV or JSON-lines file, one object a row.

Columns with these names are read as what they say; every other column is an attribute, with values 0 to 1, and empty or
-1 for unknown.

    photograph   file_name | image | path
    box          x, y, w, h (or width, height) | x1, y1, x2, y2 (or xmin, ymin, xmax, ymax)
                 JSON lines also: bbox [x, y, w, h]
    optional     split | category | object_id | image_id

NA, NaN, null and the like are an empty cell in every column but that of the photograph.
"""

import csv
import hashlib
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.rows import NOTHING, is_blank, rows_of
from attrtrain.annotations.table import (
    ObjectTable,
    SourceFile,
    check_object_ids,
    check_pixels,
    check_texts,
    one_id_a_photograph,
    photograph_of,
    text_of,
    tidy_name,
)
from attrtrain.errors import LabelError
from attrtrain.vocabulary import AttributeVocabulary

_PATH_NAMES = ("file_name", "image", "path")
_BOX_NAMES: tuple[tuple[tuple[str, str, str, str], bool], ...] = (  # names, and whether the last two are a corner
    (("x", "y", "w", "h"), False),
    (("x", "y", "width", "height"), False),
    (("x1", "y1", "x2", "y2"), True),
    (("xmin", "ymin", "xmax", "ymax"), True),
)
_OPTIONAL_NAMES = ("split", "category", "object_id", "image_id")
_NO_ATTRIBUTE = f"if the column is no attribute, drop it, or name it as what it is ({', '.join(_OPTIONAL_NAMES)})"
_TRUTH = {"true": 1.0, "false": 0.0, **dict.fromkeys(NOTHING, math.nan)}


@dataclass(frozen=True)
class Boxes:
    """What a file says of its M objects beside their attributes. Columns as in `ObjectTable`, each (M,) or (M, k)."""

    object_id: NDArray[np.int64]
    image_id: NDArray[np.int64]
    image: NDArray[Any]
    box: NDArray[np.float64]
    category: NDArray[Any]
    split: NDArray[Any]
    source: SourceFile


def read_table(path: str | Path) -> ObjectTable:
    """Reads a CSV (.csv, .tsv) or JSON-lines (.jsonl) file of boxes. Without an object_id column the row number, from
    0, is the id.

    Raises:
        LabelError: naming file, line and column of the first value that cannot be read.
    """
    path = Path(path)
    with _named_in_errors(path):
        reader = _RowReader(_columns(path))
        if not reader.attributes:
            raise LabelError("has no attribute columns beside the photograph and the box")
        rows, labels = _BoxRows(reader), array("f")
        for line, row in rows_of(path):
            rows.append(line, row)
            labels.extend(reader.labels(line, row))
        boxes = rows.boxes(SourceFile.of(path))
        del rows  # of a million photographs its index takes as much memory as the table, whose checks take some too
        n = len(boxes.object_id)
        table = ObjectTable(
            vocabulary=AttributeVocabulary.from_names(reader.attributes),
            object_id=boxes.object_id,
            image_id=boxes.image_id,
            image=boxes.image,
            image_size=np.zeros((n, 2), dtype=np.int64),
            box=boxes.box,
            category=boxes.category,
            split=boxes.split,
            crowd=np.zeros(n, dtype=bool),
            labels=np.frombuffer(labels, dtype=np.float32).reshape(n, -1),
            unmatched=np.zeros(0, dtype=np.int64),
            sources=(boxes.source,),
        )
    # Ids of ours follow from the photographs' names.
    return one_id_a_photograph(table) if "image_id" in reader.columns else table


def read_boxes(path: str | Path) -> Boxes:
    """Reads the same files for their boxes alone: attribute columns need not be there, and what other columns hold is
    not looked at.

    Raises:
        LabelError: naming file, line and column of the first value that cannot be read, or an object id given twice.
    """
    path = Path(path)
    with _named_in_errors(path):
        rows = _BoxRows(_RowReader(_columns(path)))
        for line, row in rows_of(path):
            rows.append(line, row)
        boxes = rows.boxes(SourceFile.of(path))
        check_texts(boxes.image, boxes.category)
        check_object_ids(boxes.object_id)
        return boxes


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise LabelError(f"{path}: is not UTF-8 text; save it as CSV with encoding UTF-8, or as JSON lines") from None
    except (LabelError, csv.Error) as error:
        raise LabelError(f"{path}: {error}") from None


def _columns(path: Path) -> list[str]:
    """Names of all columns. Those of a CSV are told by its first row; a key of JSON lines may come in any line, so the
    whole file is read for them.
    """
    rows = rows_of(path)
    if (first := next(rows, None)) is None:
        raise LabelError("holds no objects")
    others = rows if path.suffix.lower() == ".jsonl" else ()
    return list(dict.fromkeys(name for _, row in chain((first,), others) for name in row))


class _Texts:
    """A column of texts that are repeated, each held once."""

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}
        self._numbers = array("i")

    def append(self, text: str) -> None:
        self._numbers.append(self._number_of.setdefault(text, len(self._number_of)))

    def column(self) -> NDArray[Any]:
        """The texts (M,), as references to one Python string each."""
        return np.array(list(self._number_of), dtype=object)[np.frombuffer(self._numbers, dtype=np.intc)]

    def photograph_ids(self) -> NDArray[np.int64]:
        """A number (M,) for each photograph that these texts name, of 52 bits, which JSON keeps in every language. It
        follows from the name alone, so that one name is one photograph in all files.
        """
        digests = (
            hashlib.blake2b(photograph_of(text).encode(errors="surrogatepass"), digest_size=8).digest()
            for text in self._number_of
        )
        ids = np.fromiter((int.from_bytes(digest) >> 12 for digest in digests), dtype=np.int64)
        return ids[np.frombuffer(self._numbers, dtype=np.intc)]


class _BoxRows:
    """Takes rows in one by one and keeps numbers, since a row as a dictionary takes a kilobyte and more."""

    def __init__(self, reader: "_RowReader") -> None:
        self._reader = reader
        self._has_object_id, self._has_image_id = (name in reader.columns for name in ("object_id", "image_id"))
        self._image, self._category, self._split = _Texts(), _Texts(), _Texts()
        self._object_id, self._image_id, self._box = array("q"), array("q"), array("d")
        self._image_id_of: dict[str, int] = {}
        self._name_of: dict[int, str] = {}

    def append(self, line: int, row: dict[str, Any]) -> None:
        """Raises LabelError, naming line and column, for a cell that cannot be read."""
        name = _photograph(line, self._reader.path_name, row)
        self._image.append(name)
        if self._has_image_id:
            image_id = _integer(line, "image_id", row)
            # A photograph under two ids would count as two, and could be trained on and judged at once.
            if (first := self._image_id_of.setdefault(name, image_id)) != image_id:
                raise LabelError(
                    f"line {line}: photograph {name} has image_id {image_id}, but {first} on an earlier line"
                )
            # And two photographs under one id would count as one, and be put into one split together.
            other = self._name_of.setdefault(image_id, name)
            if other != name and photograph_of(other) != photograph_of(name):
                raise LabelError(
                    f"line {line}: image_id {image_id} is photograph {name}, but {other} on an earlier line; "
                    "number photographs once over all folders and splits, or drop the column"
                )
            self._image_id.append(image_id)
        if self._has_object_id:
            self._object_id.append(_integer(line, "object_id", row))
        self._box.extend(self._reader.box(line, row))
        self._category.append(_text(line, "category", row))
        self._split.append(_text(line, "split", row))

    def boxes(self, source: SourceFile) -> Boxes:
        """The columns of all rows so far."""
        box = np.frombuffer(self._box, dtype=np.float64).reshape(-1, 4)
        check_pixels(box)
        return Boxes(
            object_id=np.frombuffer(self._object_id, dtype=np.int64) if self._has_object_id else np.arange(len(box)),
            image_id=np.frombuffer(self._image_id, dtype=np.int64)
            if self._has_image_id
            else self._image.photograph_ids(),
            image=self._image.column(),
            box=box,
            category=self._category.column(),
            split=self._split.column(),
            source=source,
        )


def _photograph(line: int, column: str, row: dict[str, Any]) -> str:
    if not isinstance(name := row.get(column), str) or not name.strip():
        raise LabelError(f"line {line}: column '{column}' names no photograph")
    return _tidy(name)


@lru_cache(maxsize=1024)  # objects of a photograph mostly follow each other
def _tidy(name: str) -> str:
    return tidy_name(name.strip())


def _text(line: int, column: str, row: dict[str, Any]) -> str:
    """A cell as text, "" where there is none, however that is written."""
    value = row.get(column)
    if not isinstance(value, str | bool | int | float | None):
        raise LabelError(f"line {line}: column '{column}' holds {value!r}, not a text")
    return "" if (text := text_of(value)).lower() in NOTHING else text


def _integer(line: int, column: str, row: dict[str, Any]) -> int:
    cell = row.get(column)
    try:
        if isinstance(cell, bool | float) or (isinstance(cell, str) and "_" in cell):  # int("2024_11") is 202411
            raise ValueError
        value = int(cell)  # type: ignore[arg-type]  # None raises TypeError
    except (TypeError, ValueError):
        raise LabelError(
            f"line {line}: column '{column}' holds {'nothing' if cell in ('', None) else cell}, not a whole number"
        ) from None
    if not 0 <= value < 2**63:
        raise LabelError(f"line {line}: column '{column}' holds {value}; ids are 0 or more and fit 63 bits")
    return value


def _float(cell: Any) -> float:
    if isinstance(cell, str) and "_" in cell:  # float("6_0") is 60
        raise ValueError(cell)
    return float(cell)


class _RowReader:
    """Knows which column is which, and turns a row's box and attribute cells into numbers."""

    box_names: tuple[str, ...]

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns
        present = [name for name in _PATH_NAMES if name in columns]
        if len(present) != 1:
            raise LabelError(
                f"needs one column that names the photograph ({', '.join(_PATH_NAMES)}), found {len(present)}"
            )
        self.path_name = present[0]
        if "bbox" in columns:
            self.box_names, self.corners = ("bbox",), False
        else:
            found = [(names, corners) for names, corners in _BOX_NAMES if set(names) <= set(columns)]
            if not found:
                raise LabelError("has no box columns; name them x,y,w,h or x1,y1,x2,y2")
            self.box_names, self.corners = found[0]
        known = {self.path_name, *self.box_names, *_OPTIONAL_NAMES, ""}
        self.attributes = [name for name in columns if name not in known]
        for name in self.attributes:  # which zeros and ones would make an attribute of
            if name.lower() in known:
                raise LabelError(
                    f"column '{name}': write '{name.lower()}' if it says that, or another name if it is an attribute"
                )

    def box(self, line: int, row: dict[str, Any]) -> tuple[float, float, float, float]:
        """x, y, width, height; an empty cell is NaN, so that the object is counted and left out, not lost."""
        cells = [row.get(name) for name in self.box_names]
        if self.box_names == ("bbox",):
            cells = row.get("bbox") or [None] * 4
            if not isinstance(cells, list):
                raise LabelError(
                    f"line {line}: column 'bbox' holds {cells!r}, not a list [x, y, w, h]; CSV needs columns x,y,w,h"
                )
        try:
            try:
                a, b, c, d = map(_float, cells)
            except (TypeError, ValueError):  # few boxes have a blank cell; looking at each costs more than reading it
                a, b, c, d = (math.nan if is_blank(cell) else _float(cell) for cell in cells)
        except (TypeError, ValueError, OverflowError):
            raise LabelError(f"line {line}: the box {cells} is not four numbers") from None
        return (a, b, c - a, d - b) if self.corners else (a, b, c, d)

    def labels(self, line: int, row: dict[str, Any]) -> list[float]:
        if not is_blank(row.get("")):
            raise LabelError(
                f"line {line}: a column without a name holds {row['']!r}; name it or drop it (pandas: to_csv(..., index=False))"
            )
        values = []
        for name in self.attributes:
            cell = row.get(name)
            text = "" if cell is None else str(cell).strip().lower()
            try:
                value = _TRUTH[text] if text in _TRUTH else _float(text)
            except ValueError:
                raise LabelError(
                    f"line {line}: column '{name}' holds '{cell}', not a label from 0 to 1 (-1 or empty: unknown); {_NO_ATTRIBUTE}"
                ) from None
            if value == -1:
                value = math.nan
            elif value < 0 or value > 1:
                raise LabelError(
                    f"line {line}: column '{name}' holds {cell}; a label is 0 to 1, or -1 or empty for unknown; {_NO_ATTRIBUTE}"
                )
            values.append(value)
        return values

"""Scores and labels in anybody's files: NumPy arrays, Parquet, CSV. Nothing in a file can run."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from attrtrain.errors import PredictionsError
from attrtrain.predictions import errors_naming
from attrtrain.wording import given_twice, some_of

_SHOWN = 5  # columns of a line
_IDS = ("object_id", "image_id", "Unnamed: 0", "__index_level_0__")
"""Columns of numbers that stand beside attributes in tables of attrtrain and of others, the last two pandas' row
numbers; they would be judged like them, and rows are not matched by them."""


@dataclass(frozen=True)
class Matrix:
    """Numbers, one row an object and one column an attribute.

    Attributes:
        values: (N, A) floating, in the precision of the file; NaN where a cell is empty.
        names: (A) column names, None where the file has none; of an array in an .npz, what its array `names` holds.
        is_numbered: whether the names are 0, 1, 2 and so on in a CSV's first line, which may be an object's cells.
        is_whole: whether no cell was written with decimals; told of those that are numbered.
        empty_at_end: empty lines after the N rows of a CSV of one attribute, each an object's or none.
    """

    values: NDArray[np.floating]
    names: tuple[str, ...] | None
    is_numbered: bool = False
    is_whole: bool = False
    empty_at_end: int = 0


def read_matrices(scores: str, labels: str) -> tuple[Matrix, Matrix]:
    """Reads what was predicted and what is true of the same objects, as `read_matrix`. What a file leaves open, the
    number of objects in the other decides: whether a CSV's first line of 0, 1, 2 and so on is an object's or holds
    names, as pandas writes those of columns without any, and whether empty lines at the end of one attribute's labels
    are objects of which nothing is known.

    Returns:
        Scores and labels, of other shapes if no reading gives both the same objects.

    Raises:
        PredictionsError: as `read_matrix`; or nothing tells which of the two such a first line is: several readings
            fit, or the one that fits takes it for an object's though both files begin with one, or though cells below
            have decimals.
    """
    both = predicted, true = read_matrix(scores), read_matrix(labels)
    readings = _readings(predicted, true)
    if not readings:
        return both
    unsettled = [
        place
        for place, matrix, adds in zip((scores, labels), both, zip(*readings, strict=True), strict=True)
        if len(set(adds)) > 1 or (any(adds) and (predicted.is_numbered == true.is_numbered or not matrix.is_whole))
    ]
    if unsettled:
        line = some_of([str(column) for column in range(true.values.shape[1])], _SHOWN)
        raise PredictionsError(
            f"{' and '.join(unsettled)}: the first line, {line}, may be names or an object; if names, write some with letters, and if an object, put a line of names above it"
        )
    predicted, true = (
        _with_first_line(matrix) if adds else matrix for matrix, adds in zip(both, readings[0], strict=True)
    )
    unknown = np.full((len(predicted.values) - len(true.values), true.values.shape[1]), np.nan, true.values.dtype)
    return predicted, replace(true, values=np.concatenate([true.values, unknown]) if len(unknown) else true.values)


def _readings(predicted: Matrix, true: Matrix) -> list[tuple[int, int]]:
    """By how many rows the first lines of scores and labels may add to them, so that both are of the same objects."""
    attributes = true.values.shape[1]
    if predicted.values.shape[1] != attributes:
        return []
    return [
        (of_scores, of_labels)
        for of_scores in range(1 + predicted.is_numbered)
        for of_labels in range(1 + true.is_numbered)
        if 0 <= len(predicted.values) + of_scores - len(true.values) - of_labels <= true.empty_at_end
        and not (of_scores and of_labels and attributes > 2)  # in both, 0, 1, 2 are names: a probability is 1 at most
    ]


def read_matrix(place: str) -> Matrix:
    """Reads a .npy, .npz, .parquet, .csv or .tsv file; `file.npz:name` is one of several arrays. A CSV whose first line
    holds numbers has no column names, unless they are 0, 1, 2 and so on, as columns without a name are written. Arrow
    gets files open: by its path, it opens none whose name is in another encoding than UTF-8.

    Raises:
        PredictionsError: naming the file, if it is not there, damaged, of another kind, not numeric or not a matrix.
    """
    path, member = _split_member(place)
    with errors_naming(path, "damaged, or not what its name says"):
        match path.suffix.lower():
            case ".npy" | ".npz":
                values = _as_floats(_read_numpy(path, member))
                matrix = Matrix(values, _names_beside(path, values) if path.suffix.lower() == ".npz" else None)
            case ".parquet" | ".pq":
                with path.open("rb") as file:
                    matrix = _from_table(pa_parquet.ParquetFile(file).read())
            case ".csv" | ".tsv":
                matrix = _read_csv(path)
            case other:
                raise PredictionsError(f"is of an unknown kind '{other}'; give .npy, .npz, .parquet or .csv")
        if matrix.values.ndim != 2 or not matrix.values.size:
            raise PredictionsError(
                f"has shape {matrix.values.shape}; needs one row an object and one column an attribute"
            )
    return matrix


def read_column(place: Path) -> NDArray[Any]:
    """One value an object, (N,) numbers or strings: a .npy array, `file.npz:name`, a .json list, or a text file with
    one value a line.

    Raises:
        PredictionsError: naming the file, if it cannot be read or is no such list.
    """
    path, member = _split_member(str(place))
    with errors_naming(path, "cannot be read"):
        match path.suffix.lower():
            case ".npy" | ".npz":
                values = _read_numpy(path, member)
            case ".json":
                content = _json_list(path)
                if None in content:
                    raise PredictionsError(
                        f"entry {content.index(None)} is null; say what it is, or leave the file out"
                    )
                values = np.array([str(value) for value in content], dtype=str)
            case _:
                values = np.array(
                    [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()], dtype=str
                )
        if values.ndim != 1 or values.dtype.kind not in "biuU":
            raise PredictionsError(
                f"holds {values.dtype} of shape {values.shape}, not one name or whole number an object"
            )
    return values


def read_names(path: Path) -> tuple[str, ...]:
    """Attribute names from a JSON list of strings, or an object of name → column as VAW's attribute_index.json.

    Raises:
        PredictionsError: naming the file, if it is neither.
    """
    with errors_naming(path, "not valid JSON"):
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict) and sorted(content.values(), key=str) == sorted(range(len(content)), key=str):
        return tuple(sorted(content, key=lambda name: int(content[name])))
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise PredictionsError(f"{path}: is neither a list of attribute names nor an object of name and column number")
    return tuple(content)


def _split_member(place: str) -> tuple[Path, str | None]:
    path, colon, member = place.rpartition(":")
    if colon and path.lower().endswith(".npz"):
        return Path(path), member
    return Path(place), None


def _read_numpy(path: Path, member: str | None) -> NDArray[Any]:
    with path.open("rb") as file:  # opened here, because np.load leaves the file of a damaged archive open
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = list(loaded)
            choices = [name for name in names if name != "names"] or names  # those of the columns of another
            if member is None and len(choices) != 1:
                raise PredictionsError(
                    f"holds {len(names)} arrays ({', '.join(names)}); say which, such as {path.name}:{choices[0] if choices else 'NAME'}"
                )
            if member is not None and member not in names:
                raise PredictionsError(f"has no array '{member}'; there are: {', '.join(names)}")
            array: NDArray[Any] = loaded[choices[0] if member is None else member]
        except ValueError as error:
            if "allow_pickle" in str(error) or "pickle" in str(error):
                raise PredictionsError(
                    "holds pickled Python objects, which could run code and are never loaded; save a plain array"
                ) from None
            raise
    return array


def _names_beside(path: Path, values: NDArray[np.floating]) -> tuple[str, ...] | None:
    """What an .npz calls the columns of its arrays, as `predictions.npz` does; None if it holds no such `names`."""
    try:
        names = _read_numpy(path, "names")
    except PredictionsError:  # it has none, or pickled ones
        return None
    if values.ndim != 2 or names.dtype.kind != "U" or names.shape != values.shape[1:]:
        return None
    stripped = tuple(name.strip() for name in names.tolist())
    return None if given_twice(stripped) else stripped


def _read_csv(path: Path) -> Matrix:
    parse = pa_csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    # Not all of it, which is read once.
    with path.open("rb") as file, pa_csv.open_csv(file, parse_options=parse) as beginning:
        names = beginning.schema.names
    # Of one attribute, an empty line between others is an object of which nothing is known.
    parse.ignore_empty_lines = len(names) > 1
    text = b"" if parse.ignore_empty_lines else path.read_bytes().removeprefix(BOM_UTF8)
    is_numbered = are_numbered([name.strip() for name in names]) and not text.startswith((b"\n", b"\r"))
    has_names = is_numbered or not _are_cells(names)
    options = pa_csv.ReadOptions(autogenerate_column_names=not has_names)
    with path.open("rb") as file:
        table = pa_csv.read_csv(file, parse_options=parse, read_options=options)
    empty_at_end = _empty_lines_at_end(text)
    matrix = _from_table(table.slice(0, table.num_rows - empty_at_end))
    return Matrix(
        matrix.values,
        matrix.names if has_names else None,
        is_numbered=is_numbered,
        is_whole=not any(pa.types.is_floating(kind) for kind in table.schema.types),
        empty_at_end=empty_at_end,
    )


def _empty_lines_at_end(text: bytes) -> int:
    """The end of the last line that holds something is none of them; `""` holds something."""
    ends = text[len(text.rstrip(b"\r\n")) :]
    return max(len(re.findall(rb"\r\n|\r|\n", ends)) - 1, 0)


def _with_first_line(matrix: Matrix) -> Matrix:
    """The first line, 0, 1, 2 and so on, as an object's cells."""
    return replace(
        matrix, values=np.vstack([np.arange(matrix.values.shape[1]), matrix.values]), names=None, is_numbered=False
    )


def _from_table(table: pa.Table) -> Matrix:
    names = [name.strip() for name in table.column_names]
    # Spreadsheets leave columns with neither a name nor cells.
    kept = [column for column, name in enumerate(names) if name or table.column(column).null_count < table.num_rows]
    table, names = table.select(kept), [names[column] for column in kept]
    if "" in names:
        raise PredictionsError(
            f"column {kept[names.index('')] + 1} has no name; name it or drop it (pandas: to_csv(..., index=False))"
        )
    wrong = [
        name
        for name, kind in zip(names, table.schema.types, strict=True)
        if not (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_null(kind)
        )
    ]
    todo = "leave only one column an attribute"
    if "object_id" in names:  # attrtrain's own have their rows in the order of the photographs
        todo = f"bring the objects of both files into one order, for they are not matched by object_id, and {todo}"
    if wrong:
        raise PredictionsError(f"columns that are not numbers: {some_of(wrong, _SHOWN)}; {todo}")
    if repeated := given_twice(names):
        raise PredictionsError(f"column names given twice: {some_of(repeated, _SHOWN)}")
    if ids := [name for name in names if name in _IDS]:
        raise PredictionsError(f"columns that are no attributes: {some_of(ids, _SHOWN)}; {todo}")
    single = all(kind in (pa.float32(), pa.float16()) for kind in table.schema.types)
    values = np.empty((table.num_rows, len(names)), dtype=np.float32 if single else np.float64)
    for place, column in enumerate(table.columns):
        values[:, place] = column.cast(pa.float32() if single else pa.float64()).to_numpy()  # empty cells become NaN
    return Matrix(values, tuple(names))


def _as_floats(array: NDArray[Any]) -> NDArray[np.floating]:
    if array.dtype.kind not in "biuf":
        raise PredictionsError(f"holds {array.dtype}, not numbers")
    if array.dtype.kind == "f":
        return array.astype(array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64, copy=False)
    # Whole numbers that float32 holds.
    exact = not array.size or max(abs(int(array.min())), abs(int(array.max()))) <= 2**24
    return array.astype(np.float32 if exact else np.float64)


def _json_list(path: Path) -> list[Any]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, list):
        raise PredictionsError("is not a JSON list")
    return content


def _are_cells(line: list[str]) -> bool:
    """Whether a CSV's first line is an object's, if it is not 0, 1, 2 and so on. With nothing before them, 0 and 1 are
    cells, which labels may begin with.
    """
    cells = [cell.strip() for cell in line]
    if not all(_is_number(cell) for cell in cells if cell):
        return False
    has_row_numbers = cells[0] == "" and len(cells) > 3 and are_numbered(cells[1:])  # which pandas gives no name
    return any(cells) and not has_row_numbers


def are_numbered(names: Sequence[str]) -> bool:
    """Whether columns have names that say nothing, 0, 1, 2 and so on."""
    return list(names) == [str(column) for column in range(len(names))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""CSV, TSV and JSON-lines files → rows as dictionaries."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrtrain.errors import LabelError
from attrtrain.wording import counted, given_twice

if TYPE_CHECKING:
    from _csv import Reader

NOTHING = ("", "nan", "none", "null", "na", "n/a", "#n/a", "<na>")
"""An empty cell, in small letters, as Python, JSON, R, spreadsheets and pandas write it."""
_ONE_A_LINE = "give one object a line (pandas: to_json(..., orient='records', lines=True))"


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, row); a row's keys are column names without surrounding space. Lines with nothing in their
    cells are left out, and of columns without a name, the first that says something is kept: spreadsheets write both,
    empty.

    Raises:
        LabelError: naming the line that cannot be read; OSError and UnicodeDecodeError are left to the caller, who
            knows what the file is for.
    """
    match path.suffix.lower():
        case ".jsonl":
            yield from _json_lines(path)
        case ".tsv":
            yield from _table_rows(path, "\t")
        case _:
            yield from _table_rows(path, ",")


def is_blank(cell: object) -> bool:
    """Whether a cell says nothing."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in NOTHING)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for line_number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=partial(_row_of, line_number))
            except (ValueError, RecursionError) as error:
                advice = f"; {_ONE_A_LINE}" if line.strip() in ("[", "{") else ""
                raise LabelError(f"line {line_number}: not valid JSON ({error}){advice}") from None
            if not isinstance(row, dict):
                raise LabelError(f"line {line_number}: not a JSON object; {_ONE_A_LINE}")
            yield line_number, row


def _table_rows(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        rows = _csv_rows(reader)
        first = next(rows, [])
        if first == ["sep=", ""]:  # how Excel is told the separator that it was split at, and does not show
            first = next(rows, [])
        header = [name.strip() for name in first]
        _check_header(header)
        nameless = [column for column, name in enumerate(header) if not name]
        for cells in rows:
            if len(cells) != len(header):
                raise LabelError(
                    f"line {reader.line_num}: {counted(len(cells), 'cell')} under {counted(len(header), 'column name')}"
                )
            row = dict(zip(header, cells, strict=True))
            if nameless:
                row[""] = next((cells[column].strip() for column in nameless if not is_blank(cells[column])), "")
            yield reader.line_num, row


def _check_header(header: list[str]) -> None:
    """Raises LabelError for column names that only another encoding or separator makes, or that stand there twice."""
    if any("\0" in name for name in header):
        raise LabelError("is not UTF-8 text; save it as CSV with encoding UTF-8, or as JSON lines")
    if len(header) == 1 and (separator := next((sign for sign in ";\t|" if sign in header[0]), None)):
        named = "tabs" if separator == "\t" else f"'{separator}'"
        raise LabelError(f"its columns are separated by {named}; save it with commas, or with tabs as .tsv")
    if repeated := given_twice(filter(None, header)):
        raise LabelError(f"column names given twice: {', '.join(repeated)}; rename or drop one of each")


def _csv_rows(reader: "Reader") -> Iterator[list[str]]:
    """The rows that have something in their cells, of a strict reader, which refuses a cell that begins with a quote
    and does not end with one: else all rows up to the next quote would be one cell.
    """
    line = reader.line_num + 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield cells
            line = reader.line_num + 1
    except csv.Error as error:
        about_quotes = "expected after" in str(error) or "unexpected end" in str(error)
        advice = "; a text that holds a quote is written in quotes, with each quote of its own doubled"
        raise LabelError(f"line {line}: cannot be read as CSV ({error}){advice if about_quotes else ''}") from None


def _row_of(line: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON lines, its keys without surrounding space."""
    row = {key.strip(): value for key, value in pairs}
    if len(row) < len(pairs):
        repeated = given_twice(key.strip() for key, _ in pairs)
        raise LabelError(f"line {line}: keys given twice: {', '.join(repeated)}; rename or drop one of each")
    return row

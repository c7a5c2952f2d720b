"""Finding objects in what `attrtrain annotate` and `attrtrain features` wrote, with DuckDB."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from attrtrain.errors import ConfigError, PredictionsError
from attrtrain.inference.query import Query, Sql, quoted
from attrtrain.inference.results import FEATURES, ResultInfo, opened, read_info
from attrtrain.shards.crop import Box


@dataclass(frozen=True)
class Match:
    """An object that was found.

    Attributes:
        image_size: width and height in pixels in which the box is meant, 0 where nothing says so.
        score: the joint score, or the cosine to the object it should be like.
        box: x, y, width, height in pixels.
        attributes: name and score of those that were asked for.
    """

    object_id: int
    image: str
    image_size: tuple[int, int]
    box: Box
    category: str
    score: float
    attributes: list[tuple[str, float]]


@dataclass(frozen=True)
class Example:
    """An object to which others should be like, and the file that has the features of all of them."""

    object_id: int
    features: Path


def search(path: Path, query: Query | None, example: Example | None, limit: int) -> tuple[list[Match], int]:
    """Finds the objects that match a query, best first: by joint score, or by the cosine of their features to those of
    an example. Of equals, the lower id comes first.

    Args:
        path: what `attrtrain annotate` wrote.
        query: of its attributes; None takes all objects.
        example: is not among those found.
        limit: how many to return.

    Returns:
        The matches, and how many there are beyond the limit, too.

    Raises:
        PredictionsError: a file cannot be read, or the example is not in it.
    """
    condition, rank, named = (
        (query.matches, query.score, query.attributes) if query else (Sql("true"), Sql("1::DOUBLE"), ())
    )
    files = {"predictions": path}
    scores = "".join(f", {quoted(one.column)} AS score{number}" for number, one in enumerate(named))
    size = "image_size" if "image_size" in pq.read_schema(opened(path)).names else "NULL"  # older files do not have it
    rows_of = Sql(
        f"SELECT object_id, image, {size} AS image_size, box, category, {rank.text} AS rank{scores} FROM predictions WHERE {condition.text}",
        rank.values + condition.values,
    )
    if example is not None:
        _require_example(example)
        files["described"] = example.features
        rows_of = _ranked_by_likeness(rows_of, example)
    last = "".join(f", score{number}" for number in range(len(named)))
    rows = _execute(
        files,
        Sql(
            f"SELECT object_id, image, image_size, box, category, rank, count(*) OVER (){last} FROM ({rows_of.text}) "
            "ORDER BY rank DESC, object_id LIMIT ?",
            (*rows_of.values, limit),
        ),
    )
    names = [one.name for one in named]
    found = [
        Match(row[0], row[1], _size(row[2]), _box(row[3]), row[4], row[5], list(zip(names, row[7:], strict=True)))
        for row in rows
    ]
    return found, rows[0][6] if rows else 0


def _ranked_by_likeness(rows_of: Sql, example: Example) -> Sql:
    """The same rows, ranked by the cosine of their features to the example's; without the example, and what has no
    features.
    """
    cosine = f"array_cosine_similarity(d.{FEATURES}, e.{FEATURES})::DOUBLE"
    # All features zero have no direction; what the cosine is of such depends on the version of DuckDB.
    directed = " AND ".join(f"array_inner_product({one}.{FEATURES}, {one}.{FEATURES}) > 0" for one in "de")
    return Sql(
        f"SELECT p.* REPLACE ({cosine} AS rank) FROM ({rows_of.text}) p JOIN described d USING (object_id), "
        f"(SELECT {FEATURES} FROM described WHERE object_id = ?) e "
        f"WHERE p.object_id <> ? AND {directed} AND isfinite({cosine})",
        (*rows_of.values, example.object_id, example.object_id),
    )


def read_predictions_info(path: Path) -> ResultInfo:
    """What the predictions to be searched say about themselves.

    Raises:
        PredictionsError: the file is something else.
    """
    info = read_info(path)
    if info.job.kind != "attributes":
        raise PredictionsError(
            f"{path}: holds features; search what `attrtrain annotate` wrote, and give this with --features"
        )
    return info


def _require_example(example: Example) -> None:
    is_table = example.features.suffix == ".parquet" and read_info(example.features).job.kind == "features"
    # Beside a .npy lies a table without them.
    if not is_table or FEATURES not in pq.read_schema(opened(example.features)).names:
        raise ConfigError(f"--features {example.features}: needs the .parquet file that `attrtrain features` writes")
    select = Sql("SELECT count(*) FROM described WHERE object_id = ?", (example.object_id,))
    if not _execute({"described": example.features}, select)[0][0]:
        raise PredictionsError(f"{example.features}: has no object {example.object_id}")


def _execute(files: dict[str, Path], select: Sql) -> list[tuple[Any, ...]]:
    """Runs one SELECT over files that go by these names, in a DuckDB that can open no other file."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": "false",
        "autoload_known_extensions": "false",
        "lock_configuration": "true",
    }
    try:
        with duckdb.connect(config=settings) as connection:
            for name, path in files.items():
                connection.register(name, _table_of(path))
            return connection.execute(select.text, select.values).fetchall()
    except (duckdb.Error, OSError, pa.ArrowInvalid) as error:
        told = re.sub(r"\s+", " ", str(error)).strip()
        raise PredictionsError(f"{', '.join(map(str, files.values()))}: cannot be searched ({told[:300]})") from None


def _table_of(path: Path) -> pyarrow.dataset.Dataset:
    parquet = pyarrow.dataset.ParquetFileFormat()
    fragment = parquet.make_fragment(opened(path))
    return pyarrow.dataset.FileSystemDataset([fragment], fragment.physical_schema, parquet)


def _size(value: dict[str, int] | None) -> tuple[int, int]:
    return (value["width"], value["height"]) if value else (0, 0)


def _box(value: dict[str, float]) -> Box:
    return value["x"], value["y"], value["width"], value["height"]

"""What `attrtrain annotate` and `attrtrain features` write: Parquet with one row an object, and in its metadata what
made it.

    object_id   int64
    image       string, the photograph's name
    image_size  struct of width and height in pixels, in which the box is meant; 0 where nothing says so
    box         struct of x, y, width, height in pixels
    category    string, "" where unknown
    caption     string, only where asked for
    furry …     float, one column an attribute: its score in [0, 1]           (annotate)
    features    fixed-size list of floats, the backbone's pooled output       (features)

The schema's metadata has one key, "attrtrain": a `ResultInfo` as JSON.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from attrtrain.contract import Contract
from attrtrain.errors import PredictionsError
from attrtrain.framing import Framing
from attrtrain.inference.objects import Objects
from attrtrain.shards.manifest import CropSettings

METADATA = b"attrtrain"
BASE_COLUMNS = ("object_id", "image", "image_size", "box", "category", "caption")
BOX = pa.struct([(name, pa.float64()) for name in ("x", "y", "width", "height")])
SIZE = pa.struct([(name, pa.int64()) for name in ("width", "height")])
FEATURES = "features"
NEVER = 1.0
"""The threshold of an attribute that no object of the training had; tuned ones are lower."""


class Job(Contract):
    """All that decides a result. Two results of equal jobs are the same, wherever and with however many interruptions
    they were made.

    Attributes:
        kind: which command.
        model: fingerprint of the bundle.
        precision: of the arithmetic.
        thresholds: (A) of the attributes.
        objects: SHA-256 of ids, photographs, boxes and categories.
        images: folders of photographs, or shards and their split, as they were given.
        captions: whether there are any.
    """

    kind: Literal["attributes", "features"]
    model: str
    precision: str
    thresholds: list[float]
    objects: str
    images: list[str]
    captions: bool = False

    def differences(self, other: "Job") -> list[str]:
        """Names of the fields that differ."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [name for name in mine if mine[name] != theirs[name]]


class AttributeColumn(Contract):
    """An attribute: its name, the column that holds its score, the score from which on it counts as present, and its
    group.
    """

    name: str
    column: str
    threshold: float
    group: str

    @property
    def is_learnt(self) -> bool:
        """Whether any object of the training had it; else its score may be anything, and it is never present."""
        return self.threshold < NEVER


class ResultInfo(Contract):
    """What is known about a result besides its rows. `framing` is what of a crop was seen; `left_out` counts, by
    reason, the objects that have no row.
    """

    schema_version: Literal[1] = 1
    job: Job
    attributes: list[AttributeColumn]
    threshold_note: str
    crop: CropSettings
    framing: Framing = Field(default_factory=Framing)
    written: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)


def attribute_columns(
    names: Sequence[str], thresholds: Sequence[float], groups: Sequence[str]
) -> list[AttributeColumn]:
    """A column for each attribute, called like it; a name that another column has, in whatever case (SQL sees none),
    gets a number.
    """
    taken = set(BASE_COLUMNS)
    columns = []
    for name, threshold, group in zip(names, thresholds, groups, strict=True):
        column, number = name, 2
        while column.casefold() in taken:
            column, number = f"{name} ({number})", number + 1
        taken.add(column.casefold())
        columns.append(AttributeColumn(name=name, column=column, threshold=threshold, group=group))
    return columns


def base_columns(objects: Objects) -> dict[str, pa.Array]:
    """The columns that say which objects these are."""
    boxes = [pa.array(np.ascontiguousarray(objects.box[:, side])) for side in range(4)]
    return {
        "object_id": pa.array(objects.object_id),
        "image": pa.array(objects.image.tolist(), pa.string()),
        "image_size": pa.StructArray.from_arrays(
            [pa.array(np.ascontiguousarray(objects.image_size[:, side])) for side in range(2)], fields=list(SIZE)
        ),
        "box": pa.StructArray.from_arrays(boxes, fields=list(BOX)),
        "category": pa.array(objects.category.tolist(), pa.string()),
    }


def fingerprint_of(objects: Objects) -> str:
    """SHA-256 over all columns of some objects."""
    digest = hashlib.sha256()
    for column in (objects.object_id, objects.image_size, objects.box, objects.crowd):
        digest.update(np.ascontiguousarray(column).tobytes())
    for text in (objects.image, objects.category):
        digest.update("\0".join(text.tolist()).encode())
    return digest.hexdigest()


def opened(path: Path) -> pa.NativeFile:
    """A file open for Arrow to read. By its path, Arrow opens none whose name is in another encoding than UTF-8."""
    return pa.OSFile(os.fsencode(path))


def read_info(path: Path) -> ResultInfo:
    """What a result says about itself.

    Raises:
        PredictionsError: the file is not there, or is not one of ours.
    """
    try:
        metadata = pq.read_schema(opened(path)).metadata or {}
        return ResultInfo.model_validate_json(metadata[METADATA])
    except FileNotFoundError:
        raise PredictionsError(f"{path}: no such file") from None
    except PermissionError:
        raise PredictionsError(f"{path}: may not be read") from None
    except (OSError, pa.ArrowInvalid, KeyError, ValidationError):
        raise PredictionsError(
            f"{path}: not a file that `attrtrain annotate` or `attrtrain features` of this version wrote"
        ) from None


def scores_of(table: pa.Table, info: ResultInfo) -> NDArray[np.float32]:
    """The scores (n, A) of some rows of a result."""
    columns: list[Any] = [table.column(attribute.column).to_numpy() for attribute in info.attributes]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)

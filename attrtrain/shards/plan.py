"""Which object goes to which shard: decided, and hashed, before a pixel is read.

Every shard is then a job of its own that any process on any machine can do in any order, with the same bytes as the
result.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from PIL import features
from simplejpeg import __version__ as simplejpeg_version

from attrtrain.annotations.table import ObjectTable
from attrtrain.contract import Contract
from attrtrain.errors import LabelError
from attrtrain.keyed_random import mix64
from attrtrain.shards.manifest import CropSettings

_HASHED_ROWS = 4096


@dataclass(frozen=True)
class PlannedShard:
    """One shard: its file name, its split, the rows of the table it holds in order, and the hash of all that decides
    its bytes.
    """

    name: str
    split: str
    rows: NDArray[np.int64]
    hash: str


@dataclass(frozen=True)
class ShardPlan:
    """Every shard of a data set. `inputs` says in comparable lines what the plan was made from."""

    shards: tuple[PlannedShard, ...]
    inputs: "PlanInputs"


class PlanInputs(Contract):
    """All that decides the bytes of the shards. Two plans with equal inputs are the same plan."""

    schema_version: int = 1
    objects: int
    photographs: int
    attributes: int
    vocabulary: str
    boxes: str
    labels: str
    splits: str
    shard_objects: int
    store_px: int
    quality: int
    context: float
    jpeg_encoder: str

    def differences(self, other: "PlanInputs") -> list[str]:
        """Lines such as `store_px: 256 → 224`, from `other` to this one."""
        before, after = other.model_dump(), self.model_dump()
        return [f"{key}: {_short(before[key])} → {_short(after[key])}" for key in after if before[key] != after[key]]


def make_plan(table: ObjectTable, crop: CropSettings, shard_objects: int) -> ShardPlan:
    """Deals objects out to shards of one split each, at most `shard_objects` unless one photograph alone has more.

    Photographs are dealt in an order hashed from their ids, so that each shard is a fair sample of its split, and the
    objects of one stay together, so that it is decoded once.

    Raises:
        LabelError: a split has a name that no file can have.
    """
    splits = sorted(set(table.split))
    for split in splits:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", split):
            raise LabelError(f"split '{split}': shard files are named after it, so use letters, digits, - and _ only")
    boxes = _boxes(table)
    inputs = _inputs(table, crop, shard_objects)
    shards: list[PlannedShard] = []
    for split in splits:
        rows = np.flatnonzero(table.split == split)
        # Rows by hashed photograph, then by object id: the same for any order of the label file.
        rows = rows[np.lexsort((table.object_id[rows], table.image_id[rows], mix64(table.image_id[rows])))]
        for number, part in enumerate(_packs(table.image_id[rows], shard_objects)):
            own = rows[part]
            content = _hash(own, *boxes, table.labels)
            settings = f"{split} {inputs.vocabulary} {crop.model_dump_json()} {inputs.jpeg_encoder}"
            shards.append(
                PlannedShard(
                    f"{split}-{number:06d}", split, own, hashlib.sha256(f"{content} {settings}".encode()).hexdigest()
                )
            )
    return ShardPlan(tuple(shards), inputs)


def _boxes(table: ObjectTable) -> tuple[NDArray[Any], ...]:
    """The columns that decide what is cut out of which photograph, and what is said of it."""
    return table.object_id, table.image_id, table.image, table.image_size, table.box, table.category, table.crowd


def _inputs(table: ObjectTable, crop: CropSettings, shard_objects: int) -> PlanInputs:
    by_id = np.argsort(table.object_id)  # the same for any order of the label file
    return PlanInputs(
        objects=len(table),
        photographs=len(np.unique(table.image_id)),
        attributes=len(table.vocabulary),
        vocabulary=table.vocabulary.fingerprint,
        boxes=_hash(by_id, *_boxes(table)),
        labels=_hash(by_id, table.labels),
        splits=_hash(by_id, table.split),
        shard_objects=shard_objects,
        **crop.model_dump(),
        jpeg_encoder=f"simplejpeg {simplejpeg_version}, Pillow {pillow_version}, libjpeg-turbo {features.version('libjpeg_turbo')}, "
        f"libjpeg {features.version('jpg')}",
    )


def _packs(image_id: NDArray[np.int64], size: int) -> list[slice]:
    """Cuts a row of objects, sorted by photograph, into slices of about `size` that never part a photograph."""
    # Where each photograph begins, and the end.
    firsts = np.flatnonzero(np.r_[True, image_id[1:] != image_id[:-1], True])
    packs, start = [], 0
    for begin, end in pairwise(firsts):
        if end - start > size and begin > start:
            packs.append(slice(start, int(begin)))
            start = int(begin)
    return [*packs, slice(start, len(image_id))]


def _hash(rows: NDArray[np.int64], *columns: NDArray[Any]) -> str:
    """SHA-256 of some rows of columns, one column after the other, a few rows at a time: a table may fill much of the
    memory.
    """
    digest = hashlib.sha256()
    for column in columns:
        parts = (column[rows[start : start + _HASHED_ROWS]] for start in range(0, len(rows), _HASHED_ROWS))
        if column.dtype.kind in "biuf":
            for part in parts:
                digest.update(np.ascontiguousarray(part).data)
        else:
            # Strings by their text, as a JSON list: the width of a NumPy string column depends on its longest value.
            digest.update(b"[")
            for number, part in enumerate(parts):
                digest.update((", " * bool(number) + json.dumps(part.tolist())[1:-1]).encode())
            digest.update(b"]")
    return digest.hexdigest()


def _short(value: object) -> str:
    return value[:12] + "…" if isinstance(value, str) and len(value) == 64 else str(value)

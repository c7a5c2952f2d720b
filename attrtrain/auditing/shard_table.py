"""A shard folder as what it was made from: an ObjectTable, and the crops of its rows."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from attrtrain.annotations.table import ObjectTable
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError
from attrtrain.shards.manifest import read_manifest


@dataclass(frozen=True)
class ShardTable:
    """A shard folder's content.

    Attributes:
        table: its N objects, splits in manifest order; boxes and photographs as the annotations had them.
        sets: the splits, rows of `table` one after the other.
        labelled: objects in the label file, those without annotation among them; None where that is not told.
        instances: names of the COCO instances files the shards were made with.
        left_out: objects that were matched but not written, by reason.
    """

    table: ObjectTable
    sets: tuple[ShardSet, ...]
    labelled: int | None
    instances: tuple[str, ...]
    left_out: dict[str, int]

    def jpeg(self, row: int) -> bytes:
        """The stored crop of a row of the table."""
        for shards in self.sets:
            if row < len(shards):
                return shards.jpeg(row)
            row -= len(shards)
        raise IndexError(row)


def read_shard_table(place: Path | str) -> ShardTable:
    """Reads a shard folder, a path or a URL; of each sample its index entry and its JSON, but no crop.

    Raises:
        ShardError: it is no finished shard folder, or is damaged.
    """
    manifest = read_manifest(place)
    sets = tuple(ShardSet([place], split) for split in manifest.held_splits)
    details = [
        shards.details(row)
        for shards in sets
        for row in tqdm(range(len(shards)), desc=f"reading {shards.split}", unit="objects", disable=None, leave=False)
    ]
    try:
        table = ObjectTable(
            vocabulary=manifest.vocabulary.vocabulary(),
            object_id=np.concatenate([shards.column("object_id") for shards in sets]),
            image_id=np.concatenate([shards.column("image_id") for shards in sets]),
            image=np.array([entry["image"] for entry in details], dtype=str),
            image_size=np.array([entry["source_size"] for entry in details], dtype=np.int64).reshape(-1, 2),
            box=np.array([entry["source_box"] for entry in details], dtype=np.float64).reshape(-1, 4),
            category=np.array([name for shards in sets for name in shards.categories()], dtype=str),
            split=np.concatenate([np.full(len(shards), shards.split) for shards in sets]),
            crowd=np.zeros(len(details), dtype=bool),
            labels=np.concatenate([shards.labels(np.arange(len(shards))) for shards in sets]),
            unmatched=np.zeros(0, dtype=np.int64),
            sources=(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"{place}: its samples are not as `attrtrain shard` writes them ({type(error).__name__}: {error}); check it with `attrtrain verify {place}`"
        ) from None
    instances = tuple(source.name for source in manifest.sources[1:] if source.name.endswith(".json"))
    return ShardTable(table, sets, _labelled(place), instances, manifest.left_out)


def _labelled(place: Path | str) -> int | None:
    if not isinstance(place, Path):
        return None
    try:
        count = json.loads((place / "summary.json").read_bytes())["label_objects"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it only serves people; shards are complete without it
    return count if isinstance(count, int) else None

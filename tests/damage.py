"""Shards with a fault in them."""

from pathlib import Path

import numpy as np

from attrtrain.data.reader import ShardSet


def damage_crop(shards: ShardSet, position: int) -> tuple[int, Path]:
    """Overwrites the beginning of a stored crop, in a folder of a test's own. Returns the object's id and its shard's
    path.

    Args:
        shards: of one folder.
        position: of the sample in it.
    """
    sample = {name: int(shards.column(name, np.array([position]))[0]) for name in ("object_id", "shard", "jpeg_offset")}
    path = Path(shards.folders[0]) / shards.manifests[0].shards[sample["shard"]].name
    with path.open("r+b") as tar:
        tar.seek(sample["jpeg_offset"])
        tar.write(bytes(16))
    return sample["object_id"], path

"""What several shard folders that are read together have in common, and should not: objects, and photographs of two splits.

Within one folder neither can be, which is checked when it is made.
"""

import numpy as np

from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError

_SAME = ("object_id", "image_id", "width", "height", "jpeg_bytes")
"""Fields of the index that are equal for copies of a crop. Ids alone are not enough: data sets that have nothing to do with each other count from the same number."""
_COMPARED = 20  # pairs, by their bytes: small crops may have the same size by chance
_LOOKED_AT = 1000  # photographs, each by two JSONs


def require_each_once(shards: ShardSet) -> None:
    """Refuses folders that hold copies of an object, which would be trained on, or judged, twice.

    Raises:
        ShardError: naming the first such object and its folders.
    """
    ids = shards.column("object_id")
    if len(shards.folders) == 1 or len(np.unique(ids)) == len(ids):
        return
    columns = [shards.column(name) for name in _SAME]
    order = np.lexsort(columns[::-1])  # by object id first
    again = np.flatnonzero(np.all([column[order][1:] == column[order][:-1] for column in columns], axis=0))
    for place in again[:_COMPARED]:
        row, other_row = sorted(order[place : place + 2].tolist())
        if shards.jpeg(row) != shards.jpeg(other_row):
            continue
        one, other = shards.folder_of(row), shards.folder_of(other_row)
        where = f"{one} is given twice" if one == other else f"{one} and {other} hold the same crops"
        raise ShardError(
            f"{where}: {len(again):,} of {len(ids):,} objects of split '{shards.split}' would count twice, such as object {ids[row]}; "
            "give folders that share no object"
        )


def photographs_of_both(train: ShardSet, val: ShardSet) -> list[str]:
    """Names of photographs, at most 1,000, that lie in the train split of one folder and in the val split of another: what was learnt from them is asked of them."""
    if len(train.folders) == 1:
        return []
    _, mine, others = np.intersect1d(train.column("image_id"), val.column("image_id"), return_indices=True)
    # Ids that a label file gave may be of another photograph elsewhere.
    names = (
        _name_of_both(train, int(row), val, int(other))
        for row, other in zip(mine[:_LOOKED_AT], others[:_LOOKED_AT], strict=True)
    )
    return [name for name in names if name is not None]


def _name_of_both(train: ShardSet, row: int, val: ShardSet, other: int) -> str | None:
    a, b = train.details(row), val.details(other)
    is_same = all(a[key] == b[key] for key in ("image", "source_size"))
    return str(a["image"]) if is_same else None

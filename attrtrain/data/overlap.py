"""What several shard folders that are read together have in common, and should not: objects, and photographs of two
splits.

Within one folder neither can be, which is checked when it is made. Ids alone tell little: data sets that have nothing
to do with each other count from the same number. So objects and photographs of equal ids are compared by what their
JSON says of them.
"""

from collections.abc import Iterator
from itertools import islice, permutations
from typing import Any

import numpy as np

from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError
from attrtrain.wording import counted

_COMPARED = 20  # objects: of two copies of a data set, or of a part of one, the first will do
_LOOKED_AT = 1000  # photographs, each by two JSONs
_OBJECT, _PHOTOGRAPH = ("image", "source_size", "source_box"), ("image", "source_size")


def require_each_once(shards: ShardSet) -> None:
    """Refuses folders that hold an object twice, which would be trained on, or judged, twice.

    Raises:
        ShardError: naming the first such object and its folders.
    """
    ids = shards.column("object_id")
    if len(shards.folders) == 1 or len(np.unique(ids)) == len(ids):
        return
    image_ids = shards.column("image_id")
    order = np.lexsort((image_ids, ids))  # stable: of equal ones the earlier folder comes first
    again = np.flatnonzero((np.diff(ids[order]) == 0) & (np.diff(image_ids[order]) == 0))
    for row, other in order[again[:_COMPARED, None] + [0, 1]].tolist():
        if not _are_alike(shards.details(row), shards.details(other), _OBJECT):
            continue
        first, second = shards.folder_of(row), shards.folder_of(other)
        where = f"{first} is given twice" if first == second else f"{first} and {second} hold the same objects"
        raise ShardError(
            f"{where}: {len(again):,} of {len(ids):,} of split '{shards.split}' would count twice, such as object {ids[row]}; "
            "give folders that share no object"
        )


def photographs_of_both(train: ShardSet, val: ShardSet) -> list[str]:
    """Names of photographs, at most 1,000, that lie in the train split of one folder and in the val split of another:
    what was learnt from them is asked of them.

    Raises:
        ShardError: a sample cannot be read.
    """
    return list(islice(_photographs_of_both(train, val), _LOOKED_AT))


def _photographs_of_both(train: ShardSet, val: ShardSet) -> Iterator[str]:
    sets = zip(train.folders, train.manifests, strict=True)
    for (folder, manifest), (other, other_manifest) in permutations(sets, 2):
        if train.split not in manifest.held_splits or val.split not in other_manifest.held_splits:
            continue
        learnt = ShardSet([folder], train.split, train.cache, [manifest])
        judged = ShardSet([other], val.split, val.cache, [other_manifest])
        _, mine, others = np.intersect1d(learnt.column("image_id"), judged.column("image_id"), return_indices=True)
        for row, other_row in zip(mine[:_LOOKED_AT].tolist(), others[:_LOOKED_AT].tolist(), strict=True):
            sample = learnt.details(row)
            if _are_alike(sample, judged.details(other_row), _PHOTOGRAPH):
                yield str(sample["image"])


def leaks(train: ShardSet, val: ShardSet) -> list[str]:
    """A line about photographs that are trained on in one folder and judged in another, or about a split that is both;
    none where there is nothing to say.
    """
    if train.split == val.split and not set(train.folders).isdisjoint(val.folders):
        return [f"warning: split '{val.split}' is trained on and judged: scores tell what was learnt by heart"]
    try:
        names = photographs_of_both(train, val)
    except ShardError:  # which will be told by who needs that sample
        return []
    if not names:
        return []
    at_least = "at least " if len(names) == _LOOKED_AT else ""
    return [
        f"warning: {at_least}{counted(len(names), 'photograph is', 'photographs are')} in split '{train.split}' of one folder and in "
        f"'{val.split}' of another, such as {names[0]}: "
        "scores will flatter; shard these data sets together, or leave one out"
    ]


def _are_alike(one: dict[str, Any], other: dict[str, Any], fields: tuple[str, ...]) -> bool:
    return all(one[field] == other[field] for field in fields)

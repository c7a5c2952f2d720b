"""Which objects are trained on and which are judged. A photograph is never in two splits, whoever made them.

Objects of one photograph share light, place and often subject; split apart, they would let a model recognise the
photograph.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import LabelError
from attrtrain.keyed_random import mix64
from attrtrain.wording import counted


def apply_split(table: ObjectTable, rule: str, val_share: float, seed: int) -> tuple[ObjectTable, str]:
    """Returns the table with its split column decided and checked, and a line that says how.

    Args:
        rule: "official" takes the label file's own split as it is; "image" draws one by photograph; "auto" is the
            file's own, photographs torn between two splits mended, and a drawn one where no object has any.
        val_share: share of objects that "image" puts into "val", in (0, 1).
        seed: chooses among the splits "image" could draw.

    Raises:
        LabelError: under "official", where a photograph is in two splits or an object in none; under "auto", where some
            objects have one and others have none.
    """
    without = table.split == ""
    has_own = not without.any()
    note = "split: the label file's own"
    match rule:
        case "official" if not has_own:
            missing = table.object_id[without]
            raise LabelError(
                f"{counted(len(missing), 'object has', 'objects have')} no split in the label file (first: object {missing[0]}); use --split image"
            )
        case "image":
            table = table.with_split(split_by_image(table, val_share, seed))
            note = f"split: drawn by photograph with seed {seed}"
        case "auto" if without.all():
            table = table.with_split(split_by_image(table, val_share, seed))
            note = f"split: the label file has none, drawn by photograph with seed {seed}"
        case "auto" if not has_own:  # drawing one for all would lose what the file says of the others
            of_all = f"of {counted(len(table), 'object')}"
            raise LabelError(
                f"{counted(without.sum(), f'{of_all} has', f'{of_all} have')} no split in the label file (first: object {table.object_id[without][0]}), and the others have; "
                "fill it in, or draw one for all with --split image"
            )
        case "auto" if len(torn_apart(table)):
            mended = mend_split(table)
            moved = mended != table.split
            photographs = len(np.unique(table.image_id[moved]))
            note += (
                f", but {counted(photographs, 'photograph was', 'photographs were')} in two splits; each went whole to the one that "
                f"holds most of its objects ({counted(moved.sum(), 'object')} moved)"
            )
            table = table.with_split(mended)
    check_image_in_one_split(table)
    if empty := [name for name in ("train", "val") if not (table.split == name).any()]:
        note += f"; no object is in {' or '.join(empty)}"
        if others := sorted(set(table.split) - {"train", "val", "dev"}):
            note += f", but in {' and '.join(others)}: name what to train and judge on with --data.train_split and --data.val_split"
        elif len(np.unique(table.image_id)) == 1:
            note += ": all are in one photograph, which is never divided"
    return table, note


def set_aside_dev(table: ObjectTable, share: float, seed: int) -> tuple[ObjectTable, str]:
    """Moves whole photographs of split "train", holding a share in (0, 1) of its objects, to split "dev", and returns a
    line that says so.

    Whatever is chosen by looking at scores (an epoch, a threshold, a learning rate) is chosen on "dev", so that "val"
    stays unseen.

    Raises:
        LabelError: there is a split "dev" already, or no object to set aside.
    """
    if (table.split == "dev").any():
        raise LabelError("the label file has a split 'dev' of its own; leave --dev-share out")
    rows = np.flatnonzero(table.split == "train")
    if len(np.unique(table.image_id[rows])) < 2:
        raise LabelError("--dev-share: split 'train' has fewer than two photographs, and one is never divided")
    split = table.split.copy()
    chosen = rows[split_by_image(table.take(rows), share, seed) == "val"]
    split[chosen] = "dev"
    note = f"dev: {counted(len(chosen), 'object')} of train set aside by photograph with seed {seed}"
    return table.with_split(split), note


def mend_split(table: ObjectTable) -> NDArray[Any]:
    """The file's own split (N,), but each photograph whole in the split that holds most of its objects; of equals the
    first by name.

    COCO Attributes' patches were dealt out by photograph in COCO 2014, but nothing stops a file from tearing a
    photograph apart, and then its validation scores reward remembering photographs.
    """
    names, split_of_row = np.unique(table.split, return_inverse=True)
    images, image_of_row = np.unique(table.image_id, return_inverse=True)
    votes = np.zeros((len(images), len(names)), dtype=np.int64)  # (photographs, splits)
    np.add.at(votes, (image_of_row, split_of_row), 1)
    return np.asarray(names[votes.argmax(axis=1)][image_of_row])


def check_image_in_one_split(table: ObjectTable) -> None:
    """Raises LabelError, naming a photograph, where objects of one photograph are in different splits."""
    pairs = torn_apart(table)
    if len(pairs):
        one, next_one = pairs[0]
        torn = len(np.unique(table.image_id[pairs]))
        of_all = f"of {counted(len(np.unique(table.image_id)), 'photograph')}"
        raise LabelError(
            f"photograph {table.image[next_one]} is in two splits, '{table.split[next_one]}' and '{table.split[one]}' "
            f"({counted(torn, f'{of_all} is', f'{of_all} are')}); use --split image"
        )


def torn_apart(table: ObjectTable) -> NDArray[np.int64]:
    """Rows (P, 2) of objects that follow each other in one photograph and are in different splits."""
    by_image = np.argsort(table.image_id, kind="stable")
    image_id, split = table.image_id[by_image], table.split[by_image]
    first = np.flatnonzero((image_id[1:] == image_id[:-1]) & (split[1:] != split[:-1]))
    return np.stack([by_image[first], by_image[first + 1]], axis=1)


def split_by_image(table: ObjectTable, val_share: float, seed: int) -> NDArray[Any]:
    """Draws "train" and "val" by photograph so that each attribute's positives are shared out as `val_share` says.

    Iterative stratification (Sechidis, Tsoumakas & Vlahavas, "On the stratification of multi-label data", ECML 2011)
    with photographs in place of examples: the attribute with the fewest positives left goes first, and each photograph
    goes where most of it is still wanted. Neither split is left empty, except that a single photograph goes to "train".

    Returns:
        (N,) str.
    """
    images, image_of_row = np.unique(table.image_id, return_inverse=True)
    positives = np.empty((len(images), len(table.vocabulary)), dtype=np.int32)  # (photographs, A)
    for attribute, labels in enumerate(table.labels.T):  # all at once would copy the whole matrix, in wider numbers
        positives[:, attribute] = np.bincount(image_of_row[labels >= 0.5], minlength=len(images))
    objects = np.bincount(image_of_row, minlength=len(images))

    shares = np.array([1 - val_share, val_share])
    wanted = shares[:, None] * positives.sum(axis=0)  # (2, A), what each split still lacks
    wanted_objects = shares * objects.sum()
    side = np.full(len(images), -1)
    lottery = np.argsort(mix64(seed, images), kind="stable")  # who goes first among equals
    left = (positives > 0).sum(axis=0)  # (A,) photographs with a positive that are in no split yet

    def assign(image: int, attribute: int | None) -> None:
        lack = (wanted[1, attribute] - wanted[0, attribute]) if attribute is not None else 0.0
        lack = lack or wanted_objects[1] - wanted_objects[0]
        chosen = int(lack > 0)
        side[image] = chosen
        wanted[chosen] -= positives[image]
        wanted_objects[chosen] -= objects[image]
        left[positives[image] > 0] -= 1

    while left.any():
        rarest = int(np.where(left > 0, left, len(images) + 1).argmin())
        for image in lottery[(positives[lottery, rarest] > 0) & (side[lottery] < 0)]:
            assign(int(image), rarest)
    for image in lottery[side[lottery] < 0]:
        assign(int(image), None)
    for empty in (0, 1) if len(images) > 1 else (0,):
        if not (side == empty).any() and len(images):
            side[lottery[objects[lottery].argmin()]] = empty  # the smallest photograph changes the shares least
    return np.where(side[image_of_row] == 1, "val", "train")

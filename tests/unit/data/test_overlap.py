"""Shard folders that share objects, or photographs of two splits."""

import csv
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attrtrain.cli import main
from attrtrain.data.overlap import leaks, photographs_of_both, require_each_once
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError

Sharded = Callable[..., Path]


@pytest.fixture
def sharded(tmp_path: Path) -> Sharded:
    """Shards of one object for each (photograph, split), all in a folder of photographs of its own; ids are row
    numbers.
    """

    def shard(name: str, rows: list[tuple[str, str]], seed: int = 0, quality: int = 90, **columns: int) -> Path:
        photographs = tmp_path / f"{name} photographs"
        photographs.mkdir()
        draw = np.random.default_rng(seed)
        for photograph, _ in rows:
            pixels = draw.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photographs / photograph)
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", "split", "x", "y", "w", "h", "furry", *columns])
            writer.writerows(
                [photograph, split, 2, 3, 20, 30, row % 2, *(first + row for first in columns.values())]
                for row, (photograph, split) in enumerate(rows)
            )
        given = ["--labels", tmp_path / f"{name}.csv", "--images", photographs, "--out", tmp_path / name]
        assert main(["shard", *map(str, given), "--workers", "1", "--quality", str(quality)]) == 0
        return tmp_path / name

    return shard


A = [("a.jpg", "train"), ("b.jpg", "train"), ("c.jpg", "val"), ("d.jpg", "val")]


def test_a_part_of_a_data_set_beside_the_whole_is_refused(sharded: Sharded) -> None:
    whole, part = sharded("whole", A), sharded("part", A[:3])
    require_each_once(ShardSet([whole], "train"))
    with pytest.raises(ShardError) as refused:
        require_each_once(ShardSet([whole, part], "train"))
    assert str(refused.value) == (
        f"{whole} and {part} hold the same objects: 2 of 4 of split 'train' would count twice, such as object 0; give folders that share no object"
    )


def test_a_folder_that_is_given_twice_or_was_copied_is_refused(toy_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_shards, tmp_path / "copy")
    for other, told in ((toy_shards, "is given twice: "), (tmp_path / "copy", "hold the same objects: ")):
        with pytest.raises(ShardError, match=told):
            require_each_once(ShardSet([toy_shards, other], "val"))


def test_objects_are_the_same_however_they_were_stored(sharded: Sharded) -> None:
    one, two = sharded("one", A), sharded("two", A, quality=70)
    with pytest.raises(ShardError, match="hold the same objects: 2 of 4 "):
        require_each_once(ShardSet([one, two], "val"))


def test_a_photograph_is_found_among_three_folders_that_count_alike(sharded: Sharded) -> None:
    first = sharded("first", [("x.jpg", "train"), ("u.jpg", "val")], image_id=1)
    second = sharded("second", [("y.jpg", "train"), ("v.jpg", "val")], image_id=1)
    third = sharded("third", [("y.jpg", "val"), ("w.jpg", "train")], image_id=1)
    splits = [ShardSet([first, second, third], split) for split in ("train", "val")]
    assert photographs_of_both(*splits) == ["y.jpg"]
    (line,) = leaks(*splits)
    assert line.startswith(
        "warning: 1 photograph is in split 'train' of one folder and in 'val' of another, such as y.jpg:"
    )


def test_data_sets_that_only_count_alike_are_read_together(sharded: Sharded) -> None:
    """Both number objects and photographs from 0."""
    one = sharded("one", A, image_id=0)
    two = sharded("two", [(f"{name}.jpg", split) for name, (_, split) in zip("wxyz", A, strict=True)], 1, image_id=0)
    both = ShardSet([one, two], "train")
    assert np.array_equal(both.column("object_id"), [0, 1, 0, 1]) and len(np.unique(both.object_ids)) == 4
    assert np.array_equal(np.sort(both.column("image_id")), [0, 0, 1, 1])
    require_each_once(both)
    crossed = sharded("crossed", [("w.jpg", "val"), ("x.jpg", "val"), ("y.jpg", "train")], 2, image_id=0)
    assert photographs_of_both(ShardSet([one, crossed], "train"), ShardSet([one, crossed], "val")) == []


def test_photographs_that_are_trained_on_here_and_judged_there_are_named(sharded: Sharded) -> None:
    one = sharded("one", A)
    two = sharded("two", [("b.jpg", "val"), ("e.jpg", "train"), ("c.jpg", "train"), ("f.jpg", "val")])
    splits = [ShardSet([one, two], split) for split in ("train", "val")]
    assert sorted(photographs_of_both(*splits)) == ["b.jpg", "c.jpg"]
    assert photographs_of_both(*(ShardSet([one], split) for split in ("train", "val"))) == []


def test_judging_what_is_trained_on_is_told(sharded: Sharded) -> None:
    one, two = sharded("one", A), sharded("two", [("e.jpg", "train"), ("f.jpg", "val")], 1)
    train = ShardSet([one], "train")
    for judged in (train, ShardSet([two, one], "train")):
        (line,) = leaks(train, judged)
        assert line == "warning: split 'train' is trained on and judged: scores tell what was learnt by heart"
    assert leaks(train, ShardSet([one], "val")) == leaks(train, ShardSet([two], "train")) == []


def test_folders_that_have_one_of_the_two_splits_only_are_compared_with_the_others(sharded: Sharded) -> None:
    folders = [
        sharded("both", A),
        sharded("learnt", [("c.jpg", "train"), ("e.jpg", "train")]),
        sharded("judged", [("a.jpg", "val"), ("f.jpg", "val")]),
    ]
    for order in permutations(folders):
        train, val = ShardSet(order, "train"), ShardSet(order, "val")
        assert sorted(photographs_of_both(train, val)) == ["a.jpg", "c.jpg"]
        assert leaks(train, val)[0].startswith("warning: 2 photographs are in split 'train' of one folder")

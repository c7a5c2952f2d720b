import json
import shutil

import numpy as np
import pytest
from PIL import Image

from attrtrain.annotations import read_labels
from attrtrain.annotations.split import mend_split
from attrtrain.auditing.shard_table import read_shard_table
from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError


def test_a_shard_folder_is_the_table_it_was_made_from(toy_coco, toy_shards):
    annotations = toy_coco / "annotations"
    made_from, _ = read_labels(
        [toy_coco / "cocottributes.pkl"],
        [annotations / "instances_train2017.json", annotations / "instances_val2017.json"],
    )
    shards = read_shard_table(toy_shards)
    rows = np.array([made_from.object_id.tolist().index(one) for one in shards.table.object_id])
    for column in ("image_id", "image", "category", "box", "image_size"):
        assert np.array_equal(getattr(shards.table, column), getattr(made_from, column)[rows]), column
    np.testing.assert_array_equal(shards.table.labels, made_from.labels[rows])
    assert np.array_equal(shards.table.split, mend_split(made_from)[rows])
    assert shards.labelled == len(made_from) + len(made_from.unmatched)
    assert shards.labelled == len(shards.table) + len(made_from.unmatched) + sum(shards.left_out.values())
    assert shards.instances == ("instances_train2017.json", "instances_val2017.json")


def test_each_row_has_its_own_crop(toy_shards):
    shards = read_shard_table(toy_shards)
    ids = np.concatenate([part.column("object_id") for part in shards.sets])
    assert np.array_equal(ids, shards.table.object_id)
    last = len(shards.table) - 1
    assert shards.jpeg(0) == shards.sets[0].jpeg(0)
    assert shards.jpeg(last) == shards.sets[-1].jpeg(len(shards.sets[-1]) - 1)
    with pytest.raises(IndexError):
        shards.jpeg(last + 1)


def test_a_sample_without_its_json_is_one_line(toy_shards, tmp_path):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    name = json.loads((folder / "manifest.json").read_text())["shards"][0]["name"]
    tar = folder / name
    tar.write_bytes(tar.read_bytes().replace(b'{"object_id":', b'!"object_id":', 1))
    with pytest.raises(ShardError, match=f"{name}: sample .* has no JSON; check it with `attrtrain verify"):
        read_shard_table(folder)


def test_a_split_that_lost_all_its_objects_is_passed_over(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "a.png")
    rows = ["file_name,split,x,y,w,h,red", "a.png,train,0,0,9,9,1", "a.png,train,0,0,9,8,0", "gone.png,val,0,0,9,9,0"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    words = ["--labels", tmp_path / "boxes.csv", "--images", tmp_path / "photos", "--out", tmp_path / "shards"]
    assert main(["shard", *map(str, words), "--max-failure-rate", "1", "--workers", "1"]) == 0
    assert read_shard_table(tmp_path / "shards").table.split.tolist() == ["train", "train"]
    with pytest.raises(ShardError, match=r"no sample in split 'val'; there are: train$"):
        ShardSet([tmp_path / "shards"], "val")


def test_shards_without_a_summary_are_audited_all_the_same(toy_shards, tmp_path):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    (folder / "summary.json").write_text("[]")
    assert read_shard_table(folder).labelled is None

"""Which object goes where is decided by the objects and the settings, and by nothing else."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from drawn import changed, make_table

from attrtrain.annotations.table import SourceFile
from attrtrain.errors import LabelError
from attrtrain.shards.manifest import CropSettings
from attrtrain.shards.plan import make_plan
from attrtrain.vocabulary import AttributeVocabulary

CROP = CropSettings()


def ids_of(plan, table):
    return [(shard.name, shard.split, shard.hash, table.object_id[shard.rows].tolist()) for shard in plan.shards]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_label_file_changes_nothing(seed):
    table = make_table()
    shuffled = table.take(np.random.default_rng(seed).permutation(len(table)))
    plan, other = make_plan(table, CROP, 10), make_plan(shuffled, CROP, 10)
    assert plan.inputs == other.inputs
    assert ids_of(plan, table) == ids_of(other, shuffled)


@pytest.mark.parametrize("seed", range(20))
def test_every_object_once_and_no_photograph_in_two_shards(seed):
    rng = np.random.default_rng(seed)
    photographs, size = int(rng.integers(1, 40)), int(rng.integers(1, 30))
    table = make_table(photographs, 9, seed=seed)
    table = table.take(
        np.flatnonzero(rng.random(len(table)) < rng.uniform(0.05, 1))
    )  # photographs with none to nine objects
    plan = make_plan(table, CROP, size)
    assert sorted(row for shard in plan.shards for row in shard.rows) == list(range(len(table)))
    shards_of = {}
    for shard in plan.shards:
        assert set(table.split[shard.rows]) == {shard.split}
        photographs_here = set(table.image_id[shard.rows])
        assert len(shard.rows) <= size or len(photographs_here) == 1
        for image in photographs_here:
            shards_of.setdefault(image, []).append(shard.name)
    assert all(len(names) == 1 for names in shards_of.values())


def test_objects_of_a_photograph_lie_side_by_side_and_shards_are_filled():
    table = make_table(photographs=30, objects=4)
    plan = make_plan(table, CROP, 12)
    for shard in plan.shards:
        images = table.image_id[shard.rows]
        assert (np.diff(images) != 0).sum() == len(set(images)) - 1
    assert [len(shard.rows) for shard in plan.shards if shard.split == "train"] == [12] * 6 + [8]
    assert [shard.name for shard in plan.shards][:2] == ["train-000000", "train-000001"]


def test_a_shard_is_a_fair_sample_and_not_a_run_of_ids():
    table = make_table(photographs=300, objects=1)
    first = make_plan(table, CROP, 50).shards[0]
    ids = table.image_id[first.rows]
    assert ids.min() < 300 and ids.max() > 1800  # ids go up to 2096


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("object_id", 10_000_000), ("image_id", 10_000_000), ("image", "other.png"), ("image_size", (7, 7)), ("box", (1, 2, 3, 4)),
        ("category", "other"), ("split", "test"), ("crowd", True), ("labels", 0.25),
    ],
)  # fmt: skip
def test_a_change_of_any_column_changes_inputs_and_the_shard_it_is_in(column, value):
    table = make_table()
    plan, other = make_plan(table, CROP, 10), make_plan(changed(table, column, 0, value), CROP, 10)
    assert other.inputs.differences(plan.inputs)
    before = {shard.hash for shard in plan.shards}
    mine = {shard.name for shard in other.shards if 0 in shard.rows}
    assert mine <= {shard.name for shard in other.shards if shard.hash not in before}
    if column in (
        "image",
        "image_size",
        "box",
        "category",
        "crowd",
        "labels",
    ):  # what moves no object leaves the others alone
        assert [shard.name for shard in other.shards if shard.hash not in before] == sorted(mine)


@pytest.mark.parametrize("change", [{"store_px": 255}, {"quality": 91}, {"context": 0.1}])
def test_a_change_of_crop_settings_changes_every_shard_and_is_named(change):
    table = make_table()
    plan, other = make_plan(table, CROP, 10), make_plan(table, CropSettings(**change), 10)
    [name] = change
    assert other.inputs.differences(plan.inputs) == [f"{name}: {getattr(CROP, name)} → {change[name]}"]
    assert not {shard.hash for shard in plan.shards} & {shard.hash for shard in other.shards}


def test_a_change_of_shard_size_or_vocabulary_is_named():
    table = make_table()
    plan = make_plan(table, CROP, 10)
    assert make_plan(table, CROP, 11).inputs.differences(plan.inputs) == ["shard_objects: 10 → 11"]
    renamed = replace(table, vocabulary=AttributeVocabulary.from_names("abcde"))
    [line] = make_plan(renamed, CROP, 10).inputs.differences(plan.inputs)
    assert line.startswith("vocabulary: ") and "…" in line
    assert make_plan(renamed, CROP, 10).shards[0].hash != plan.shards[0].hash


@pytest.mark.parametrize("library", ["pillow_version", "simplejpeg_version"])
def test_another_image_library_makes_another_plan(monkeypatch, library):
    table = make_table()
    plan = make_plan(table, CROP, 10)
    monkeypatch.setattr(f"attrtrain.shards.plan.{library}", "0.1")
    other = make_plan(table, CROP, 10)
    assert "jpeg_encoder" in other.inputs.differences(plan.inputs)[0]
    assert other.shards[0].hash != plan.shards[0].hash


def test_neither_the_width_of_a_string_column_nor_the_name_of_a_source_counts():
    table = make_table()
    wider = replace(
        table,
        image=table.image.astype("<U200"),
        category=table.category.astype(object),
        sources=(SourceFile("elsewhere.csv", 2, "1" * 64),),
    )
    assert make_plan(wider, CROP, 10).inputs == make_plan(table, CROP, 10).inputs
    assert ids_of(make_plan(wider, CROP, 10), wider) == ids_of(make_plan(table, CROP, 10), table)


def test_hashes_are_those_of_whole_columns(monkeypatch):
    """A folder that was begun goes on only if the same table has the same hashes, in whatever parts they are taken."""
    table = make_table()
    by_id = table.take(np.argsort(table.object_id))
    names = ("object_id", "image_id", "image", "image_size", "box", "category", "crowd")
    columns = [getattr(by_id, name) for name in names]
    parts = [json.dumps(c.tolist()).encode() if c.dtype.kind == "U" else c.tobytes() for c in columns]
    for rows in (7, 4096):
        monkeypatch.setattr("attrtrain.shards.plan._HASHED_ROWS", rows)
        inputs = make_plan(table, CROP, 10).inputs
        assert inputs.boxes == hashlib.sha256(b"".join(parts)).hexdigest()
        assert inputs.labels == hashlib.sha256(by_id.labels.tobytes()).hexdigest()
        assert inputs.splits == hashlib.sha256(json.dumps(by_id.split.tolist()).encode()).hexdigest()


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a.b", "{0..9}", "x" * 65, "größe"])
def test_a_split_no_file_can_be_named_after_is_refused(name):
    with pytest.raises(LabelError, match="letters, digits"):
        make_plan(changed(make_table(), "split", 0, name), CROP, 10)

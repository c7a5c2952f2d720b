import collections
import hashlib
import os
import pickle
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

from attrtrain.annotations import coco_attributes, read_labels
from attrtrain.annotations.coco_attributes import read_coco_attributes
from attrtrain.errors import LabelError, UnsafeFileError

ATTRIBUTES = [  # as published: in no order, with gaps between ids and spaces behind names
    {"id": 419, "name": "on ", "supercategory": "verb"},
    {"id": 408, "name": "tiny/ small", "supercategory": "size"},
    {"id": 416, "name": "furry", "supercategory": "texture"},
    {"id": 418, "name": "exercising ", "supercategory": "verb"},
]
NAMES = ("tiny/ small", "furry", "exercising", "on")  # by rising id
VECTORS = {7: [0.0, -1.0, 1 / 3, 1.0], 3: [-1.0, -1.0, 0.5, 2 / 3], 12: [1.0, 0.25, -1.0, 0.0]}
ANNOTATIONS = {7: 900_100, 3: 10_782, 12: 55}
SPLITS = {7: "train2014", 3: "val2014", 12: "train2014"}


def first_layout() -> dict:
    return {
        "ann_vecs": {patch: np.array(vector) for patch, vector in VECTORS.items()},
        "patch_id_to_ann_id": collections.defaultdict(int, ANNOTATIONS),
        "split": dict(SPLITS),
        "attributes": [dict(attribute) for attribute in ATTRIBUTES],
    }


def second_layout(key=int) -> dict:
    objects = {
        key(ANNOTATIONS[patch]): {"attrs_vector": np.array(vector), "split": SPLITS[patch]}
        for patch, vector in VECTORS.items()
    }
    return {"ann_attrs": objects, "attributes": sorted(ATTRIBUTES, key=lambda attribute: attribute["id"])}


@pytest.fixture
def write(tmp_path):
    def dump(content, protocol=2) -> Path:
        path = tmp_path / "labels.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        return path

    return dump


def assert_is_content(read):
    assert read.vocabulary.names == NAMES
    assert read.vocabulary.source_ids == (408, 416, 418, 419)
    assert read.vocabulary.groups == ("size", "texture", "verb", "verb")
    assert read.annotation_ids.dtype == np.int64 and read.annotation_ids.tolist() == [900_100, 10_782, 55]
    assert read.splits.tolist() == ["train", "val", "train"]
    assert read.labels.dtype == np.float32 and read.labels.shape == (3, 4)
    for row, vector in zip(read.labels.tolist(), VECTORS.values(), strict=True):
        for label, vote in zip(row, vector, strict=True):
            assert np.isnan(label) if vote == -1 else label == np.float32(vote)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "content",
    [first_layout(), second_layout(int), second_layout(str), second_layout(np.int64)],
    ids=["first", "int", "str", "int64"],
)
def test_both_layouts(write, content, protocol):
    assert_is_content(read_coco_attributes(write(content, protocol)))


def test_a_patch_has_its_own_split_and_object_in_whatever_order_they_are_listed(write):
    """Dictionaries of other orders than the vectors', with patches that nobody labelled."""
    content = first_layout()
    content["split"] = {5: "test2015", **dict(sorted(SPLITS.items()))}
    content["patch_id_to_ann_id"] = {5: 77, **dict(sorted(ANNOTATIONS.items()))}
    assert_is_content(read_coco_attributes(write(content)))


def test_every_negative_vote_is_unknown_and_none_other_is(write):
    content = first_layout()
    content["ann_vecs"] |= {7: [-1e-6, -0.5, -2.0, -np.inf], 3: [0.0, 1e-6, 0.5, 1.0], 12: [np.nan, -0.0, 0.49, -1.0]}
    labels = read_coco_attributes(write(content)).labels
    nan = np.nan
    expected = [[nan] * 4, [0, 1e-6, 0.5, 1], [nan, 0, 0.49, nan]]
    np.testing.assert_array_equal(labels, np.array(expected, dtype=np.float32))


def test_the_year_behind_a_split_is_dropped_and_other_splits_keep_their_names(write):
    splits = ["train2014", "val2017", "test2015", "mine", "2014"]
    content = {
        "ann_attrs": {n: {"attrs_vector": [0.0] * 4, "split": split} for n, split in enumerate(splits)},
        "attributes": ATTRIBUTES,
    }
    assert read_coco_attributes(write(content)).splits.tolist() == ["train", "val", "test2015", "mine", ""]


@pytest.mark.parametrize("compress", [0, 3])
def test_joblib(tmp_path, compress):
    joblib.dump(first_layout(), tmp_path / "labels.jbl", compress=compress)
    assert_is_content(read_coco_attributes(tmp_path / "labels.jbl"))


def test_lists_in_place_of_arrays(write):
    assert_is_content(read_coco_attributes(write(first_layout() | {"ann_vecs": VECTORS})))


def test_more_objects_than_one_block(write, monkeypatch):
    monkeypatch.setattr(coco_attributes, "_BLOCK_ROWS", 7)
    votes = np.random.default_rng(0).random((50, 4))
    content = {
        "ann_attrs": {i: {"attrs_vector": votes[i], "split": "train2017"} for i in range(50)},
        "attributes": ATTRIBUTES,
    }
    read = read_coco_attributes(write(content))
    np.testing.assert_array_equal(read.labels, votes.astype(np.float32))
    assert set(read.splits) == {"train"}


def test_a_label_above_1_far_down_the_file_names_its_object(write):
    votes = np.full((2050, 4), -1.0)
    votes[1500, 1] = 2.0
    content = {
        "ann_attrs": {1000 + i: {"attrs_vector": votes[i], "split": "train2017"} for i in range(len(votes))},
        "attributes": ATTRIBUTES,
    }
    with pytest.raises(LabelError, match="object 2500: label 2 in attribute column 1 is not a vote share"):
        read_coco_attributes(write(content))


@pytest.mark.parametrize("name", ["patch_id_to_ann_id", "split"])
def test_a_missing_patch_is_an_error_and_not_annotation_0(write, name):
    content = first_layout()
    content[name] = collections.defaultdict(int if name == "patch_id_to_ann_id" else str, content[name])
    del content[name][3]
    with pytest.raises(
        LabelError, match=rf"labels\.pkl: 1 labelled patches are missing from '{name}' \(first: patch 3\)"
    ):
        read_coco_attributes(write(content))


@pytest.mark.parametrize("vector", [[0.0, 1.0, 0.5], [0.0] * 5, [[0.0] * 4]])
@pytest.mark.parametrize("patch", [7, 12])
def test_wrong_number_of_labels(write, vector, patch):
    content = first_layout()
    content["ann_vecs"][patch] = np.array(vector)
    row = list(VECTORS).index(patch)
    with pytest.raises(LabelError, match=rf"object {row} has {len(vector)} labels, but the file lists 4 attributes"):
        read_coco_attributes(write(content))


def test_as_many_labels_too_many_as_too_few(write):
    content = first_layout()
    content["ann_vecs"] |= {7: np.zeros(3), 3: np.zeros(5)}
    with pytest.raises(LabelError, match="object 0 has 3 labels"):
        read_coco_attributes(write(content))


@pytest.mark.parametrize("value", [1.5, np.inf, 1e300])
def test_a_label_above_1_names_the_object(write, value):
    content = first_layout()
    content["ann_vecs"][3][2] = value
    with pytest.raises(
        LabelError, match=r"labels\.pkl: object 10782: label .* in attribute column 2 is not a vote share"
    ):
        read_coco_attributes(write(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not the dictionary"),
        ({"a": 1, "b": 2}, r"neither 'ann_vecs' nor 'ann_attrs' \(keys: a, b\)"),
        ({}, "neither 'ann_vecs' nor 'ann_attrs'"),
        ({k: v for k, v in first_layout().items() if k != "split"}, "KeyError: 'split'"),
        ({k: v for k, v in first_layout().items() if k != "attributes"}, "KeyError: 'attributes'"),
        (first_layout() | {"attributes": [{"name": "a"}]}, "KeyError: 'id'"),
        (first_layout() | {"attributes": []}, "no attributes"),
        (first_layout() | {"ann_vecs": {7: 0.5}}, "TypeError"),
        (first_layout() | {"patch_id_to_ann_id": {7: "x", 3: 1, 12: 2}}, "ValueError"),
        (first_layout() | {"patch_id_to_ann_id": {7: 2**80, 3: 1, 12: 2}}, "OverflowError"),
        ({"ann_attrs": {1: {"split": "train2014"}}, "attributes": ATTRIBUTES}, "KeyError: 'attrs_vector'"),
        ({"ann_attrs": [1], "attributes": ATTRIBUTES}, "AttributeError|TypeError"),
    ],
)
def test_wrong_content_is_one_line(write, content, message):
    with pytest.raises(LabelError, match=rf"^[^\n]*labels\.pkl: [^\n]*({message})[^\n]*$"):
        read_coco_attributes(write(content))


def test_an_unsafe_file_stays_unsafe(write, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(UnsafeFileError, match=r"refused (posix|nt)\.mkdir"):
        read_coco_attributes(write(first_layout() | {"extra": Payload()}))
    assert not (tmp_path / "ran").exists()


def test_missing_file(tmp_path):
    with pytest.raises(LabelError, match=r"gone\.pkl: No such file"):
        read_coco_attributes(tmp_path / "gone.pkl")


def test_note_and_source(write, monkeypatch):
    path = write(first_layout())
    size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    read = read_coco_attributes(path)
    assert (read.source.name, read.source.bytes, read.source.sha256) == ("labels.pkl", size, digest)
    assert (
        read.note
        == f"labels.pkl is not the published COCO Attributes file ({size:,} bytes; the published one has 1,261,766,525)"
    )
    monkeypatch.setattr(coco_attributes, "PUBLISHED_BYTES", size)
    assert "size of the published COCO Attributes file but other content" in read_coco_attributes(path).note
    monkeypatch.setattr(coco_attributes, "PUBLISHED_SHA256", digest)
    assert (
        read_coco_attributes(path).note == f"labels.pkl is the published COCO Attributes file (sha256 {digest[:12]}…)"
    )


def test_reading_labels_imports_no_torch():
    code = "import sys, attrtrain.annotations, attrtrain.annotations.split; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


@pytest.mark.shared_data
def test_real_ids_in_both_published_formats(shared_data):
    tiny = shared_data / "coco_tiny"
    instances = sorted((tiny / "annotations").glob("instances_*.json"))
    text, binary = (read_labels([tiny / f"cocottributes_like.{kind}"], instances)[0] for kind in ("pkl", "jbl"))
    assert len(text) == 1190 and len(text.unmatched) == 40
    np.testing.assert_array_equal(text.labels, binary.labels)
    np.testing.assert_array_equal(text.object_id, binary.object_id)
    np.testing.assert_array_equal(text.split, binary.split)
    assert len(text.vocabulary) == 204 and text.vocabulary == binary.vocabulary

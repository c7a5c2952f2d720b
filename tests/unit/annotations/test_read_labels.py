import hashlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from attrtrain.annotations import read_labels
from attrtrain.annotations.split import apply_split
from attrtrain.annotations.table import SourceFile
from attrtrain.errors import LabelError


@pytest.fixture
def files(tmp_path):
    """One label file of each format, and instances that fit the COCO Attributes ones."""
    vector = {"attrs_vector": np.array([1.0, -1.0]), "split": "val2014"}
    labels = {"ann_attrs": {5: vector}, "attributes": [{"id": 1, "name": "furry"}, {"id": 2, "name": "wet"}]}
    instances = {
        "images": [{"id": 3, "file_name": "3.jpg"}],
        "annotations": [{"id": 5, "image_id": 3, "bbox": [1, 2, 3, 4]}],
    }
    vaw = {
        "image_id": 3,
        "instance_id": 5,
        "instance_bbox": [1, 2, 3, 4],
        "object_name": "",
        "positive_attributes": ["furry"],
        "negative_attributes": [],
    }
    contents = {
        "instances.json": json.dumps(instances), "vaw.json": json.dumps([vaw]), "boxes.csv": "image,x,y,w,h,furry\n3.jpg,1,2,3,4,1\n",
        "boxes.tsv": "image\tx\ty\tw\th\tfurry\n3.jpg\t1\t2\t3\t4\t1\n", "boxes.jsonl": '{"image": "3.jpg", "bbox": [1, 2, 3, 4], "furry": 1}',
        "notes.txt": "",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    for name in ("labels.pkl", "labels.jbl", "LABELS.PKL", "labels.pickle", "labels.joblib"):
        (tmp_path / name).write_bytes(pickle.dumps(labels))
    return tmp_path


@pytest.mark.parametrize("name", ["labels.pkl", "labels.jbl", "LABELS.PKL", "labels.pickle", "labels.joblib"])
def test_coco_attributes(files, name):
    read, note = read_labels([files / name], [files / "instances.json"])
    assert read.object_id.tolist() == [5] and read.split.tolist() == ["val"] and read.box.tolist() == [[1, 2, 3, 4]]
    assert [source.name for source in read.sources] == [name, "instances.json"]
    assert read.sources[0].sha256 == hashlib.sha256((files / name).read_bytes()).hexdigest()
    assert note.startswith(f"{name} is not the published COCO Attributes file")


@pytest.mark.parametrize("name", ["boxes.csv", "boxes.tsv", "boxes.jsonl", "vaw.json"])
def test_files_with_boxes_of_their_own(files, name):
    read, note = read_labels([files / name], [])
    assert read.box.tolist() == [[1, 2, 3, 4]] and read.image.tolist() == ["3.jpg"] and note == ""
    with pytest.raises(LabelError, match="has boxes of its own, so --instances is not needed"):
        read_labels([files / name], [files / "instances.json"])


@pytest.mark.parametrize(
    ("labels", "instances", "message"),
    [
        (["labels.pkl"], [], r"names objects by COCO annotation id; give --instances"),
        (
            ["labels.pkl", "labels.jbl"],
            ["instances.json"],
            "several label files are only read together when they are VAW's",
        ),
        (["boxes.csv", "boxes.csv"], [], "several label files are only read together when they are VAW's"),
        (["notes.txt"], [], r"unknown kind of label file '\.txt'"),
        (["gone.pkl"], ["instances.json"], r"gone\.pkl: no such file"),
        (["labels.pkl"], ["gone.json"], r"gone\.json: no such file"),
        ([""], [], "is a folder, not a file"),
        (["instances.json"], [], "COCO JSON belongs to --instances"),
    ],
)
def test_what_does_not_fit_together(files, labels, instances, message):
    with pytest.raises(LabelError, match=message):
        read_labels([files / name for name in labels], [files / name for name in instances])


def test_source_file(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(100)))
    assert SourceFile.of(tmp_path / "f") == SourceFile("f", 100, hashlib.sha256(bytes(range(100))).hexdigest())


def test_table_checks_itself(make_table):
    good = make_table([1, 2, 3], [[0, 1], [0.5, np.nan], [1, 1]])
    for change, error, message in (
        ({"object_id": np.array([4, 5, 4])}, LabelError, "object id 4 is given 2 times"),
        ({"object_id": np.array([4, -5, 6])}, LabelError, "object id -5 is negative"),
        (
            {"labels": np.array([[0, 1], [0, 1.5], [0, 1]], np.float32)},
            LabelError,
            "object 1: label 1.5 in attribute column 1",
        ),
        (
            {"labels": np.array([[0, 1], [0, 1], [-1, 1]], np.float32)},
            LabelError,
            "object 2: label -1 in attribute column 0",
        ),
        ({"labels": np.zeros((3, 3), np.float32)}, ValueError, "labels has shape"),
        ({"box": np.zeros((3, 5))}, ValueError, "box has shape"),
        ({"split": np.array(["", ""])}, ValueError, "split has shape"),
    ):
        with pytest.raises(error, match=message):
            replace(good, **change)
    taken = good.take(np.array([2, 0]))
    assert taken.object_id.tolist() == [2, 0] and taken.image.tolist() == ["3.jpg", "1.jpg"] and len(taken) == 2


def test_a_photograph_under_two_ids_is_one(tmp_path):
    """Else it could be trained on and judged at once."""
    rows = [
        "COCO_val2014_000000000001.jpg,val,0,0,9,9,1,7",
        "000000000001.jpg,train,0,0,9,9,0,5",
        "000000000002.jpg,train,0,0,9,9,0,6",
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(["image,split,x,y,w,h,furry,image_id", *rows]))
    table, _ = read_labels([tmp_path / "boxes.csv"], [])
    assert table.image_id.tolist() == [5, 5, 6]
    with pytest.raises(LabelError, match="is in two splits"):
        apply_split(table, "official", 0.2, 0)
    instances = {
        "images": [{"id": 1, "file_name": "x.jpg"}, {"id": 2, "file_name": "x.jpg"}, {"id": 3, "file_name": "y.jpg"}],
        "annotations": [{"id": 10 + image, "image_id": image, "bbox": [1, 2, 3, 4]} for image in (1, 2, 3)],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    vectors = {10 + image: {"attrs_vector": np.array([1.0]), "split": None} for image in (1, 2, 3)}
    (tmp_path / "labels.pkl").write_bytes(
        pickle.dumps({"ann_attrs": vectors, "attributes": [{"id": 1, "name": "furry"}]})
    )
    table, _ = read_labels([tmp_path / "labels.pkl"], [tmp_path / "instances.json"])
    assert table.image_id.tolist() == [1, 1, 3] and table.split.tolist() == ["", "", ""]


@pytest.mark.parametrize("name", ["labels.pkl", "instances.json", "vaw.json", "boxes.csv", "boxes.jsonl"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS's pointer to the file"),
        (b"<!doctype html>\n<title>404</title>", "a web page"),
    ],
)
def test_what_a_download_left_in_place_of_a_file_is_told(files, name, content, told):
    (files / name).write_bytes(content)
    with pytest.raises(LabelError, match=f"{name}: {told}"):
        if name in ("labels.pkl", "instances.json"):
            read_labels([files / "labels.pkl"], [files / "instances.json"])
        else:
            read_labels([files / name], [])

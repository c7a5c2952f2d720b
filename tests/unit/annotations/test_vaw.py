import json

import numpy as np
import pytest

from attrtrain.annotations.vaw import read_vaw
from attrtrain.errors import LabelError

NAN = float("nan")


def entry(instance_id="2373554003", image_id="2373554", positive=("furry",), negative=("wet",), **more):
    return {
        "image_id": image_id, "instance_id": instance_id, "instance_bbox": [1.5, 2, 30, 40], "instance_polygon": None, "object_name": "dog",
        "positive_attributes": list(positive), "negative_attributes": list(negative),
    } | more  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def dump(name, content):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return dump


def test_splits_come_from_file_names_and_the_vocabulary_from_all_files(write):
    paths = [
        write("train_part1.json", [entry("1"), entry("2", "7", ["wet "], ["tall", "furry"])]),
        write("val.json", [entry("3", "8", ["tall"], [])]),
        write("test.json", [entry("4", "9", [], [])]),
        write("mine.json", [entry("5", "10")]),
    ]
    table = read_vaw(paths)
    assert table.vocabulary.names == ("furry", "tall", "wet")
    expected = [[1, NAN, 0], [0, 0, 1], [NAN, 1, NAN], [NAN, NAN, NAN], [1, NAN, 0]]
    np.testing.assert_array_equal(table.labels, expected)
    assert table.split.tolist() == ["train", "train", "val", "test", ""]
    assert table.object_id.tolist() == [1, 2, 3, 4, 5] and table.image_id.tolist() == [2373554, 7, 8, 9, 10]
    assert table.image.tolist() == ["2373554.jpg", "7.jpg", "8.jpg", "9.jpg", "10.jpg"]
    assert table.box.tolist() == [[1.5, 2, 30, 40]] * 5 and set(table.category) == {"dog"}
    assert [source.name for source in table.sources] == [path.name for path in paths]


def test_only_how_a_file_name_begins_tells_its_split(write):
    names = ["validation.json", "train-2.json", "latest.json", "constraint.json", "interval.json", "Test.json"]
    table = read_vaw([write(name, [entry(str(number), str(number))]) for number, name in enumerate(names)])
    assert table.split.tolist() == ["val", "train", "", "", "", ""]


def test_positive_and_negative_at_once(write):
    with pytest.raises(LabelError, match=r"val\.json: object 6: 'wet' is both a positive and a negative attribute"):
        read_vaw([write("val.json", [entry("5"), entry("6", positive=["furry", "wet"], negative=["wet "])])])


def test_an_object_without_box_or_name_is_left_to_be_counted(write):
    table = read_vaw([write("train.json", [entry("5", instance_bbox=None, object_name=None), entry("6")])])
    assert np.isnan(table.box).all(axis=1).tolist() == [True, False] and table.category.tolist() == ["", "dog"]


def test_repeated_object(write):
    with pytest.raises(LabelError, match=r"train\.json, .*val\.json: object id 5 is given 2 times"):
        read_vaw([write("train.json", [entry("5")]), write("val.json", [entry("5")])])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, "not a VAW file .*COCO JSON belongs to --instances"),
        ([], "not a VAW file"),
        ([1], "not a VAW file"),
        ([{"x": 1}], "not a VAW file"),
        ([entry(), {"image_id": "1"}], "KeyError: 'positive_attributes'"),
        ([entry(), 7], "TypeError"),
        ([entry(instance_id="x")], "ValueError"),
        ([entry(instance_id="9" * 30)], "OverflowError"),
        ([entry(instance_bbox=[1, 2, 3])], "ValueError"),
        ([entry(instance_bbox=[1, 2, 3, "x"])], "not laid out"),
        ([entry(positive=[], negative=[])], "no attributes"),
    ],
)
def test_wrong_content_is_one_line(write, content, message):
    with pytest.raises(LabelError, match=rf"^[^\n]*val\.json: [^\n]*({message})[^\n]*$"):
        read_vaw([write("val.json", content)])


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff\xfe\x00"])
def test_damaged_file(tmp_path, content):
    (tmp_path / "val.json").write_bytes(content)
    with pytest.raises(LabelError, match=r"^[^\n]*val\.json: not valid JSON[^\n]*$"):
        read_vaw([tmp_path / "val.json"])


def test_missing_file(tmp_path):
    with pytest.raises(LabelError, match=r"gone\.json: No such file"):
        read_vaw([tmp_path / "gone.json"])

import contextlib
import hashlib
import io
import json

import numpy as np
import pytest

from attrtrain.annotations.coco import join, read_instances
from attrtrain.annotations.table import SourceFile
from attrtrain.errors import LabelError
from attrtrain.vocabulary import AttributeVocabulary

CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 18, "name": "dog", "supercategory": "animal"},
]
VOCABULARY = AttributeVocabulary.from_names(["furry", "running"])


def image(image_id, prefix=""):
    return {"id": image_id, "file_name": f"{prefix}{image_id:012d}.jpg", "width": 640 + image_id, "height": 480}


def annotation(annotation_id, image_id, category=18, crowd=0):
    box = [annotation_id + 0.25, 2.5, 30.0, 40.75]
    polygons = {"counts": [1, 2], "size": [3, 4]} if crowd else [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    return {
        "id": annotation_id, "image_id": image_id, "bbox": box, "category_id": category, "iscrowd": crowd, "area": 9.0, "segmentation": polygons,
    }  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def dump(name, images, annotations, **more):
        path = tmp_path / name
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES} | more))
        return path

    return dump


@pytest.fixture
def coco_2017(write):
    """Two files with ids in no order. Image 3 of 2014's val is in 2017's train."""
    train = write(
        "train.json", [image(3), image(1)], [annotation(50, 3), annotation(7, 1, 1), annotation(8, 1, crowd=1)]
    )
    val = write("val.json", [image(2)], [annotation(30, 2), annotation(5, 2, 1)])
    return [train, val]


def test_several_files_become_one_table_by_id(coco_2017):
    read = read_instances(coco_2017)
    assert read.annotation_id.tolist() == [5, 7, 8, 30, 50]
    assert read.image_id.tolist() == [2, 1, 1, 2, 3]
    assert read.crowd.tolist() == [False, False, True, False, False]
    assert [source.name for source in read.sources] == ["train.json", "val.json"]
    assert read.sources[0] == SourceFile(
        "train.json", coco_2017[0].stat().st_size, hashlib.sha256(coco_2017[0].read_bytes()).hexdigest()
    )


def test_columns_against_a_plain_loop(coco_2017):
    read = read_instances(coco_2017)
    seen = 0
    for path in coco_2017:
        content = json.loads(path.read_text())
        for entry in content["annotations"]:
            row = read.annotation_id.tolist().index(entry["id"])
            (owner,) = [owner for owner in content["images"] if owner["id"] == entry["image_id"]]
            (category,) = [category["name"] for category in CATEGORIES if category["id"] == entry["category_id"]]
            assert read.box[row].tolist() == entry["bbox"]
            assert (read.image[row], read.image_size[row].tolist()) == (
                owner["file_name"],
                [owner["width"], owner["height"]],
            )
            assert (read.category[row], bool(read.crowd[row])) == (category, bool(entry["iscrowd"]))
            seen += 1
    assert seen == len(read.annotation_id)


def test_columns_against_pycocotools(coco_2017):
    pycocotools = pytest.importorskip("pycocotools.coco")
    read = read_instances(coco_2017)
    for path in coco_2017:
        with contextlib.redirect_stdout(io.StringIO()):
            reference = pycocotools.COCO(str(path))
        for entry in reference.loadAnns(reference.getAnnIds()):
            row = np.searchsorted(read.annotation_id, entry["id"])
            assert read.box[row].tolist() == entry["bbox"] and read.image_id[row] == entry["image_id"]
            assert read.image[row] == reference.loadImgs(entry["image_id"])[0]["file_name"]
            assert read.category[row] == reference.loadCats(entry["category_id"])[0]["name"]


def test_2014_and_2017_together_take_the_file_named_first(write, coco_2017):
    old = write("2014.json", [image(3, "COCO_val2014_")], [annotation(50, 3), annotation(51, 3)])
    for paths, name in (([*coco_2017, old], "000000000003.jpg"), ([old, *coco_2017], "COCO_val2014_000000000003.jpg")):
        read = read_instances(paths)
        assert read.annotation_id.tolist() == [5, 7, 8, 30, 50, 51]
        assert read.image[4] == name


def test_of_many_equal_ids_the_file_named_first_is_taken(write):
    paths = [write(f"{name}.json", [image(3, name)], [annotation(i, 3) for i in range(500)]) for name in ("new", "old")]
    assert set(read_instances(paths).image) == {"new000000000003.jpg"}


@pytest.mark.parametrize("change", [{"image_id": 2}, {"bbox": [1, 2, 3, 4]}])
def test_one_id_for_two_objects_is_refused(write, coco_2017, change):
    other = write("other.json", [image(2), image(3)], [annotation(50, 3) | change])
    with pytest.raises(LabelError, match=r"annotation 50 is one object in one of .*train\.json.*other\.json"):
        read_instances([*coco_2017, other])
    within = write("within.json", [image(2), image(3)], [annotation(50, 3), annotation(50, 3) | change])
    with pytest.raises(LabelError, match="annotation 50 is one object"):
        read_instances([within])


def test_the_same_file_twice_is_the_same_table(coco_2017):
    once, twice = read_instances(coco_2017), read_instances([*coco_2017, coco_2017[0]])
    assert once.annotation_id.tolist() == twice.annotation_id.tolist()


def test_what_a_file_may_leave_out(write):
    bare = {"id": 4, "image_id": 1, "bbox": [1, 2, 3, 4]}
    path = write("own.json", [{"id": 1, "file_name": "a/b.png"}], [bare], categories=[])
    read = read_instances([path])
    assert (read.category[0], read.image_size[0].tolist(), bool(read.crowd[0])) == ("", [0, 0], False)


def test_an_object_of_a_category_that_is_not_listed_has_none(write):
    path = write("own.json", [image(1)], [annotation(1, 1, category=18), annotation(2, 1, category=4711)])
    assert read_instances([path]).category.tolist() == ["dog", ""]


def test_boxes_that_are_nonsense_are_kept_for_the_writer_to_count(write):
    path = write("odd.json", [image(1)], [annotation(1, 1) | {"bbox": [float("nan"), 0, -1, 0]}])
    np.testing.assert_array_equal(read_instances([path, path]).box, [[np.nan, 0, -1, 0]])


def test_ids_that_are_texts_are_numbers_all_the_same(write):
    texts = {"id": "7", "image_id": "1", "category_id": "3", "iscrowd": "0"}
    crowd = {"id": 8, "image_id": 1.0, "category_id": 3.0, "iscrowd": True}
    boxes = {"bbox": [1, 2, 3, 4]}
    path = write(
        "own.json",
        [{"id": 1, "file_name": "a.png"}],
        [texts | boxes, crowd | boxes],
        categories=[{"id": "3", "name": "dog"}],
    )
    read = read_instances([path])
    assert read.annotation_id.tolist() == [7, 8] and read.image_id.tolist() == [1, 1]
    assert read.category.tolist() == ["dog", "dog"] and read.crowd.tolist() == [False, True]


@pytest.mark.parametrize("bbox", [[], None])
def test_an_annotation_without_a_box_is_left_to_be_counted(write, bbox):
    path = write("own.json", [image(1)], [annotation(1, 1) | {"bbox": bbox}, annotation(2, 1)])
    read = read_instances([path])
    assert np.isnan(read.box).all(axis=1).tolist() == [True, False]


def test_boxes_in_shares_of_the_picture_are_refused(write):
    path = write("own.json", [image(1)], [annotation(1, 1) | {"bbox": [0.1, 0.2, 0.3, 0.4]}])
    with pytest.raises(LabelError, match=r"own\.json: the boxes lie between 0 and 1"):
        read_instances([path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"id": 5, "file_name": "a"}], "annotations": [{"id": 11.7, "image_id": 5, "bbox": [1, 2, 3, 4]}]}', "11.7 is no whole number"),
        ("{", "not valid JSON .line 1"),
        ("", "not valid JSON"),
        ("[]", "not a COCO instances file .holds a list"),
        ('{"images": []}', "it lacks 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": [{"id": 2, "image_id": 1, "bbox": [1, 2, 3, 4]}]}', "it lacks 'file_name'"),
        ('{"images": [], "annotations": [{"id": 2, "image_id": 5, "bbox": [1, 2, 3, 4]}]}', "annotation 2 is in image 5, which is not listed"),
        ('{"images": [{"id": 5, "file_name": "a"}], "annotations": [{"id": 2, "image_id": 5, "bbox": [1, 2]}]}', "bbox of 2 numbers"),
        ('{"images": [{"id": 5, "file_name": "a"}], "annotations": [{"id": 2, "image_id": 5}]}', "it lacks 'bbox'"),
        ('{"images": [{"id": 5, "file_name": "a"}], "annotations": [{"id": 2, "image_id": 5, "bbox": [1, 2, 3, "x"]}]}', "could not convert string to float"),
        ('{"images": [{"id": 5, "file_name": "a"}], "annotations": [{"id": 1e30, "image_id": 5, "bbox": [1, 2, 3, 4]}]}', "not a COCO"),
        ('{"images": [{"id": 5, "file_name": "a"}], "annotations": [{"id": 99999999999999999999, "image_id": 5, "bbox": [1, 2, 3, 4]}]}', "too large"),
        (b"\xff\xfe\x00\x89PNG", "not a COCO instances file|not valid JSON"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "instances.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LabelError, match=rf"^[^\n]*instances\.json: [^\n]*({message})[^\n]*$"):
        read_instances([path])


def test_missing_file(tmp_path):
    with pytest.raises(LabelError, match=r"gone\.json: No such file"):
        read_instances([tmp_path / "gone.json"])


def test_join_by_id_whichever_file_the_photograph_is_in(coco_2017):
    ids = np.array([50, 6, 5, 99_999, 7, 1])
    labels = np.arange(12, dtype=np.float32).reshape(6, 2) / 12
    splits = np.array(["val", "train", "train", "val", "val", "train"])
    source = SourceFile("labels.pkl", 1, "0")
    table = join(VOCABULARY, ids, splits, labels, (source,), read_instances(coco_2017))
    assert table.object_id.tolist() == [50, 5, 7]  # the label file's order
    assert table.image_id.tolist() == [3, 2, 1]
    assert table.box[:, 0].tolist() == [50.25, 5.25, 7.25]
    assert table.category.tolist() == ["dog", "person", "person"]
    assert table.image_size.tolist() == [[643, 480], [642, 480], [641, 480]]
    assert table.split.tolist() == ["val", "train", "val"]
    np.testing.assert_array_equal(table.labels, labels[[0, 2, 4]])
    assert sorted(table.unmatched.tolist()) == [1, 6, 99_999]
    assert [file.name for file in table.sources] == ["labels.pkl", "train.json", "val.json"]


@pytest.mark.parametrize("empty", [True, False])
def test_no_match_at_all_is_an_error(write, coco_2017, empty):
    paths = [write("none.json", [], [])] if empty else coco_2017
    with pytest.raises(LabelError, match=r"none of the 2 labelled objects is in .*json; give the instances files"):
        join(VOCABULARY, np.array([51, 1]), np.array(["", ""]), np.zeros((2, 2), np.float32), (), read_instances(paths))


def test_an_image_id_of_two_photographs_is_refused(write):
    twice = write("twice.json", [image(1), image(1, "other-")], [annotation(5, 1)])
    with pytest.raises(
        LabelError, match=r"twice\.json: .*image id 1 is both 000000000001\.jpg and other-000000000001\.jpg"
    ):
        read_instances([twice])
    one, other = (
        write("one.json", [image(1)], [annotation(5, 1)]),
        write("two.json", [image(1, "x")], [annotation(6, 1)]),
    )
    with pytest.raises(
        LabelError, match=r"image 1 is 000000000001\.jpg in one of .* and x000000000001\.jpg in another"
    ):
        read_instances([one, other])


def test_a_photograph_that_is_listed_twice_is_one(write):
    twice = write("twice.json", [image(1), image(1)], [annotation(5, 1)])
    assert read_instances([twice]).image.tolist() == ["000000000001.jpg"]


def test_a_photograph_has_one_name_however_its_path_is_written(write):
    written = write("dots.json", [image(1, "./"), image(2, "a//b/../")], [annotation(5, 1), annotation(6, 2)])
    assert read_instances([written]).image.tolist() == ["000000000001.jpg", "a/000000000002.jpg"]


def test_a_size_of_null_is_none_and_a_name_of_null_is_refused(write):
    sizeless = write("sizeless.json", [{**image(1), "width": None, "height": None}], [annotation(5, 1)])
    assert read_instances([sizeless]).image_size.tolist() == [[0, 0]]
    nameless = write("nameless.json", [{**image(1), "file_name": None}], [annotation(5, 1)])
    with pytest.raises(LabelError, match=r"nameless\.json: .*image 1 has file_name None, which is no text"):
        read_instances([nameless])


def test_the_years_names_of_a_photograph_are_one(write):
    old = write("old.json", [image(1, "COCO_val2014_")], [annotation(5, 1)])
    new = write("new.json", [image(1)], [annotation(6, 1)])
    assert read_instances([old, new]).annotation_id.tolist() == [5, 6]

import json

import numpy as np
import pytest

from attrtrain.errors import LabelError
from attrtrain.inference.objects import read_objects


def coco(tmp_path, annotations, name="instances.json"):
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 100 + n, "height": 80} for n in (1, 2, 3)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "dog"}]}
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path / name


def annotation(number, image, **fields):
    return {"id": number, "image_id": image, "bbox": [number, 0, 5, 6], "category_id": 5, **fields}


def test_objects_of_coco_lie_by_photograph_in_the_order_of_their_first(tmp_path):
    annotations = [annotation(4, 3), annotation(9, 1), annotation(7, 3, iscrowd=1), annotation(2, 1, category_id=6)]
    objects = read_objects([coco(tmp_path, annotations)], None)
    assert objects.object_id.tolist() == [2, 9, 4, 7]
    assert objects.image.tolist() == ["1.jpg", "1.jpg", "3.jpg", "3.jpg"]
    assert objects.image_size.tolist() == [[101, 80], [101, 80], [103, 80], [103, 80]]
    assert objects.category.tolist() == ["", "dog", "dog", "dog"]
    assert objects.crowd.tolist() == [False, False, False, True]
    assert objects.box[:, 0].tolist() == [2, 9, 4, 7]
    assert list(objects.photographs()) == [slice(0, 2), slice(2, 4)]
    assert [source.name for source in objects.sources] == ["instances.json"]


def test_a_table_needs_no_attributes_and_its_other_columns_are_not_looked_at(tmp_path):
    (tmp_path / "boxes.csv").write_text(
        "file_name,x,y,w,h,category,note\nb.jpg,1,2,3,4,cat,a\na.jpg,,2,3,4,,b\nb.jpg,5,6,7,8,dog,c\n"
    )
    objects = read_objects([], tmp_path / "boxes.csv")
    assert objects.object_id.tolist() == [0, 2, 1]  # the row's number
    assert objects.image.tolist() == ["b.jpg", "b.jpg", "a.jpg"]
    np.testing.assert_array_equal(objects.box, [[1, 2, 3, 4], [5, 6, 7, 8], [np.nan, 2, 3, 4]])
    assert objects.category.tolist() == ["cat", "dog", ""] and not objects.image_size.any() and not objects.crowd.any()
    (tmp_path / "bare.jsonl").write_text('{"path": "x.png", "bbox": [1, 2, 3, 4], "object_id": 17}\n')
    assert read_objects([], tmp_path / "bare.jsonl").object_id.tolist() == [17]


def test_photographs_are_neighbours_of_one_name(tmp_path):
    objects = read_objects([coco(tmp_path, [annotation(n, 1 + n % 2) for n in range(6)])], None)
    part = objects.take(slice(2, 5))
    assert [part.image[rows].tolist() for rows in part.photographs()] == [["1.jpg"], ["2.jpg", "2.jpg"]]
    assert list(objects.take(slice(0, 0)).photographs()) == []


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda folder: ([folder / "no.json"], None), "no such file"),
        (lambda folder: ([folder], None), "is a folder"),
        (lambda folder: ([coco(folder, [])], None), "holds no annotations"),
        (lambda folder: ([], coco(folder, [annotation(1, 1)])), "--instances"),
    ],
)
def test_what_holds_no_objects_is_refused_in_one_line(tmp_path, write, told):
    with pytest.raises(LabelError) as caught:
        read_objects(*write(tmp_path))
    assert told in str(caught.value) and "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("half", ["file_name", "name"])
def test_half_a_character_is_refused_in_one_line_that_names_the_file(tmp_path, half):
    path = coco(tmp_path, [annotation(1, 1)])
    content = json.loads(path.read_text())
    content["images" if half == "file_name" else "categories"][0][half] = "a\ud83d.jpg"
    path.write_text(json.dumps(content))
    with pytest.raises(LabelError, match=r"instances\.json: 'a\\ud83d\.jpg' holds half a character"):
        read_objects([path], None)


def test_an_id_given_twice_is_refused(tmp_path):
    (tmp_path / "b.csv").write_text("image,x,y,w,h,object_id\na.jpg,1,2,3,4,5\na.jpg,1,2,3,4,5\n")
    with pytest.raises(LabelError, match=r"b\.csv: object id 5 is given 2 times"):
        read_objects([], tmp_path / "b.csv")

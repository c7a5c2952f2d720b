import numpy as np
import pytest

from attrtrain.annotations.table import repeated_boxes
from attrtrain.auditing.boxes import odd_boxes


def kinds(table):
    return {odd.kind: odd.examples for odd in odd_boxes(table)}


def test_each_odd_box_is_found_and_a_good_one_is_not(make_table):
    nan = np.nan
    boxes = {
        0: [10, 10, 100, 80],  # good
        1: [nan, 0, 5, 5],
        2: [10, 10, 0, 30],
        3: [10, 10, -4, 30],
        4: [700, 10, 30, 30],  # right of a picture 640 wide
        5: [-50, 10, 20, 30],  # left of it
        6: [600, 10, 60, 30],  # over the edge
        7: [10, 10, 5, 50],  # tiny
        8: [0, 0, 640, 480],  # whole
        9: [10, 10, 600, 20],  # a strip
        10: [0, 0, 640.4, 480],  # a fraction of a pixel over: annotations are like that
    }
    table = make_table(11, box=list(boxes.values()), image_size=[[640, 480]] * 11)
    assert kinds(table) == {
        "not_finite": [1],
        "empty": [2, 3],
        "outside": [4, 5],
        "over_the_edge": [6],
        "tiny": [7],
        "whole_photograph": [8, 10],
        "extreme_aspect": [9],
    }


def test_without_a_known_size_only_what_the_box_alone_shows_is_odd(make_table):
    table = make_table(3, box=[[700, 10, 30, 30], [-50, 10, 20, 30], [-5, 10, 20, 30]])
    assert kinds(table) == {"outside": [1], "over_the_edge": [2]}


def test_the_same_object_twice_and_the_same_box_everywhere(make_table):
    box = [[10, 10, 50, 40], [10, 10, 50, 40], [10, 10, 50, 41]]
    table = make_table(3, box=box, image_id=[7, 7, 7])
    assert kinds(table) == {"same_object_twice": [0, 1]}
    (twice,) = odd_boxes(table)  # as tables of one row a label have them
    assert "an object is one row, with all of its labels" in twice.what
    assert kinds(make_table(3, box=box)) == {}  # in two photographs, by chance
    everywhere = make_table(40, box=[[10, 10, 50, 40]] * 8 + [[9, 9, 50 + i, 40] for i in range(32)])
    assert kinds(everywhere) == {"same_box_everywhere": list(range(8))}
    assert kinds(make_table(8, box=[[0, 0, 64, 48]] * 8, image_size=[[64, 48]] * 8)).keys() == {"whole_photograph"}


def test_boxes_given_twice_are_those_that_comparing_each_with_each_finds(make_table):
    rng = np.random.default_rng(0)
    box = rng.choice([-1.0, 0.0, 20.0, 30.0, np.nan, np.inf], (300, 4), p=[0.1, 0.1, 0.3, 0.3, 0.1, 0.1])
    image = rng.integers(0, 3, 300) + 2**60  # ids that differ in digits which a float does not have
    rows = [(number, *row) for number, row in zip(image.tolist(), box.tolist(), strict=True)]
    expected = [
        np.isfinite(box[one]).all() and (box[one, 2:] > 0).all() and any(rows[one] == row for row in rows[:one] + rows[one + 1 :])
        for one in range(300)
    ]  # fmt: skip
    assert 20 < sum(expected) < 100
    assert repeated_boxes(make_table(300, box=box, image_id=image)).tolist() == expected


def test_crowds_and_no_boxes_at_all(make_table):
    assert kinds(make_table(2, crowd=[False, True])) == {"crowd": [1]}
    assert kinds(make_table(0, box=np.zeros((0, 4)))) == {}
    assert kinds(make_table(2, box=np.full((2, 4), np.nan))) == {"not_finite": [0, 1]}


def test_only_some_are_named_but_all_are_counted(make_table):
    (odd,) = odd_boxes(make_table(30, box=np.zeros((30, 4))))
    assert odd.count == 30 and len(odd.examples) == 10


def test_corners_called_sizes_are_told(make_table):
    """Of boxes whose w and h are x2 and y2, most reach over the edge."""
    rng = np.random.default_rng(0)
    corner = rng.random((200, 2)) * 300
    size = 20 + rng.random((200, 2)) * 150
    labelled = np.column_stack([corner, corner + size])
    (odd,) = [
        one for one in odd_boxes(make_table(200, box=labelled, image_size=np.full((200, 2), 480))) if "edge" in one.what
    ]
    assert odd.kind == "corners_as_sizes" and "are width and height really x2 and y2?" in odd.what


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([10, 10, 12, 40], None),
        ([10, 10, 40, 12], None),
        ([10, 10, 11.9, 40], "tiny"),
        ([10, 10, 40, 11.9], "tiny"),
        ([10, 10, 200, 20], None),
        ([10, 10, 20, 200], None),
        ([10, 10, 201, 20], "extreme_aspect"),
        ([10, 10, 20, 201], "extreme_aspect"),
        ([-1, -1, 50, 50], None),
        ([-1.1, 10, 50, 50], "over_the_edge"),
        ([10, -1.1, 50, 50], "over_the_edge"),
        ([951, 10, 50, 50], None),
        ([951.1, 10, 50, 50], "over_the_edge"),
        ([10, 451, 50, 50], None),
        ([10, 451.1, 50, 50], "over_the_edge"),
        ([0, 0, 980, 490], "whole_photograph"),
        ([0, 0, 979, 490], None),
        ([0, 0, 980, 489], None),
        ([1000, 10, 50, 50], "outside"),
        ([10, 500, 50, 50], "outside"),
        ([-50, 10, 50, 50], "outside"),
        ([10, -50, 50, 50], "outside"),
    ],
)
def test_where_a_box_begins_to_be_odd(make_table, box, expected):
    """In a photograph of 1,000 x 500."""
    found = kinds(make_table(1, box=[box], image_size=[[1000, 500]]))
    assert found == ({} if expected is None else {expected: [0]})


@pytest.mark.parametrize(
    ("photographs", "alike", "is_told"), [(100, 4, False), (250, 5, True), (251, 5, False), (251, 6, True)]
)
def test_a_box_is_a_placeholder_from_five_photographs_and_two_in_a_hundred_on(make_table, photographs, alike, is_told):
    box = [[10, 10, 50, 40]] * alike + [[9, 9, 50 + i / 10, 40] for i in range(photographs - alike)]
    assert ("same_box_everywhere" in kinds(make_table(photographs, box=box))) == is_told


@pytest.mark.parametrize(
    ("boxes", "over", "kind"),
    [(100, 19, "over_the_edge"), (100, 20, "corners_as_sizes"), (200, 20, "corners_as_sizes"), (201, 20, "over_the_edge")],
)  # fmt: skip
def test_boxes_over_the_edge_have_a_reason_from_twenty_and_a_tenth_of_all_on(make_table, boxes, over, kind):
    box = [[95, 10 + i / 10, 20, 20] for i in range(over)] + [[9, 9, 20 + i / 10, 40] for i in range(boxes - over)]
    assert kinds(make_table(boxes, box=box, image_size=[[100, 100]] * boxes)).keys() == {kind}

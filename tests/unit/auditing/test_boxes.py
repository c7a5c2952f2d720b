import numpy as np

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
    assert kinds(make_table(3, box=box, image_id=[7, 7, 7])) == {"same_object_twice": [0, 1]}
    assert kinds(make_table(3, box=box)) == {}  # in two photographs, by chance
    everywhere = make_table(40, box=[[10, 10, 50, 40]] * 8 + [[9, 9, 50 + i, 40] for i in range(32)])
    assert kinds(everywhere) == {"same_box_everywhere": list(range(8))}
    assert kinds(make_table(8, box=[[0, 0, 64, 48]] * 8, image_size=[[64, 48]] * 8)).keys() == {"whole_photograph"}


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

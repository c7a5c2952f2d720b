import numpy as np
import pytest

from attrtrain.annotations.split import split_by_image
from attrtrain.auditing.description import describe, sample_photographs
from attrtrain.auditing.held_out import standardised


def test_what_a_box_is_can_be_read_off_linearly():
    rng = np.random.default_rng(0)
    box = np.column_stack([rng.random((300, 2)) * 100, np.exp(rng.normal(4, 0.5, (300, 2)))])
    size = np.full((300, 2), [640, 480])
    x = standardised(describe(np.array(["dog"] * 300), box, size))
    for wanted in (
        np.log(box[:, 2] * box[:, 3]),
        np.log(box[:, 2] / box[:, 3]),
        (box[:, 0] + box[:, 2] / 2) / 640,
        np.log(box[:, 3] / 480),
    ):
        fitted = x @ np.linalg.lstsq(x, wanted - wanted.mean(), rcond=None)[0]
        assert np.corrcoef(fitted, wanted)[0, 1] > 0.97  # not 1: the outermost boxes are clipped


def test_categories_are_columns_and_rare_ones_share_none():
    category = np.array([f"c{i % 100:02}" for i in range(250)])
    described = describe(category, np.full((250, 4), np.nan), np.zeros((250, 2), dtype=np.int64))
    one_hot = described[:, :60]
    assert set(np.unique(one_hot)) == {0, 1} and (one_hot.sum(axis=1) <= 1).all()
    assert (described[:, 60:] == 0).all()  # boxes that say nothing


def test_the_most_common_categories_are_told_apart():
    category = np.array([f"rare {i}" for i in range(10)] + [f"common {i}" for i in range(60)] * 3)
    described = describe(category, np.full((190, 4), np.nan), np.zeros((190, 2), dtype=np.int64))
    assert (described[:10] == 0).all()  # nothing is known of them
    common = described[10:]
    alike = (common[:, None] == common[None]).all(axis=2)
    np.testing.assert_array_equal(alike, category[10:, None] == category[None, 10:])


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 0, -5, 1e308])
def test_nonsense_boxes_give_finite_numbers(odd):
    box = np.tile([10.0, 10.0, 50.0, 40.0], (20, 1))
    box[3] = odd
    described = describe(np.array(["dog", "cat"] * 10), box, np.zeros((20, 2), dtype=np.int64))
    assert np.isfinite(described).all() and np.isfinite(standardised(described)).all()


def test_whole_photographs_are_sampled_and_the_same_ones_again():
    image_id = np.random.default_rng(0).integers(0, 1000, 5000)
    rows = sample_photographs(image_id, 600)
    assert 600 <= len(rows) < 620 and (np.diff(rows) > 0).all()
    assert not set(image_id[rows]) & set(np.delete(image_id, rows))
    assert np.array_equal(rows, sample_photographs(image_id, 600))
    assert not np.array_equal(rows, sample_photographs(image_id, 600, seed=1))


def test_all_are_taken_where_there_are_few_and_a_huge_photograph_in_part():
    assert sample_photographs(np.arange(10), 600).tolist() == list(range(10))
    assert 600 <= len(sample_photographs(np.zeros(5000, dtype=np.int64), 600)) <= 1200
    assert sample_photographs(np.zeros(0, dtype=np.int64), 600).tolist() == []


def test_a_sample_holds_its_share_of_a_split_that_was_drawn_with_the_same_seed(make_table):
    image_id = np.arange(3000)
    split = split_by_image(make_table(3000), 0.2, 0)
    assert (split[sample_photographs(image_id, 1000)] == "val").mean() == pytest.approx(0.2, abs=0.04)

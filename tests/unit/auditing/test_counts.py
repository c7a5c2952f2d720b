import numpy as np
import pytest
from scipy.stats import chisquare

from attrtrain.auditing.counts import (
    count_categories,
    count_splits,
    label_counts,
    labels_by_split,
    rate_summary,
    torn_photographs,
)


def test_positives_are_shares_of_at_least_half_and_unknowns_are_neither():
    labels = np.array([[0.5, 0.49, np.nan], [1, 0, np.nan], [np.nan, 0.4, 1]], dtype=np.float32)
    positives, negatives, unknowns = label_counts(labels)
    assert positives.tolist() == [2, 0, 1]
    assert negatives.tolist() == [0, 3, 0]
    assert unknowns.tolist() == [1, 0, 2]


@pytest.mark.parametrize("rate", [0.5, 0.46, 0.3])
def test_rates_of_coins_are_judged_as_by_a_chi_squared_test(rate):
    rng = np.random.default_rng(4)
    positives = rng.binomial(275, rate, 40)
    summary = rate_summary(positives, 275 - positives)
    statistic = sum(chisquare([k, 275 - k]).statistic for k in positives)
    assert summary.like_fair_coins == (statistic <= 63.691)  # the 1 % point of chi-squared with 40 degrees of freedom
    assert summary.like_fair_coins == (rate == 0.5)
    assert summary.mean == pytest.approx(positives.mean() / 275)
    assert summary.spread_of_fair_coins == pytest.approx(np.sqrt(0.25 / 275))


@pytest.mark.parametrize(("more_heads", "is_fair"), [(18, True), (20, False)])
def test_attributes_without_a_known_label_are_no_degrees_of_freedom(more_heads, is_fair):
    """Three of a hundred throws: 3 x 18² / 100 = 9.72 and 3 x 20² / 100 = 12 lie about 11.34, the 1 % point with three;
    with two it is 9.21, with 40 63.7.
    """
    positives, negatives = np.zeros((2, 40), dtype=np.int64)
    positives[[3, 9, 30]], negatives[[3, 9, 30]] = 50 + more_heads // 2, 50 - more_heads // 2
    assert rate_summary(positives, negatives).like_fair_coins == is_fair


def test_rates_of_nothing_known():
    nothing = np.zeros(3, dtype=np.int64)
    assert rate_summary(nothing, nothing).mean is None


def test_objects_and_photographs_of_each_split_and_category():
    split, image_id = np.array(["val", "", "val", "val"]), np.array([1, 1, 1, 2])
    assert [(entry.name, entry.objects, entry.images) for entry in count_splits(split, image_id)] == [
        ("val", 3, 2),
        ("(no split)", 1, 1),
    ]
    dogs, rest = count_categories(np.array(["dog", "dog", "", "dog"]), split, image_id)
    assert (dogs.name, dogs.objects, dogs.images) == ("dog", 3, 2)
    assert [(own.name, own.objects, own.images) for own in dogs.by_split] == [("val", 2, 2), ("(no split)", 1, 1)]
    assert (rest.name, [(own.name, own.objects) for own in rest.by_split]) == ("(no category)", [("val", 1)])
    assert count_splits(split[:0], image_id[:0]) == []


def test_known_labels_of_each_split():
    labels = np.array([[1, 0], [0.5, np.nan], [0, 0], [1, 1]], dtype=np.float32)
    first, second = labels_by_split(labels, np.array(["val", "train", "train", "train"]))
    assert [(own.name, own.positives, own.negatives) for own in first] == [("train", 2, 1), ("val", 1, 0)]
    assert [(own.name, own.positives, own.negatives) for own in second] == [("train", 1, 1), ("val", 0, 1)]


def test_a_photograph_in_two_splits_is_named(make_table):
    table = make_table(
        5, image_id=[1, 1, 2, 2, 3], image=["a", "a", "b", "b", "c"], split=["train", "val", "val", "val", "train"]
    )
    torn = torn_photographs(table)
    assert torn.count == 1 and torn.examples == ["a"]
    assert torn_photographs(make_table(0)).count == 0

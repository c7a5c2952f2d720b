from itertools import combinations

import numpy as np
import pytest

from attrtrain.auditing.structure import _dealt_out, co_occurrence_test, photograph_test


def coins(shape, rate=0.5, seed=0):
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.float32)


def entangled(objects=400, attributes=8, seed=0):
    """Attributes that each follow one hidden coin an object, and fail to now and then."""
    rng = np.random.default_rng(seed)
    hidden = rng.integers(0, 2, (objects, 1))
    return np.where(
        rng.random((objects, attributes)) < 0.3, coins((objects, attributes), seed=seed + 1), hidden
    ).astype(np.float32)


def test_co_occurrence_is_the_mean_squared_correlation_over_pairs():
    labels = entangled()
    squared = [np.corrcoef(labels.T)[a, b] ** 2 for a, b in combinations(range(8), 2)]
    test = co_occurrence_test(labels, permutations=99)
    # r^2 of n independent pairs is 1 / n on average, so n / (n - 1) (r^2 - 1 / n) is the excess.
    expected = np.sqrt(400 / 399 * (np.mean(squared) - 1 / 400))
    assert test.effect == pytest.approx(expected, abs=0.005)
    assert test.p_value == 0.01


def test_co_occurrence_counts_jointly_known_objects_only():
    labels = entangled(objects=2000)
    some = labels.copy()
    some[np.random.default_rng(1).random(labels.shape) > 0.3] = np.nan
    whole, part = co_occurrence_test(labels, 49), co_occurrence_test(some, 49)
    assert part.effect == pytest.approx(whole.effect, abs=0.05) and part.p_value == 0.02


@pytest.mark.parametrize("rate", [0.5, 0.1])
@pytest.mark.parametrize("known", [1.0, 0.2])
def test_coins_do_not_co_occur_more_often_than_alpha_says(rate, known):
    p_values = []
    for seed in range(60):
        labels = coins((120, 10), rate, seed)
        labels[np.random.default_rng(1000 + seed).random(labels.shape) > known] = np.nan
        p_values.append(co_occurrence_test(labels, permutations=39, seed=seed).p_value)
    assert np.mean(np.array(p_values) <= 0.2) <= 0.36  # three standard deviations above 0.2


def test_labels_are_dealt_out_among_their_own_known_cells():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(5, 30)).astype(np.float32)  # (A, N)
    known = rng.random(labels.shape) < 0.5
    values = np.where(known, labels, 0)
    first = np.take_along_axis(values, np.argsort(~known, axis=1, kind="stable"), axis=1)
    dealt = _dealt_out(first, known, rng).T
    for before, after, mask in zip(values, dealt, known, strict=True):
        assert sorted(before[mask]) == sorted(after[mask]) and (after[~mask] == 0).all()
    assert (dealt != values).any()


def test_likeness_is_the_correlation_of_pairs_in_one_photograph():
    rng = np.random.default_rng(3)
    image_id = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 6, 60)))
    hidden = rng.random((60, 4))[image_id]
    labels = (rng.random(hidden.shape) < hidden).astype(np.float32)
    labels[rng.random(labels.shape) > 0.8] = np.nan
    products = []
    for column in labels.T:
        known = ~np.isnan(column)
        z = (column - column[known].mean()) / column[known].std()
        for image in range(60):
            products += [x * y for x, y in combinations(z[known & (image_id == image)], 2)]
    test = photograph_test(labels, image_id, permutations=199)
    assert test.effect == pytest.approx(np.mean(products), abs=0.02)  # chance is not quite 0 in a finite set
    assert test.p_value == 0.005


def test_shuffled_labels_are_not_alike_in_photographs_though_they_co_occur():
    p_values, image_id = [], np.repeat(np.arange(40), 3)
    for seed in range(60):
        labels = entangled(objects=120, seed=seed)
        p_values.append(photograph_test(labels, image_id, permutations=39, seed=seed).p_value)
    assert np.mean(np.array(p_values) <= 0.2) <= 0.36


def test_nothing_to_test_is_none():
    lone = np.arange(20)
    assert photograph_test(coins((20, 3)), lone, 3) is None  # one object a photograph
    assert co_occurrence_test(coins((20, 1)), 3) is None
    for labels in (np.full((20, 3), np.nan, np.float32), np.ones((20, 3), np.float32), np.zeros((0, 3), np.float32)):
        assert co_occurrence_test(labels, 3) is None
        assert photograph_test(labels, np.zeros(len(labels), dtype=np.int64), 3) is None

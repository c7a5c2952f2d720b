"""Where yes ends and no begins: thresholds exactly, tuned ones never on the objects they judge."""

import itertools

import numpy as np
import pytest
from drawn_cells import cells_of, draw_predictions, known_and_positive, spread
from sklearn.metrics import f1_score

from attrtrain.metrics.decisions import GivenThresholds, best_f1_threshold, highest, second_half, tune
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import measure


def predicted(scores, threshold, **kind):
    column = np.array(scores)[:, None]
    return measure(cells_of(column, np.zeros(column.shape), **kind), threshold).decisions.at_threshold.tolist()


def test_a_probability_of_exactly_the_threshold_is_not_predicted():
    for dtype in (np.float16, np.float32, np.float64):
        scores = np.array([0.3, 0.5], dtype)
        above = np.nextafter(scores, dtype(1))
        assert predicted(np.concatenate([scores, above]), 0.5, are_logits=False) == [False, False, False, True]
        assert predicted(np.concatenate([scores, above]), 0.3, are_logits=False) == [False, True, True, True]


def test_a_logit_of_0_is_not_predicted_and_the_smallest_above_it_is():
    assert predicted(np.float32([0, 1e-30, -1e-30]), 0.5) == [False, True, False]
    assert predicted(np.float64([np.log(0.2 / 0.8) - 1e-12, np.log(0.2 / 0.8) + 1e-12]), 0.2) == [False, True]


def test_a_vote_share_of_exactly_one_half_is_positive():
    cells = cells_of(np.zeros((3, 1)), [[0.5], [0.49], [np.nan]])
    known, positive = known_and_positive(cells)
    assert positive[:, 0].tolist() == [True, False, False] and known[:, 0].tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("seed", "objects"), [*((seed, 40) for seed in range(8)), *((seed, 8) for seed in range(30))])
def test_no_threshold_has_a_higher_f1_than_the_tuned_one(dtype, seed, objects):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=objects).round(seed % 3).astype(dtype)
    positive = rng.random(objects) < 0.3
    positive[rng.integers(objects)] = True
    order = np.argsort(-scores)
    found = best_f1_threshold(scores[order], positive[order])
    best = max(f1_score(positive, scores > t, zero_division=0) for t in [-np.inf, *scores])
    assert f1_score(positive, scores > np.asarray(found, dtype)) == pytest.approx(best)


@pytest.mark.parametrize("last", [9, 10], ids=["as high at another", "a little lower at another"])
def test_of_thresholds_with_equal_f1_it_is_the_highest(last):
    positive = np.isin(np.arange(1, 11), [1, 7, last])  # F1 is 0.5 at the first, 0.4 at the second
    assert best_f1_threshold(np.arange(10, 0, -1, np.float32), positive) == 9.5


def test_the_tuned_threshold_lies_between_scores_that_are_neighbours():
    up = np.nextafter(np.float32(1), np.float32(2))
    assert best_f1_threshold(np.float32([up, 1]), np.array([True, False])) == 1
    further = np.nextafter(up, np.float32(2))  # their middle would round up to it
    assert best_f1_threshold(np.float32([further, up]), np.array([True, False])) == up
    assert best_f1_threshold(np.float32([3, 1]), np.array([True, False])) == 2
    everything = best_f1_threshold(np.float32([3, 1]), np.array([False, True]))
    assert everything < 1 and everything == np.nextafter(np.float32(1), np.float32(0))
    assert best_f1_threshold(np.float32([3, 1]), np.array([False, False])) is None


def test_cross_fitted_decisions_use_no_label_of_their_own_half():
    predictions = draw_predictions(n=400, known=1.0)
    cells = JudgedSet.of(predictions, 0.5)
    half = second_half(cells.image_id)
    assert 100 < half.sum() < 300
    before = spread(cells, measure(cells, 0.5).decisions.tuned)
    labels = np.where(known_and_positive(cells)[0], spread(cells, cells.known.shares), np.nan)
    other = cells_of(cells.scores, np.where(half[:, None], 1 - labels, labels), image_id=cells.image_id)
    changed = spread(other, measure(other, 0.5).decisions.tuned)
    np.testing.assert_array_equal(before[half], changed[half])
    assert (before[~half] != changed[~half]).any()


def test_given_thresholds_are_used_as_they_are():
    tuning, judging = (JudgedSet.of(draw_predictions(seed=seed), 0.5) for seed in (1, 2))
    values = tune(tuning, 0.5)
    assert values[0] == 0  # nothing known: the default, as a logit
    tuned = measure(judging, 0.5, GivenThresholds(values, "thresholds tuned on split 'train'", tuning)).decisions.tuned
    np.testing.assert_array_equal(spread(judging, tuned), (judging.scores > values) & known_and_positive(judging)[0])


def test_the_k_highest_of_each_object():
    scores = np.array([[0.1, 0.9, 0.5, 0.0], [0.4, 0.3, 0.2, 0.1], [0.0, 0.0, 0.0, 0.2]])
    two = np.array([[False, True, True, False], [True, True, False, False], [False, False, False, True]])
    labels = np.zeros((3, 4))
    for _ in range(2):
        cells = cells_of(scores, labels, are_logits=False)
        known = known_and_positive(cells)[0]
        np.testing.assert_array_equal(spread(cells, highest(cells, 2)), two & known)
        np.testing.assert_array_equal(spread(cells, highest(cells, 9)), (scores > 0) & known)
        assert highest(cells_of(scores - 0.5, labels), 4).all()
        labels[:, 1] = np.nan  # known or not, they compete


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_scores_at_the_last_place_are_cut_as_numpy_cuts_them(dtype):
    rng = np.random.default_rng(0)
    shape = (3000, 24)  # more than are looked at together
    scores, labels = rng.integers(0, 8, shape).astype(dtype), np.where(rng.random(shape) < 0.3, 1.0, np.nan)
    cells = cells_of(scores, labels)
    expected = np.zeros(scores.shape, bool)
    for row, mine in zip(expected, scores, strict=True):
        row[np.argpartition(mine, -9)[-9:]] = True
    np.testing.assert_array_equal(spread(cells, highest(cells, 9)), expected & known_and_positive(cells)[0])


def test_many_objects_are_taken_in_parts():
    rng = np.random.default_rng(0)
    scores = rng.random((20_000, 5))
    cells = cells_of(scores, np.zeros(scores.shape), are_logits=False)
    chosen = spread(cells, highest(cells, 2))
    assert (chosen.sum(axis=1) == 2).all()
    assert np.sort(scores, axis=1)[:, -2:].sum(axis=1) == pytest.approx((scores * chosen).sum(axis=1))


def test_halves_are_of_photographs_and_stay_the_same():
    for ids in (np.arange(1000), np.arange(1000) * 2, np.arange(1000) * 2**33 + 1):
        assert 430 < second_half(ids).sum() < 570
    for a, b in itertools.pairwise(([5, 7, 5], [7, 5, 5], [5])):
        assert (
            dict(zip(a, second_half(np.array(a)), strict=True)).items()
            >= dict(zip(b, second_half(np.array(b)), strict=True)).items()
        )

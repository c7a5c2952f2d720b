"""Guessers: against brute force, and never better or worse than what they know allows."""

import itertools

import numpy as np
import pytest
from drawn_cells import cells_of, draw_predictions, draw_shares, known_and_positive
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from attrtrain.metrics import guessers
from attrtrain.metrics.baselines import (
    CATEGORY_SMOOTHING,
    TrainingRates,
    category_guess,
    prior_guess,
    shuffled,
    shuffled_orders,
    traded_maps,
)
from attrtrain.metrics.decisions import GivenThresholds, second_half, tune
from attrtrain.metrics.exchange import shuffle_photographs
from attrtrain.metrics.guessers import guesser_scores, permutation_p
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import measure
from attrtrain.metrics.overall import permutation_average_precision


@pytest.mark.parametrize(("positives", "n"), [(1, 5), (2, 6), (5, 6), (3, 7), (1, 2)])
def test_expected_average_precision_of_a_random_order_is_the_mean_over_all_orders(positives, n):
    scores = np.arange(n, 0, -1)
    places = list(itertools.combinations(range(n), positives))
    brute = np.mean([average_precision_score(np.isin(np.arange(n), place), scores) for place in places])
    assert permutation_average_precision(np.array([float(positives)]), np.array([float(n)]))[0] == pytest.approx(brute)


def test_the_field_notes_example_and_what_is_not_defined():
    expected = permutation_average_precision(np.array([5.0, 0, 4, 1]), np.array([500.0, 9, 4, 1]))
    assert expected[0] == pytest.approx(0.0215, abs=1e-4)
    assert np.isnan(expected[1:]).all()


def test_the_prior_scores_the_share_of_positives():
    cells = JudgedSet.of(draw_predictions(), 0.5)
    model, prior = measure(cells, 0.5), measure(prior_guess(cells, None), 0.5)
    assert prior.overall["map"] == pytest.approx(model.overall["prior_map"])
    assert prior.overall["auroc"] == 0.5 and prior.overall["mA"] == 0.5


def test_the_prior_of_a_training_split_is_that_splits():
    cells = JudgedSet.of(draw_predictions(), 0.5)
    labels = np.float32([[0.5] * 12, [0.4] * 12, [np.nan] * 12, [0] * 12])
    training = TrainingRates.of(labels, np.array(["cat", "cat", "cat", "dog"]), 0.5)
    assert training.positives.tolist() == [1] * 12
    np.testing.assert_allclose(prior_guess(cells, training).scores, 1 / 3)


def test_category_rates_of_a_training_split_as_a_plain_loop():
    cells = JudgedSet.of(draw_predictions(), 0.5)
    rng = np.random.default_rng(5)
    labels = rng.choice([0, 1, np.nan], (80, 12)).astype(np.float32)
    category = rng.choice(["cat", "dog"], 80)  # never a bus
    guess = category_guess(cells, TrainingRates.of(labels, category, 0.5))
    assert len(guess.parts) == 1 and guess.source == "training split"
    for row, a in itertools.product(range(0, 300, 17), range(12)):
        mine = labels[category == cells.category[row], a]
        overall = np.nanmean(labels[:, a])
        expected = (np.nansum(mine) + CATEGORY_SMOOTHING * overall) / ((~np.isnan(mine)).sum() + CATEGORY_SMOOTHING)
        assert guess.cells.scores[row, a] == pytest.approx(expected, rel=1e-5)
    average, _ = guess.average_precision_and_auroc
    np.testing.assert_allclose(average, measure(guess.cells, 0.5).average_precision)


def test_without_a_training_split_rates_come_from_the_other_half_of_the_photographs():
    predictions = draw_predictions(n=400)
    cells = JudgedSet.of(predictions, 0.5)
    guess = category_guess(cells, None)
    half, (known, positive) = second_half(cells.image_id), known_and_positive(cells)
    for side, a in itertools.product((True, False), (4, 7)):
        learnt = (half != side) & known[:, a]
        overall = positive[learnt, a].mean()
        dogs = learnt & (cells.category == "dog")
        expected = (positive[dogs, a].sum() + CATEGORY_SMOOTHING * overall) / (dogs.sum() + CATEGORY_SMOOTHING)
        np.testing.assert_allclose(
            guess.cells.scores[(half == side) & (cells.category == "dog"), a], expected, rtol=1e-5
        )
    average, _ = guess.average_precision_and_auroc
    a = 5
    halves = [
        average_precision_score(positive[rows, a], guess.cells.scores[rows, a])
        for rows in (half & known[:, a], ~half & known[:, a])
    ]
    assert average[a] == pytest.approx(np.mean(halves))


def test_categories_that_say_nothing_score_chance_and_those_that_say_all_score_one():
    rng = np.random.default_rng(0)
    labels = (rng.random((1000, 20)) < 0.3).astype(np.float32)
    same = category_guess(cells_of(labels, labels, category=np.full(1000, "dog")), None)
    judged = np.ones(20, bool)
    assert same.mean_average_precision(judged) == pytest.approx(0.3, abs=0.01)
    assert same.average_precision_and_auroc[1] == pytest.approx(np.full(20, 0.5))
    random = category_guess(cells_of(labels, labels, category=rng.choice(list("abcdefgh"), 1000)), None)
    assert random.mean_average_precision(judged) == pytest.approx(0.3, abs=0.02)
    telling = np.repeat(labels[:, :1], 20, axis=1)
    told = category_guess(cells_of(telling, telling, category=np.where(telling[:, 0] > 0, "dog", "cat")), None)
    assert told.mean_average_precision(judged) == 1


def test_no_categories_no_guess():
    labels = np.zeros((5, 2))
    assert category_guess(cells_of(labels, labels), None) is None
    assert category_guess(cells_of(labels, labels, category=["dog"] * 5, image_id=[3] * 5), None) is None
    halves = second_half(np.arange(20))
    for one_half in (np.flatnonzero(halves), np.flatnonzero(~halves)):  # none is left to learn from
        image_id = np.resize(one_half, 5)
        assert category_guess(cells_of(labels, labels, category=["dog"] * 5, image_id=image_id), None) is None


def test_shuffles_stay_within_known_cells_and_move_photographs_whole():
    cells = JudgedSet.of(draw_predictions(known=1.0, images=60), 0.5)
    cells = cells.take(np.flatnonzero(np.ones(len(cells))), np.arange(4, 12))
    order = next(shuffled_orders(cells, 1, 0))
    assert sorted(order) == list(range(300))
    assert (np.diff(cells.image[order]) != 0).sum() == cells.images - 1
    moved = shuffled(cells, order)
    np.testing.assert_array_equal(moved.scores, cells.scores[order])  # all known: whole rows move
    gappy = JudgedSet.of(draw_predictions(known=0.5), 0.5)
    moved = shuffled(gappy, order)
    for a in range(12):
        known = known_and_positive(gappy)[0][:, a]
        np.testing.assert_array_equal(moved.scores[~known, a], gappy.scores[~known, a])
        np.testing.assert_array_equal(np.sort(moved.scores[known, a]), np.sort(gappy.scores[known, a]))
        assert known.sum() < 20 or (moved.scores[known, a] != gappy.scores[known, a]).mean() > 0.8


def maps_of_traded_rows(cells, count, seed):
    rng, known_cells = np.random.default_rng(seed), known_and_positive(cells)
    maps = []
    for _ in range(count):
        scores = cells.scores[shuffle_photographs(cells.image, rng)]
        columns = [
            (positive[known], row[known])
            for known, positive, row in zip(*(matrix.T for matrix in (*known_cells, scores)), strict=True)
            if min(positive.sum(), (known & ~positive).sum()) >= 5
        ]
        maps.append(np.mean([average_precision_score(*column) for column in columns]))
    return maps


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("known", [0.6, 0.15])
def test_a_shuffle_gives_each_object_another_ones_row_of_scores_and_leaves_its_labels(ties, known):
    cells = JudgedSet.of(draw_predictions(n=600, ties=ties, known=known), 0.5)
    judged = measure(cells, 0.5).judged
    expected = maps_of_traded_rows(cells, 4, 3)
    np.testing.assert_allclose(traded_maps(cells, judged, 4, 3), expected, atol=1e-9)
    assert len(set(expected)) == 4


def test_shuffles_of_cells_without_ties_average_the_exact_expectation():
    cells = JudgedSet.of(draw_predictions(n=120, images=10_000), 0.5)
    measured = measure(cells, 0.5)
    maps = traded_maps(cells, measured.judged, 3000, 0)
    assert maps.mean() == pytest.approx(measured.overall["permutation_map"], abs=4 * maps.std() / 3000**0.5)


def test_guessers_are_measured_as_the_model_is():
    cells = JudgedSet.of(draw_predictions(), 0.5)
    model = measure(cells, 0.5).overall
    scores = guesser_scores(cells, None, category_guess(cells, None), 0.5, 0)
    for guesser in scores.values():
        assert set(guesser) == set(model) - {"prior_map", "permutation_map"}
    assert scores["permutation"]["map"] == pytest.approx(model["permutation_map"])
    assert scores["prior"]["map"] < scores["permutation"]["map"] < model["map"]
    assert [scores["permutation"][key] for key in ("mA", "auroc", "balanced_accuracy")] == [0.5] * 3
    counts = measure(cells, 0.5).sums.at_threshold
    rates = counts.positives[1:] / counts.known[1:]
    expected = (counts.predicted[1:] * rates).sum() / counts.predicted.sum()
    assert scores["permutation"]["op"] == pytest.approx(expected, abs=0.02)


def test_guessers_are_judged_at_thresholds_of_the_objects_that_the_models_were_tuned_on():
    judging, tuning = (JudgedSet.of(draw_predictions(n=300, seed=seed), 0.5) for seed in (1, 2))
    given = GivenThresholds(tune(tuning, 0.5), "thresholds tuned on split 'train'", tuning)
    guess = category_guess(judging, None)
    scores = guesser_scores(judging, None, guess, 0.5, 0, given)
    shuffled_ones = [measure(shuffled(judging, order), 0.5, given).overall for order in shuffled_orders(judging, 10, 0)]
    assert scores["permutation"]["cf1_tuned"] == pytest.approx(np.mean([one["cf1_tuned"] for one in shuffled_ones]))
    at = tune(category_guess(tuning, None).cells, 0.5)
    said = guess.cells.scores > at
    known, positive = known_and_positive(judging)
    expected = 2 * (said & positive).sum() / ((said & known).sum() + positive.sum())
    assert scores["category"]["of1_tuned"] == pytest.approx(expected)
    assert guesser_scores(judging, None, guess, 0.5, 0)["category"]["of1_tuned"] != pytest.approx(expected)


def test_a_random_order_has_no_expected_score_where_no_attribute_is_judged():
    cells = JudgedSet.of(draw_predictions(a=4), 0.5)
    scores = guesser_scores(cells, None, None, 0.5, 0)
    assert scores["category"] is None
    assert {scores["permutation"][key] for key in ("map", "mA", "auroc", "balanced_accuracy")} == {None}


def test_ap_and_auroc_of_the_category_guesser_are_means_over_the_halves():
    """Not of all objects together: each half's rates come from the other, so they are not on one scale."""
    cells = JudgedSet.of(draw_shares(n=120, images=40), 0.5)
    half, (known, positive) = second_half(cells.image_id), known_and_positive(cells)
    guess = category_guess(cells, None)
    found = guesser_scores(cells, None, guess, 0.5, 0)["category"]
    for key, score in (("map", average_precision_score), ("auroc", roc_auc_score)):
        expected = [
            score(positive[rows, a], guess.cells.scores[rows, a])
            for a in range(8)
            for rows in (half & known[:, a], ~half & known[:, a])
        ]
        assert found[key] == pytest.approx(np.mean(expected)), key


def test_the_prior_is_tuned_as_the_shares_of_the_judged_objects_on_those_that_thresholds_come_from():
    """There nearly all objects have it, here few: no rate of there is reached here."""
    here, there = draw_shares(n=100, a=1, known=1.0), draw_shares(n=100, a=1, known=1.0, seed=1)
    here.labels[:, 0], there.labels[:, 0] = np.arange(100) % 4 == 0, np.arange(100) % 10 != 0
    judging, tuning = JudgedSet.of(here, 0.5), JudgedSet.of(there, 0.5)
    given = GivenThresholds(tune(tuning, 0.5), "thresholds tuned on split 'train'", tuning)
    prior = guesser_scores(judging, None, None, 0.5, 0, given)["prior"]
    assert (prior["or"], prior["or_tuned"], prior["op_tuned"]) == (0, 1, 0.25)


@pytest.mark.parametrize(("replicates", "p"), [(200, 1 / 40), (10, 1 / 11)])
def test_where_shuffles_would_take_long_39_are_drawn_and_never_more_than_asked_for(monkeypatch, replicates, p):
    monkeypatch.setattr(guessers, "_SHUFFLE_WORK", 1)
    cells = JudgedSet.of(draw_predictions(n=150, a=8, skill=4.0), 0.5)
    assert permutation_p(cells, measure(cells, 0.5), replicates, 0) == pytest.approx(p)


def test_p_is_small_for_skill_and_uniform_without():
    def p(seed, skill):
        cells = JudgedSet.of(draw_predictions(n=150, a=8, skill=skill, seed=seed), 0.5)
        return permutation_p(cells, measure(cells, 0.5), 99, seed)

    assert p(0, 2.0) == 0.01
    without = np.array([p(seed, 0.0) for seed in range(60)])
    assert 0.3 < without.mean() < 0.7 and (without <= 0.1).mean() < 0.25
    assert permutation_p(cells_of(np.eye(6), np.eye(6)), measure(cells_of(np.eye(6), np.eye(6)), 0.5), 99, 0) is None


def test_a_category_is_drawn_towards_the_attributes_rate_by_five_objects():
    """Three of four dogs have it, and 5 of all 10 objects: (3 + 5 x 1/2) / (4 + 5)."""
    labels = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0, np.nan], dtype=np.float32)[:, None]
    training = TrainingRates.of(labels, np.array([*["dog"] * 4, *["cat"] * 6, "dog"]), 0.5)
    judged = cells_of(np.zeros((3, 1)), np.ones((3, 1)), category=["dog", "cat", "bus"])
    guess = category_guess(judged, training)
    np.testing.assert_allclose(guess.cells.scores[:, 0], [5.5 / 9, 4.5 / 11, 0.5], rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_guessers_decide_by_the_threshold_that_the_model_decides_by(threshold):
    predictions = draw_shares(n=400, skill=2.0)
    cells = JudgedSet.of(predictions, 0.5)
    rng = np.random.default_rng(4)
    labels = (rng.random((300, 8)) < np.linspace(0.15, 0.95, 8)).astype(np.float32)
    training = TrainingRates.of(labels, rng.choice(["cat", "dog"], 300), 0.5)
    guess = category_guess(cells, training)
    scores = guesser_scores(cells, training, guess, threshold, 0)
    known, positive = known_and_positive(cells)
    prior = np.broadcast_to(labels.mean(axis=0), known.shape)
    for name, guessed in (("prior", prior), ("category", guess.cells.scores)):
        expected = f1_score(positive[known], guessed[known] > threshold)
        assert scores[name]["of1"] == pytest.approx(expected) and expected > 0, name
    precision = []
    for order in shuffled_orders(cells, 10, 0):
        said = shuffled(cells, order).scores > np.log(threshold / (1 - threshold))
        precision.append((said & positive).sum() / (said & known).sum())
    assert scores["permutation"]["op"] == pytest.approx(np.mean(precision))


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_a_guesser_keeps_the_threshold_where_nothing_could_be_tuned(threshold):
    """No object that thresholds were tuned on has the attribute, and in training half of all had it."""
    here = draw_shares(n=100, a=1, known=1.0)
    there = draw_shares(n=100, a=1, known=1.0, seed=1)
    there.labels[:] = 0
    judging, tuning = JudgedSet.of(here, 0.5), JudgedSet.of(there, 0.5)
    training = TrainingRates.of(np.float32([[0], [1]] * 50), np.array(["cat", "dog", "dog", "cat"] * 25), 0.5)
    given = GivenThresholds(tune(tuning, threshold), "thresholds tuned on split 'train'", tuning)
    scores = guesser_scores(judging, training, category_guess(judging, training), threshold, 0, given)
    for name in ("prior", "category"):
        assert scores[name]["or_tuned"] == (1.0 if threshold < 0.5 else 0.0), name


def test_a_model_that_says_the_same_of_everything_is_as_good_as_every_shuffle_of_it():
    predictions = draw_shares(n=150, images=50)
    predictions.logits[:] = 0.25
    cells = JudgedSet.of(predictions, 0.5)
    assert permutation_p(cells, measure(cells, 0.5), 99, 0) == 1.0


def test_p_counts_the_shuffles_that_reach_the_models_map():
    predictions = draw_shares(n=60, a=2, images=30, skill=0.6, seed=5)
    predictions.logits[:] = np.round(predictions.logits)
    cells = JudgedSet.of(predictions, 0.5)
    measured = measure(cells, 0.5)
    reached = sum(one > measured.overall["map"] - 1e-9 for one in maps_of_traded_rows(cells, 60, 7))
    assert 0 < reached < 60
    assert permutation_p(cells, measured, 60, 7) == pytest.approx((reached + 1) / 61)


def test_scores_that_were_left_out_where_labels_are_unknown_have_no_p():
    """Shuffled, the placeholders would come to lie on known cells, and any order beats one of equals."""
    predictions = draw_shares(n=300, skill=0.0)
    unknown = np.isnan(predictions.labels)
    cells = JudgedSet.of(predictions, 0.5)
    assert permutation_p(cells, measure(cells, 0.5), 99, 0) > 0.05
    predictions.logits[unknown] = -20
    cells = JudgedSet.of(predictions, 0.5)
    assert permutation_p(cells, measure(cells, 0.5), 99, 0) is None
    for column, rows in enumerate(unknown.T):
        predictions.logits[np.flatnonzero(rows)[0], column] = 3  # one of them is a score after all
    cells = JudgedSet.of(predictions, 0.5)
    assert permutation_p(cells, measure(cells, 0.5), 99, 0) is not None

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from attrtrain.auditing import held_out
from attrtrain.auditing.held_out import held_out_test, pairs_won, standardised


def drawn(objects=240, attributes=6, known=1.0, slope=0.0, per_photograph=3, seed=0):
    """Features (N, 4), labels (N, A) that follow the first feature, and photographs (N,)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(objects, 4))
    chance = 1 / (1 + np.exp(-slope * features[:, :1]))
    labels = (rng.random((objects, attributes)) < chance).astype(np.float32)
    labels[rng.random(labels.shape) > known] = np.nan
    return features, labels, np.arange(objects) // per_photograph


@pytest.mark.parametrize("decimals", [8, 0])  # 0: mostly ties
def test_pairs_won_is_scikit_learns_auroc_on_known_cells(decimals):
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(60, 8)).round(decimals).astype(np.float32)
    known = rng.random(scores.shape) < 0.7
    positive = known & (rng.random(scores.shape) < 0.3)
    wins, pairs = pairs_won(scores, positive, known)
    expected = [roc_auc_score(positive[k, a], scores[k, a]) for a, k in enumerate(known.T)]
    np.testing.assert_allclose(wins / pairs, expected, atol=1e-6)


def test_the_effect_is_that_of_scikit_learns_ridge_fold_by_fold():
    features, labels, image_id = drawn(known=0.8, slope=1.0)
    test = held_out_test(features, labels, image_id, permutations=3)
    x, fold = standardised(features), held_out._folds(image_id, 0)[0]
    for column, truth in enumerate(labels.T):
        known, won, pairs = ~np.isnan(truth), 0.0, 0.0
        residual = np.where(known, truth - truth[known].mean(), 0)
        for number in range(held_out.FOLDS):
            mine = fold == number
            model = Ridge(alpha=10.0, fit_intercept=False).fit(x[~mine], residual[~mine])
            judged = mine & known
            here = truth[judged].sum() * (1 - truth[judged]).sum()
            won += here * roc_auc_score(truth[judged], model.predict(x[judged]))
            pairs += here
        assert test.auroc[column] == pytest.approx(won / pairs, abs=1e-5)
    assert test.effect == pytest.approx(test.auroc.mean() - 0.5)


def test_no_photograph_is_in_two_folds_and_folds_are_alike():
    image_id = np.repeat(np.arange(100), np.random.default_rng(0).integers(1, 6, 100))
    fold, photograph = held_out._folds(image_id, seed=3)
    for image in range(100):
        assert len(set(fold[image_id == image])) == 1 and len(set(photograph[image_id == image])) == 1
    assert set(fold) == set(range(5))
    sizes = np.bincount(fold)
    assert sizes.max() - sizes.min() <= 10


@pytest.mark.parametrize("sizes", [[270, 8, 8, 7, 7], [60, 140]])
def test_a_signal_is_found_wherever_a_photograph_of_most_objects_is_drawn(sizes):
    for seed in range(12):
        features, labels, _ = drawn(objects=sum(sizes), slope=3.0, seed=seed)
        image_id = np.repeat(np.random.default_rng(seed).choice(1000, len(sizes), replace=False), sizes)
        test = held_out_test(features, labels, image_id, permutations=19, seed=seed)
        assert test.p_value == 0.05 and test.effect > 0.1, seed


def test_two_photographs_or_more_are_never_all_in_one_fold():
    rng = np.random.default_rng(0)
    for seed in range(300):
        sizes = np.ceil(rng.pareto(0.7, rng.integers(2, 12))).clip(1, 5000).astype(np.int64)
        fold, _ = held_out._folds(np.repeat(np.arange(len(sizes)), sizes), seed)
        assert len(set(fold)) >= 2 and fold.min() >= 0 and fold.max() < held_out.FOLDS, sizes


def test_a_signal_is_found_and_named_by_attribute():
    features, labels, image_id = drawn(slope=1.5)
    labels[:, 3:] = np.random.default_rng(5).integers(0, 2, labels[:, 3:].shape)  # coins
    test = held_out_test(features, labels, image_id, permutations=99)
    assert test.p_value == 0.01 and test.effect > 0.1
    assert (test.attribute_p[:3] <= 0.05).all() and (test.attribute_p[3:] > 0.05).all()
    assert test.above_chance == 3


def test_p_values_of_coins_are_uniform():
    """Coins in photographs, described by features that photographs share: the worst case for a test that shuffles
    objects.
    """
    p_values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        image_id = np.repeat(np.arange(30), 4)
        features = rng.normal(size=(30, 3))[image_id] + 0.3 * rng.normal(size=(120, 3))
        labels = rng.integers(0, 2, (30, 5))[image_id].astype(np.float32)  # one coin a photograph
        p_values.append(held_out_test(features, labels, image_id, permutations=39, seed=seed).p_value)
    share = np.mean(np.array(p_values) <= 0.2)
    assert share <= 0.36  # three standard deviations above 0.2; shuffling objects would give about 0.6


def test_power_is_high_where_there_are_many_labels_and_low_where_there_are_few():
    features, labels, image_id = drawn(objects=1000, attributes=10)
    assert held_out_test(features, labels, image_id, permutations=99).power == 1.0
    assert held_out_test(features[:40], labels[:40], image_id[:40], permutations=99).power <= 0.5


def test_the_planted_direction_reaches_the_auroc_it_is_said_to():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, 1))
    positive = rng.random((20_000, 4)) < 0.3
    planted = held_out._plant(features, positive, np.ones_like(positive), rng)
    auroc = [roc_auc_score(column, features[:, 0]) for column in planted.T]
    assert np.maximum(auroc, np.subtract(1, auroc)).mean() == pytest.approx(held_out.PLANTED_AUROC, abs=0.01)
    assert planted.mean() == pytest.approx(0.3, abs=0.03)


def test_adjusted_p_values_are_those_of_a_plain_loop():
    rng = np.random.default_rng(2)
    observed, shuffled = 0.5 + 0.1 * rng.random(4), 0.5 + 0.05 * rng.normal(size=(50, 4))
    spread = shuffled.std(axis=0)
    for column, p in enumerate(held_out._max_t(observed, shuffled)):
        mine = (observed[column] - 0.5) / spread[column]
        reached = sum(max((row[a] - 0.5) / spread[a] for a in range(4)) >= mine for row in shuffled)
        assert p == pytest.approx((1 + reached) / 51)


def test_rare_attributes_are_not_judged():
    features, labels, image_id = drawn()
    labels[:, 0] = 0
    labels[:4, 0] = 1
    labels[:, 1] = 1
    labels[:, 2] = np.nan
    test = held_out_test(features, labels, image_id, permutations=3)
    assert np.isnan(test.auroc).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("objects", [0, 1, 12])
def test_nothing_to_test_is_none(objects):
    labels = np.full((objects, 2), np.nan, dtype=np.float32)
    assert held_out_test(np.ones((objects, 2)), labels, np.arange(objects), permutations=3) is None
    _, labels, image_id = drawn(objects=60)
    assert held_out_test(np.ones((60, 2)), labels, image_id, permutations=3) is None  # no feature varies


def test_objects_of_one_photograph_alone_can_be_tested():
    features, labels, _ = drawn(slope=2.0)
    test = held_out_test(features, labels, np.zeros(len(labels), dtype=np.int64), permutations=99)
    assert test.p_value == 0.01

"""Metrics, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from attrtrain.metrics.functional import bce, mean_scores


def test_means_are_over_known_cells_of_judged_attributes_only() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice([0.0, 0.2, 0.6, 1.0, np.nan], size=(80, 7)).astype(np.float32)
    labels[:, 3] = np.where(np.isnan(labels[:, 3]), np.nan, 1.0)  # no negative
    labels[:, 4] = np.where(np.isnan(labels[:, 4]), np.nan, 0.4)  # no positive
    labels[:, 5] = np.nan  # nothing known
    labels[:, 6] = np.where(np.arange(80) < 4, 1.0, 0.0)  # four positives: too few
    logits = generator.normal(size=labels.shape).astype(np.float32)
    result = mean_scores(logits, labels)
    known = ~np.isnan(labels)
    expected, priors = [], []
    for column in range(3):
        mine = known[:, column]
        truth = labels[mine, column] >= 0.5
        expected.append(average_precision_score(truth, logits[mine, column]))
        priors.append(truth.mean())
    assert result.judged == 3 and result.map == pytest.approx(np.mean(expected))
    assert result.prior_map == pytest.approx(np.mean(priors)) and result.loss == pytest.approx(
        bce(logits[known], labels[known])
    )
    np.testing.assert_allclose(result.average_precision, [*expected, np.nan, np.nan, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(result.known, known.sum(axis=0))
    np.testing.assert_array_equal(result.positives, (labels >= 0.5).sum(axis=0))


def test_unknown_cells_never_count_whatever_their_score() -> None:
    labels = np.array([[1.0]] * 5 + [[0.0]] * 5 + [[np.nan]], dtype=np.float32)
    for score in (-100.0, 0.0, 100.0):
        assert mean_scores(np.append(np.arange(10)[::-1], score)[:, None].astype(np.float32), labels).map == 1.0


def test_positive_at_is_inclusive_and_can_be_moved() -> None:
    labels = np.repeat([[0.5], [0.4], [0.0]], 6, axis=0)
    logits = np.zeros((18, 1))
    assert mean_scores(logits, labels).prior_map == pytest.approx(1 / 3)
    assert mean_scores(logits, labels, positive_at=0.4).prior_map == pytest.approx(2 / 3)


def test_nothing_judged_gives_nan_not_zero() -> None:
    result = mean_scores(np.zeros((3, 1)), np.full((3, 1), np.nan))
    assert np.isnan([result.map, result.prior_map, result.loss]).all() and result.judged == 0


def test_bce_is_log_loss_over_known_cells() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(scale=4, size=(50, 4))
    labels = generator.choice([0.0, 1.0, np.nan], size=(50, 4))
    known = ~np.isnan(labels)
    expected = log_loss(labels[known], 1 / (1 + np.exp(-logits[known])))
    assert bce(logits[known], labels[known]) == pytest.approx(expected, rel=1e-9)
    assert np.isfinite(bce(np.array([1e4, -1e4]), np.array([0.0, 1.0])))

"""Metrics, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from attrtrain.metrics.functional import average_precision, bce, score_attributes


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_is_scikit_learns_with_and_without_ties(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = int(generator.integers(2, 300))
    scores = generator.normal(size=size) if seed % 2 else generator.integers(0, 5, size).astype(float)
    positive = generator.random(size) < generator.uniform(0.01, 0.9)
    positive[0] = True
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


def test_map_and_prior_are_over_known_cells_of_judged_attributes_only() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice([0.0, 0.2, 0.6, 1.0, np.nan], size=(80, 6)).astype(np.float32)
    labels[:, 3] = np.where(np.isnan(labels[:, 3]), np.nan, 1.0)  # no negative
    labels[:, 4] = np.where(np.isnan(labels[:, 4]), np.nan, 0.4)  # no positive
    labels[:, 5] = np.nan  # nothing known
    scores = generator.normal(size=labels.shape).astype(np.float32)
    result = score_attributes(scores, labels)
    assert result.judged.tolist() == [True, True, True, False, False, False]
    expected, priors = [], []
    for column in range(3):
        known = ~np.isnan(labels[:, column])
        truth = labels[known, column] >= 0.5
        expected.append(average_precision_score(truth, scores[known, column]))
        priors.append(truth.mean())
    assert result.map == pytest.approx(np.mean(expected)) and result.prior_map == pytest.approx(np.mean(priors))
    assert np.isnan(result.average_precision[3:]).all()
    counts = result.positives + result.negatives + result.unknowns
    assert counts.tolist() == [80] * 6 and result.unknowns[5] == 80


def test_unknown_cells_never_count_whatever_their_score() -> None:
    labels = np.array([[1.0], [0.0], [np.nan]], dtype=np.float32)
    for score in (-100.0, 0.0, 100.0):
        result = score_attributes(np.array([[2.0], [1.0], [score]]), labels)
        assert result.average_precision.tolist() == [1.0] and not result.judged.any()


def test_positive_at_is_inclusive_and_can_be_moved() -> None:
    labels = np.array([[0.5], [0.4], [0.0]], dtype=np.float32)
    scores = np.zeros((3, 1))
    assert score_attributes(scores, labels).positives.tolist() == [1]
    assert score_attributes(scores, labels, positive_at=0.4).positives.tolist() == [2]


def test_a_nan_score_is_an_error_that_says_where() -> None:
    scores = np.zeros((4, 2))
    scores[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 2, attribute column 1"):
        score_attributes(scores, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="shape"):
        score_attributes(np.zeros((4, 2)), np.zeros((4, 3)))


def test_no_judged_attribute_gives_nan_not_zero() -> None:
    result = score_attributes(np.zeros((3, 1)), np.full((3, 1), np.nan))
    assert np.isnan(result.map) and np.isnan(result.prior_map)


def test_bce_is_log_loss_over_known_cells() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(scale=4, size=(50, 4))
    labels = generator.choice([0.0, 1.0, np.nan], size=(50, 4))
    known = ~np.isnan(labels)
    assert bce(logits, labels) == pytest.approx(log_loss(labels[known], 1 / (1 + np.exp(-logits[known]))), rel=1e-9)
    assert np.isfinite(bce(np.array([[1e4, -1e4]]), np.array([[0.0, 1.0]])))

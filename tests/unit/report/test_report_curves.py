import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, precision_recall_curve

from attrtrain.report.curves import CALIBRATION_BINS, calibration, precision_recall, thinned


def cells(seed, *, ties):
    rng = np.random.default_rng(seed)
    present = rng.random(300) < 0.2
    scores = np.clip(0.3 * present + rng.random(300) * 0.7, 0, 1)
    return (np.round(scores, 1) if ties else scores).astype(np.float32), present


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_precision_and_recall_are_scikit_learns(seed, ties):
    scores, present = cells(seed, ties=ties)
    recall, precision = precision_recall(scores, present)
    expected_precision, expected_recall, _ = precision_recall_curve(present, scores)
    np.testing.assert_allclose(recall, expected_recall[:-1][::-1])
    np.testing.assert_allclose(precision, expected_precision[:-1][::-1])


def test_without_a_positive_there_is_no_curve():
    recall, precision = precision_recall(np.array([0.1, 0.9]), np.array([False, False]))
    assert len(recall) == len(precision) == 0 and len(thinned(recall, precision)) == 0


def test_a_thinned_curve_has_its_ends_and_nearly_its_area():
    rng = np.random.default_rng(0)
    present = rng.random(20_000) < 0.1
    recall, precision = precision_recall(present + rng.normal(size=20_000), present)
    kept = thinned(recall, precision)
    assert len(kept) <= 64 and kept[0] == 0 and kept[-1] == len(recall) - 1
    assert auc(recall[kept], precision[kept]) == pytest.approx(auc(recall, precision), abs=0.01)


def test_a_short_curve_is_kept_whole():
    assert thinned(np.arange(5.0), np.zeros(5)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_calibration_is_scikit_learns(seed):
    scores, present = cells(seed, ties=False)
    bins = calibration(scores, present)
    share, mean = calibration_curve(present, scores, n_bins=CALIBRATION_BINS, strategy="uniform")
    np.testing.assert_allclose([part.present for part in bins], share)
    np.testing.assert_allclose([part.score for part in bins], mean, rtol=1e-6)
    assert sum(part.objects for part in bins) == 300


def test_scores_of_0_and_1_have_bins():
    bins = calibration(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]))
    assert [(part.score, part.present, part.objects) for part in bins] == [(0, 0, 1), (1, 1, 2)]

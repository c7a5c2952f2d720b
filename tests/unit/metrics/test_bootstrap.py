"""Replicates: the scores of photographs drawn again, as a plain loop finds them."""

import numpy as np
import pytest
from drawn_cells import draw_predictions

from attrtrain.metrics.bootstrap import default_replicates, image_weights, resample
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import measure
from attrtrain.metrics.paired import paired_difference


def test_weights_are_draws_of_photographs_with_replacement():
    weights = image_weights(50, 2000, seed=1)
    assert weights.shape == (2000, 50) and (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.15)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.03)
    np.testing.assert_array_equal(weights, image_weights(50, 2000, seed=1))


@pytest.mark.parametrize("ties", [False, True])
def test_a_replicate_is_the_score_of_the_photographs_drawn_one_after_the_other(ties):
    predictions = draw_predictions(n=250, images=60, ties=ties)
    cells = JudgedSet.of(predictions, 0.5)
    measured = measure(cells, 0.5)
    weights = image_weights(cells.images, 5, seed=0)
    drawn = resample(cells, measured, weights)
    for number, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(cells)), weight[cells.image])
        again = measure(cells.take(rows), 0.5)
        average = np.where(measured.judged, again.average_precision, np.nan)
        np.testing.assert_allclose(
            drawn.average_precision[number][measured.judged], average[measured.judged], atol=1e-6
        )
        assert drawn.overall["map"][number] == pytest.approx(np.nanmean(average), abs=1e-6)
        for key in ("of1", "or", "op", "f1_at_15", "instance_f1", "instance_recall", "cell_accuracy", "loss"):
            assert drawn.overall[key][number] == pytest.approx(again.overall[key], abs=1e-5), key
        if (again.judged == measured.judged).all():
            for key in ("cf1", "mA", "auroc", "prior_map", "permutation_map", "mean_recall_at_15"):
                assert drawn.overall[key][number] == pytest.approx(again.overall[key], abs=1e-5), key


def test_photographs_drawn_once_each_give_the_score_itself():
    cells = JudgedSet.of(draw_predictions(), 0.5)
    measured = measure(cells, 0.5)
    drawn = resample(cells, measured, np.ones((1, cells.images), np.uint8))
    for key, values in drawn.overall.items():
        assert values[0] == pytest.approx(measured.overall[key], abs=1e-6), key


def test_replicates_are_fewer_where_there_is_much_to_do():
    assert [default_replicates(cells) for cells in (0, 10**6, 3 * 10**6, 10**9)] == [1000, 1000, 500, 100]


def test_one_photograph_has_no_interval():
    a = draw_predictions(n=50, images=1)
    gain = paired_difference(a, a).overall["map"]
    assert gain.interval is None and gain.p is None

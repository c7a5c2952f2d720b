"""Intervals: of photographs, not objects, and as wide as the score is uncertain."""

import numpy as np
import pytest
import scipy.stats
from drawn_cells import cells_of, draw_predictions

from attrtrain.metrics.bootstrap import image_weights, resample
from attrtrain.metrics.intervals import expansion, interval
from attrtrain.metrics.judge import judge
from attrtrain.metrics.measure import measure


def test_an_interval_is_the_middle_of_the_replicates_around_the_score():
    replicates = np.append(np.random.default_rng(0).normal(0.55, 0.1, 10_000), np.nan)
    low, high = interval(replicates, 0.5, 10**6)
    assert (low, high) == (pytest.approx(0.5 - 0.196, abs=0.01), pytest.approx(0.5 + 0.196, abs=0.01))
    assert interval(replicates, 0.95, 100)[1] == 1 and interval(replicates, 5.0, 100, most=np.inf)[1] > 5
    assert interval(np.array([np.nan, 0.3]), 0.5, 9) is None and interval(np.zeros(0), 0.5, 9) is None
    assert interval(replicates, float("nan"), 9) is None


def test_an_interval_leans_the_way_its_replicates_lean():
    replicates = np.random.default_rng(0).exponential(0.05, 1000)
    expected = 0.5 - replicates.mean() + np.quantile(replicates, [0.025, 0.975])
    assert interval(replicates, 0.5, 10**9) == pytest.approx(tuple(expected), abs=1e-6)


def test_few_photographs_widen_the_interval_as_students_t_has_it():
    replicates = np.random.default_rng(0).normal(0.5, 0.01, 10_000)

    def wide(images):
        low, high = interval(replicates, 0.5, images)
        return high - low

    for images in (2, 11, 30, 100):
        expected = np.sqrt(images / (images - 1)) * scipy.stats.t.ppf(0.975, images - 1) / scipy.stats.norm.ppf(0.975)
        assert wide(images) / wide(10**9) == pytest.approx(expected, rel=1e-6)
    assert expansion(11) == pytest.approx(1.19, abs=0.005) and expansion(100) == pytest.approx(1.02, abs=0.005)
    assert expansion(1) == 1


def test_intervals_of_a_dozen_photographs_hold_a_mean_as_often_as_they_say():
    rng = np.random.default_rng(5)
    held = []
    for number in range(400):
        of_images = rng.normal(size=12)
        drawn = image_weights(12, 400, number) @ of_images / 12
        low, high = interval(drawn, of_images.mean(), 12, -np.inf, np.inf)
        held.append(low <= 0 <= high)
    assert 0.92 <= np.mean(held) <= 0.98  # without widening about 0.90


def clustered(rng, images=60, objects=4, attributes=5, alike=0.0):
    """Scores and labels of which a share of the variance belongs to the photograph."""

    def noise():
        shared = rng.normal(size=(images, 1, attributes))
        return np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.normal(size=(images, objects, attributes))

    positive = noise() > 0.5
    scores = (positive + noise()).reshape(-1, attributes)
    return scores.astype(np.float32), positive.reshape(-1, attributes), np.repeat(np.arange(images), objects)


def width(scores, labels, image_id, key="map"):
    cells = cells_of(scores, labels, image_id=image_id)
    measured = measure(cells, 0.5)
    drawn = resample(cells, measured, image_weights(cells.images, 300, 0))
    low, high = interval(drawn.overall[key], measured.overall[key], drawn.images)
    return high - low


@pytest.mark.parametrize("key", ["map", "of1", "instance_f1", "auroc"])
def test_objects_that_are_alike_within_photographs_widen_the_interval(key):
    scores, labels, image = clustered(np.random.default_rng(0), alike=0.95)
    of_objects = width(scores, labels, np.arange(len(scores)), key)
    assert width(scores, labels, image, key) > 1.4 * of_objects
    scores, labels, image = clustered(np.random.default_rng(0), alike=0.0)
    assert 0.75 < width(scores, labels, image, key) / width(scores, labels, np.arange(len(scores)), key) < 1.35


def test_intervals_hold_the_expected_map_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    sets = [clustered(rng, images=50, alike=0.5, attributes=8) for _ in range(150)]
    maps, between = [], []
    for number, (scores, labels, image) in enumerate(sets):
        cells = cells_of(scores, labels, image_id=image)
        measured = measure(cells, 0.5)
        maps.append(measured.overall["map"])
        drawn = resample(cells, measured, image_weights(cells.images, 200, number))
        between.append(interval(drawn.overall["map"], maps[-1], drawn.images))
    expected = np.mean(maps)
    held = np.mean([low <= expected <= high for low, high in between])
    assert 0.88 <= held <= 0.99


def test_logits_as_low_as_single_precision_goes_have_a_loss_and_an_interval():
    a = draw_predictions(n=60, images=20)
    a.logits[:3] = np.finfo(np.float32).min  # what masking leaves
    document = judge(a, source={}, replicates=50)
    low, high = document.intervals["loss"]
    assert low < document.overall["loss"] < high and np.isfinite(high)

"""Intervals: of photographs, not objects; as wide as the score is uncertain; and paired where two models are
compared.
"""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from drawn_cells import cells_of, draw_predictions, draw_shares, plain_map, redrawn
from sklearn.metrics import f1_score

from attrtrain.errors import PredictionsError
from attrtrain.metrics.intervals import (
    default_replicates,
    expansion,
    image_weights,
    interval,
    mean_difference,
    paired_difference,
    resample,
)
from attrtrain.metrics.judge import judge
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import measure


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


def test_an_interval_is_the_middle_of_the_replicates_around_the_score():
    replicates = np.append(np.random.default_rng(0).normal(0.55, 0.1, 10_000), np.nan)
    low, high = interval(replicates, 0.5, 10**6)
    assert (low, high) == (pytest.approx(0.5 - 0.196, abs=0.01), pytest.approx(0.5 + 0.196, abs=0.01))
    assert interval(replicates, 0.95, 100)[1] == 1 and interval(replicates, 5.0, 100, most=np.inf)[1] > 5
    assert interval(np.array([np.nan, 0.3]), 0.5, 9) is None and interval(np.zeros(0), 0.5, 9) is None
    assert interval(replicates, float("nan"), 9) is None


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


def test_replicates_are_fewer_where_there_is_much_to_do():
    assert [default_replicates(cells) for cells in (0, 10**6, 3 * 10**6, 10**9)] == [1000, 1000, 500, 100]


def improved(predictions, by, seed=1):
    rng = np.random.default_rng(seed)
    present = np.nan_to_num(predictions.labels) - 0.5
    logits = predictions.logits + by * present + rng.normal(scale=0.1, size=predictions.logits.shape)
    return replace(predictions, logits=logits.astype(np.float32))


def test_a_paired_difference_sees_what_two_intervals_would_not():
    a = draw_predictions(n=300, a=12, images=80)
    found = paired_difference(a, improved(a, 0.3), replicates=300)
    gain = found.overall["map"]
    assert gain.difference == pytest.approx(gain.b - gain.a) and gain.difference > 0
    assert gain.interval[0] > 0 and gain.p <= 0.02
    cells = [JudgedSet.of(one, 0.5) for one in (a, improved(a, 0.3))]
    own = [
        interval(
            resample(c, measure(c, 0.5), image_weights(c.images, 300, 0)).overall["map"],
            measure(c, 0.5).overall["map"],
            c.images,
        )
        for c in cells
    ]
    assert own[0][1] > own[1][0]  # they overlap
    assert gain.interval[1] - gain.interval[0] < 0.5 * (own[0][1] - own[0][0])
    assert set(found.attributes) == {name for i, name in enumerate(a.names) if i not in (0, 2, 3)}
    assert found.attributes["attribute 5"].a == pytest.approx(measure(cells[0], 0.5).average_precision[5])
    assert "prior_map" not in found.overall


def test_p_is_twice_the_smaller_tail_of_the_centred_replicates():
    a = draw_predictions(n=200, images=70)
    b = improved(a, 0.03)
    found = paired_difference(a, b, replicates=300).attributes["attribute 6"]
    drawn = []
    for one in (a, b):
        cells = JudgedSet.of(one, 0.5)
        drawn.append(resample(cells, measure(cells, 0.5), image_weights(cells.images, 300, 0)).average_precision[:, 6])
    apart = drawn[1] - drawn[0]
    apart = apart - apart.mean() + found.difference
    expected = 2 * (min((apart < 0).sum(), (apart > 0).sum()) + 1) / 301
    assert 0.05 < expected < 1 and found.p == pytest.approx(expected)


def test_equal_models_differ_by_nothing_whatever_their_order():
    a = draw_predictions(n=120)
    order = np.random.default_rng(0).permutation(120)
    fields = ("object_id", "image_id", "category", "logits", "labels")
    b = replace(a, **{name: getattr(a, name)[order] for name in fields})
    found = paired_difference(a, b, replicates=50)
    for key, gain in found.overall.items():
        assert gain.difference == pytest.approx(0, abs=1e-9), key
        assert gain.interval in (None, (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6)))
        assert gain.p in (None, 1.0)


def test_attributes_in_another_order_are_compared_by_name():
    a = draw_predictions(n=120)
    b = improved(a, 0.5)
    turned = replace(b, names=b.names[::-1], logits=b.logits[:, ::-1], labels=b.labels[:, ::-1])
    assert paired_difference(a, turned, replicates=50) == paired_difference(a, b, replicates=50)


def test_models_that_are_equally_good_seldom_differ():
    p = []
    for seed in range(40):
        a, b = (draw_predictions(n=150, a=8, seed=seed) for _ in range(2))
        b = replace(b, logits=improved(b, 0, seed=100 + seed).logits)
        a = replace(a, logits=improved(a, 0, seed=200 + seed).logits)
        p.append(paired_difference(a, b, replicates=100).overall["map"].p)
    assert np.mean(np.array(p) < 0.05) <= 0.15


def test_p_and_the_interval_say_the_same_of_few_photographs():
    seen = set()
    for seed in range(60):
        a = draw_predictions(n=200, a=6, images=8, seed=seed)
        found = paired_difference(a, improved(a, 0.15, seed=seed), replicates=400).overall["map"]
        low, high = found.interval
        if not 0.03 < found.p < 0.07:  # at the edge, one replicate decides
            assert (found.p < 0.05) == (low > 0 or high < 0), (seed, found)
            seen.add(found.p < 0.05)
    assert seen == {True, False}


def test_logits_as_low_as_single_precision_goes_have_a_loss_and_an_interval():
    a = draw_predictions(n=60, images=20)
    a.logits[:3] = np.finfo(np.float32).min  # what masking leaves
    document = judge(a, source={}, replicates=50)
    low, high = document.intervals["loss"]
    assert low < document.overall["loss"] < high and np.isfinite(high)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": tuple("abcdefghijkl")}, "other attributes"),
        ({"object_id": np.arange(120)}, r"other objects \(120 and 120, 0 of them the same\)"),
        ({"labels": np.zeros((120, 12), np.float32)}, "other labels or photographs"),
        ({"image_id": np.zeros(120, np.int64)}, "other labels or photographs"),
    ],
)
def test_predictions_that_cannot_be_compared_are_refused(change, message):
    a = draw_predictions(n=120)
    with pytest.raises(PredictionsError, match=message):
        paired_difference(a, replace(a, **change))


def test_one_photograph_has_no_interval():
    a = draw_predictions(n=50, images=1)
    gain = paired_difference(a, a).overall["map"]
    assert gain.interval is None and gain.p is None


def test_the_mean_over_pairs_is_theirs_and_its_interval_grows_where_pairs_disagree():
    runs = [draw_predictions(seed=4, images=80)]
    noise = np.random.default_rng(0)
    runs += [
        replace(runs[0], logits=runs[0].logits + noise.normal(0, 0.2, runs[0].logits.shape).astype(np.float32))
        for _ in range(2)
    ]
    truth = np.nan_to_num(runs[0].labels, nan=0.5) - 0.5
    alike = [replace(run, logits=run.logits + 0.5 * truth) for run in runs]
    apart = [replace(run, logits=run.logits + gain * truth) for run, gain in zip(runs, (0.0, 0.5, 1.0), strict=True)]
    spans = []
    for better in (alike, apart):
        found = mean_difference(runs, better)
        single = [paired_difference(a, b).overall["map"] for a, b in zip(runs, better, strict=True)]
        assert found.difference == pytest.approx(np.mean([one.difference for one in single]))
        assert found.a == pytest.approx(np.mean([one.a for one in single])) and found.b == pytest.approx(
            found.a + found.difference
        )
        assert found.interval[0] < found.difference < found.interval[1]
        spans.append(found.interval[1] - found.interval[0])
    assert spans[1] > 1.5 * spans[0]
    mixed = replace(
        alike[0],
        **{name: getattr(alike[0], name)[::-1] for name in ("object_id", "image_id", "category", "logits", "labels")},
    )
    again = mean_difference(runs, [mixed, *alike[1:]])
    straight = mean_difference(runs, alike)
    assert (again.difference, *again.interval) == pytest.approx((straight.difference, *straight.interval))
    nothing = mean_difference(runs, runs)
    assert (nothing.difference, nothing.interval, nothing.p) == (0, (0, 0), 1)


@pytest.mark.parametrize("positive_at", [0.3, 0.5, 0.8])
def test_two_models_are_compared_by_what_counts_as_present(positive_at):
    a, b = draw_shares(skill=0.5), draw_shares(skill=1.5)
    gain = paired_difference(a, b, positive_at=positive_at, replicates=30).overall["map"]
    assert (gain.a, gain.b) == pytest.approx((plain_map(a, positive_at), plain_map(b, positive_at)))
    assert gain.interval[0] < gain.difference < gain.interval[1]
    more = [draw_shares(skill=0.7), draw_shares(skill=2.0)]
    mean = mean_difference([a, more[0]], [b, more[1]], positive_at=positive_at)
    scores = [plain_map(one, positive_at) for one in (a, more[0], b, more[1])]
    assert (mean.a, mean.b) == pytest.approx((np.mean(scores[:2]), np.mean(scores[2:])))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_two_models_are_compared_at_the_threshold_that_was_asked_for(threshold):
    a, b = draw_shares(skill=0.5), draw_shares(skill=1.5)
    found = paired_difference(a, b, threshold=threshold, replicates=20).overall["of1"]
    known = ~np.isnan(a.labels)
    truth = a.labels[known] >= 0.5
    expected = [f1_score(truth, one.logits[known] > np.log(threshold / (1 - threshold))) for one in (a, b)]
    assert (found.a, found.b) == pytest.approx(expected)


def test_a_paired_interval_is_as_wide_as_so_few_photographs_ask_for():
    """By hand: the same photographs are drawn for both, their scores counted again, and the differences moved to the
    one there is and widened by Student's t.
    """
    a, b = (draw_shares(n=160, a=3, images=7, known=1.0, skill=skill) for skill in (0.6, 1.0))
    found = paired_difference(a, b, replicates=80, seed=2)
    assert found.images == 7
    wider = np.sqrt(7 / 6) * scipy.stats.t.ppf(0.975, 6) / scipy.stats.norm.ppf(0.975)
    weights = image_weights(7, 80, 2)
    apart = redrawn(b, weights) - redrawn(a, weights)
    columns = [(found.overall["map"], apart.mean(axis=1))]
    columns += [(found.attributes[name], apart[:, column]) for column, name in enumerate(a.names)]
    for gain, replicates in columns:
        spread = gain.difference + wider * (replicates - replicates.mean())
        assert gain.interval == pytest.approx(np.quantile(spread, [0.025, 0.975]), abs=1e-6)
        assert gain.p == pytest.approx(min(1, 2 * (min((spread <= 0).sum(), (spread >= 0).sum()) + 1) / 81))

"""Two models on the same objects: what differs, how surely, and what cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from drawn_cells import draw_predictions, draw_shares, plain_map, redrawn
from sklearn.metrics import f1_score

from attrtrain.errors import PredictionsError
from attrtrain.metrics.bootstrap import image_weights, resample
from attrtrain.metrics.intervals import interval
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import measure
from attrtrain.metrics.paired import mean_difference, paired_difference


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
    without = {key for key, one in found.overall.items() if one.interval is None}
    assert {key for key in found.overall if key.endswith("_tuned")} < without and not {"of1", "auroc", "loss"} & without


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


def test_seen_from_the_other_side_the_difference_and_its_interval_are_negative():
    a, b = draw_shares(skill=0.5), draw_shares(skill=1.5)
    for there, back in (
        (
            paired_difference(a, b, replicates=100).overall["map"],
            paired_difference(b, a, replicates=100).overall["map"],
        ),
        (mean_difference([a, a], [b, b]), mean_difference([b, b], [a, a])),
    ):
        assert there.interval[0] > 0 and back.difference == pytest.approx(-there.difference)
        assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
        assert back.p == there.p


def test_recipes_are_compared_on_the_same_objects_and_by_a_score_that_there_is():
    a, b = draw_shares(skill=0.5), draw_shares(skill=1.5)
    other = replace(b, object_id=b.object_id + 1)
    for before, after in (([a, a], [b, other]), ([a, other], [b, b])):
        with pytest.raises(PredictionsError, match="judged on other objects"):
            mean_difference(before, after)
    unlabelled = [replace(one, labels=np.full_like(one.labels, np.nan)) for one in (a, b)]
    with pytest.raises(PredictionsError, match="map is not defined on these objects"):
        mean_difference(unlabelled[:1], unlabelled[1:])


def test_of_one_photograph_there_is_no_interval():
    a, b = (draw_shares(images=1, skill=skill) for skill in (0.5, 1.5))
    single = paired_difference(a, b).overall["map"]
    assert single.interval is None and single.difference > 0
    for found in (mean_difference([a], [b]), mean_difference([a, a, a], [b, b, b])):
        assert found.difference == pytest.approx(single.difference)
        assert found.interval is None and found.p is None


def test_the_mean_over_pairs_has_an_interval_of_those_scores_of_which_two_models_have_one():
    a, b = draw_shares(n=120, a=4, skill=0.5), draw_shares(n=120, a=4, skill=1.5)
    singles = paired_difference(a, b, replicates=20).overall
    assert {key: singles[key].interval is None for key in ("map", "of1", "ece", "cf1_tuned")} == {
        "map": False, "of1": False, "ece": True, "cf1_tuned": True,
    }  # fmt: skip
    for key, single in singles.items():
        found = mean_difference([a, a], [b, b], key)
        assert found.difference == pytest.approx(single.difference), key
        assert (found.interval is None, found.p is None) == (single.interval is None, single.p is None), key


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

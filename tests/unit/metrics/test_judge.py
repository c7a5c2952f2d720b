"""The whole document: every number in its place, each beside what guessing scores."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from drawn_cells import draw_predictions, draw_shares, known_and_positive, plain_map, redrawn
from sklearn.metrics import average_precision_score, f1_score

from attrtrain.metrics.baselines import TrainingRates
from attrtrain.metrics.bootstrap import image_weights
from attrtrain.metrics.decisions import GivenThresholds
from attrtrain.metrics.document import read_metrics, write_metrics
from attrtrain.metrics.groups import frequency_thirds
from attrtrain.metrics.intervals import interval
from attrtrain.metrics.judge import judge
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import measure
from attrtrain.metrics.ranking import Ranking
from attrtrain.metrics.views import as_legacy
from attrtrain.predictions import Predictions

GROUPS = {f"attribute {i}": "motion" if i < 8 else "colour" for i in range(4, 11)}


@pytest.fixture(scope="module")
def predictions():
    return draw_predictions(n=400, images=130)


@pytest.fixture(scope="module")
def document(predictions):
    return judge(predictions, source={"model": "runs/x", "split": "val"}, groups=GROUPS, replicates=200)


def average_precision(predictions, a, positive_at=0.5):
    known = ~np.isnan(predictions.labels[:, a])
    return average_precision_score(predictions.labels[known, a] >= positive_at, predictions.logits[known, a])


def test_it_can_be_written_and_read(tmp_path, document):
    write_metrics(document, tmp_path / "metrics.json")
    assert read_metrics(tmp_path / "metrics.json") == document
    assert document.objects == 400 and document.images == len(np.unique(draw_predictions(n=400, images=130).image_id))


def test_every_overall_key_of_the_contract_is_there(document):
    keys = (
        "map prior_map permutation_map category_map auroc balanced_accuracy ece cp cr cf1 op or of1 cp_tuned cr_tuned cf1_tuned op_tuned or_tuned of1_tuned mA "
        "mean_recall_at_15 f1_at_15 instance_accuracy instance_precision instance_recall instance_f1 cell_accuracy loss"
    )
    assert set(document.overall) == set(document.intervals) == set(keys.split())
    assert list(document.overall)[:4] == ["map", "prior_map", "permutation_map", "category_map"]  # guessers in a row
    assert None not in document.overall.values()
    assert [key for key, between in document.intervals.items() if between is None] == ["category_map", "ece"]
    for key, between in document.intervals.items():
        assert between is None or between[0] <= document.overall[key] <= between[1], key
    assert document.baselines["category"]["map"] == pytest.approx(document.overall["category_map"])
    assert document.baselines["prior"]["map"] == pytest.approx(document.overall["prior_map"])
    assert document.permutation_p == pytest.approx(1 / 201)


def test_each_attribute_has_its_own_numbers(predictions, document):
    for a, entry in enumerate(document.attributes):
        known = ~np.isnan(predictions.labels[:, a])
        positives = int((predictions.labels[known, a] >= 0.5).sum())
        assert (entry.name, entry.positives, entry.negatives) == (
            predictions.names[a],
            positives,
            known.sum() - positives,
        )
        assert entry.unknowns == 400 - known.sum()
        assert entry.group == GROUPS.get(entry.name)
        if 0 < positives < known.sum():
            assert entry.ap == pytest.approx(average_precision(predictions, a))
            assert entry.ap_interval[0] <= entry.ap <= entry.ap_interval[1]
            assert entry.prior == pytest.approx(positives / known.sum())
            assert entry.permutation_ap > entry.prior
        else:
            assert entry.ap is None and entry.ap_interval is None
    numbers = document.attributes[0].model_dump(
        exclude={"name", "group", "frequency", "judged", "positives", "negatives", "unknowns"}
    )
    assert set(numbers.values()) == {None}  # nothing is known of it


def test_attributes_with_few_positives_are_left_out_of_means_and_named(predictions, document):
    out = [f"attribute {a}" for a in range(4)]
    assert document.left_out.names == out and document.left_out.count == 4
    assert [entry.name for entry in document.attributes if not entry.judged] == out
    assert document.attributes[1].ap is not None  # one positive: told, but in no mean
    judged = [average_precision(predictions, a) for a in range(4, 12)]
    assert document.overall["map"] == pytest.approx(np.mean(judged))
    assert document.overall["category_map"] == pytest.approx(
        np.mean([entry.category_ap for entry in document.attributes[4:]])
    )


def test_groups_of_attributes_are_means_of_theirs(predictions, document):
    colour, motion = document.groups["attribute_group"]
    assert (colour.name, colour.attributes, motion.name, motion.attributes) == ("colour", 3, "motion", 4)
    assert motion.map == pytest.approx(np.mean([average_precision(predictions, a) for a in range(4, 8)]))
    assert motion.map_interval[0] < motion.map < motion.map_interval[1]
    assert motion.objects == (~np.isnan(predictions.labels[:, 4:8])).any(axis=1).sum()


def test_categories_are_judged_alone(predictions, document):
    entries = document.groups["category"]
    assert {entry.name for entry in entries} == {"cat", "dog", "bus"}
    assert sum(entry.objects for entry in entries) == 400
    for entry in entries:
        mine = predictions.category == entry.name
        part = Predictions(
            predictions.names,
            *(getattr(predictions, name)[mine] for name in ("object_id", "image_id", "category", "logits", "labels")),
        )
        alone = judge(part, source={}, replicates=0)
        assert entry.objects == alone.objects and entry.attributes == 12 - alone.left_out.count
        for key in ("map", "prior_map", "permutation_map", "auroc", "cf1", "mA"):
            assert getattr(entry, key) == pytest.approx(alone.overall[key]), key
        assert entry.map_interval[0] < entry.map < entry.map_interval[1]


def test_a_category_is_drawn_again_with_its_own_photographs(predictions, document):
    cells = JudgedSet.of(predictions, 0.5)
    weights = image_weights(cells.images, 200, 0)
    entry = document.groups["category"][1]
    rows = np.flatnonzero(cells.category == entry.name)
    mine = cells.take(rows)
    of_objects = weights[:, cells.image[rows]].T.astype(np.float32)
    drawn = [
        Ranking.of(mine.falling(a), len(mine)).resampled(of_objects)[0]
        for a in np.flatnonzero(measure(mine, 0.5).judged)
    ]
    assert entry.map_interval == pytest.approx(interval(np.nanmean(drawn, axis=0), entry.map, mine.images))


def test_attributes_that_nobody_labelled_are_in_no_third(predictions):
    labels = np.full((50, 12), np.nan, np.float32)
    for place, a in enumerate((1, 4, 5, 7, 9, 11)):
        labels[:, a] = np.arange(50) < 40 - 5 * place
    rates = TrainingRates.of(labels, np.full(50, "cat"), 0.5)
    document = judge(predictions, source={}, training=rates, replicates=0)
    told = {"head": [1, 4], "medium": [5, 7], "tail": [9, 11]}
    for column, entry in enumerate(document.attributes):
        assert entry.frequency == next((name for name, columns in told.items() if column in columns), None)
    assert "of the 6 attributes" in document.frequency_from and "head 35 to 40" in document.frequency_from


def test_frequency_is_counted_in_training_where_it_is_known(predictions):
    labels = np.zeros((50, 12), np.float32)
    for a in range(12):
        labels[: 4 * (12 - a), a] = 1  # the first attributes are the most frequent
    document = judge(predictions, source={}, training=TrainingRates.of(labels, np.full(50, "cat"), 0.5), replicates=0)
    assert [entry.frequency for entry in document.attributes] == ["head"] * 4 + ["medium"] * 4 + ["tail"] * 4
    assert document.frequency_from == (
        "thirds of the 12 attributes with positives in the training split, by their number: head 36 to 48, medium 20 to 32, tail 4 to 16"
    )
    assert [(entry.name, entry.attributes) for entry in document.groups["frequency"]] == [
        ("head", 0),
        ("medium", 4),
        ("tail", 4),
    ]
    assert document.groups["frequency"][0].map is None
    assert document.category_from == "training split"


def test_frequency_needs_three_attributes():
    assert frequency_thirds(np.array([3, 1]), "the judged objects") == ([None, None], None)
    assert frequency_thirds(np.array([1, 9, 4]), "x")[0] == ["tail", "head", "medium"]


def test_the_legacy_view_counts_every_cell(predictions, document):
    rows = JudgedSet.of(predictions, 0.5)
    legacy = as_legacy(rows)
    assert (
        known_and_positive(legacy)[0].all() and legacy.positives.sum() == (np.nan_to_num(predictions.labels) > 0).sum()
    )
    view = document.views["legacy"]
    expected = [
        average_precision_score(positive, predictions.logits[:, a])
        for a in range(12)
        if 5 <= (positive := np.nan_to_num(predictions.labels[:, a]) > 0).sum() <= 395
    ]
    assert view.objects == 400 and view.overall["map"] == pytest.approx(np.mean(expected))
    assert "unknown is negative" in view.rule and view.overall["category_map"] is not None


def test_the_guesser_of_the_legacy_view_learns_what_that_view_counts_as_present(predictions, document):
    """Rates of a training split are of known cells and of another vote share."""
    training = TrainingRates.of(np.full((60, 12), np.nan, np.float32), np.full(60, "cat"), 0.5)
    with_training = judge(predictions, source={}, training=training, replicates=0)
    assert with_training.overall["category_map"] != document.overall["category_map"]
    assert with_training.views["legacy"] == document.views["legacy"]


def test_the_exhaustive_view_says_why_it_is_empty(document):
    view = document.views["exhaustive"]
    assert (view.objects, view.overall, view.note) == (0, {}, "no object has more than 175 known attributes")
    assert document.views["masked"].overall == document.overall


def test_the_exhaustive_view_takes_objects_with_more_than_175_known_attributes():
    predictions = draw_predictions(n=120, a=204, known=1.0)
    labels = predictions.labels
    for row, (known, start) in enumerate(itertools.product((175, 176, 204), range(40))):
        unknown = (np.arange(203 - known + 1) + start) % 203 + 1  # attribute 0 is unknown in every one
        labels[row, unknown[: 203 - known if known < 204 else 0]] = np.nan
        labels[row, 0] = 0 if known == 204 else labels[row, 0]
    exhaustive = (~np.isnan(labels)).sum(axis=1) > 175
    assert 0 < exhaustive.sum() < 120
    view = judge(predictions, source={}, replicates=0).views["exhaustive"]
    assert view.objects == exhaustive.sum() and view.note is None
    part = Predictions(
        predictions.names,
        *(getattr(predictions, name)[exhaustive] for name in ("object_id", "image_id", "category", "logits", "labels")),
    )
    assert view.overall == pytest.approx(judge(part, source={}, replicates=0).overall)


def test_tuned_thresholds_given_or_cross_fitted_are_told(predictions, document):
    assert (
        document.tuned_on.startswith("cross-fitted: each half of the photographs is judged")
        and document.attributes[5].threshold_tuned is None
    )
    given = GivenThresholds(np.linspace(-1, 1, 12), "thresholds tuned on split 'train'", JudgedSet.of(predictions, 0.5))
    told = judge(predictions, source={}, tuned=given, replicates=0)
    assert told.tuned_on == "thresholds tuned on split 'train'"
    assert told.attributes[11].threshold_tuned == pytest.approx(1 / (1 + np.exp(-1)))
    known = ~np.isnan(predictions.labels[:, 11])
    said, true = predictions.logits[known, 11] > 1, predictions.labels[known, 11] >= 0.5
    assert told.attributes[11].recall_tuned == pytest.approx(said[true].mean())


def test_without_replicates_there_are_no_intervals_and_no_p(predictions):
    document = judge(predictions, source={}, replicates=0)
    assert document.intervals == {} and document.permutation_p is None and document.bootstrap.replicates == 0
    assert document.attributes[5].ap_interval is None and document.groups["category"][0].map_interval is None
    assert document.baselines["permutation"]["map"] > 0


def test_the_same_predictions_give_the_same_document(predictions, document):
    assert judge(predictions, source={"model": "runs/x", "split": "val"}, groups=GROUPS, replicates=200) == document


def test_the_order_of_objects_does_not_matter(predictions, document):
    order = np.random.default_rng(0).permutation(400)
    turned = Predictions(
        predictions.names,
        *(getattr(predictions, name)[order] for name in ("object_id", "image_id", "category", "logits", "labels")),
    )
    other = judge(turned, source={}, groups=GROUPS, replicates=200)
    for key in document.overall:
        assert other.overall[key] == pytest.approx(document.overall[key]), key
        assert other.intervals[key] == pytest.approx(document.intervals[key], abs=1e-6), key


@pytest.mark.parametrize("case", ["nothing known", "one object", "one photograph", "one attribute", "no object"])
def test_little_to_judge_is_no_error(case):
    n = {"one object": 1, "no object": 0}.get(case, 30)
    predictions = Predictions(
        names=("furry",) if case == "one attribute" else ("furry", "wet"),
        object_id=np.arange(n),
        image_id=np.zeros(n, np.int64) if case == "one photograph" else np.arange(n),
        category=np.full(n, "dog"),
        logits=np.random.default_rng(0).normal(size=(n, 1 if case == "one attribute" else 2)).astype(np.float32),
        labels=np.full((n, 1 if case == "one attribute" else 2), np.nan if case == "nothing known" else 1, np.float32),
    )
    document = judge(predictions, source={})
    assert document.overall["map"] is None and document.permutation_p is None
    assert document.left_out.count == len(predictions.names)


def test_fair_coins_are_told_as_guessing():
    rng = np.random.default_rng(0)
    coins = Predictions(
        names=tuple(f"a{i}" for i in range(60)),
        object_id=np.arange(275),
        image_id=np.arange(275),
        category=np.full(275, "dog"),
        logits=rng.normal(size=(275, 60)).astype(np.float32),
        labels=rng.integers(0, 2, (275, 60)).astype(np.float32),
    )
    document = judge(coins, source={}, replicates=200)
    assert document.intervals["cell_accuracy"][0] < 0.5 < document.intervals["cell_accuracy"][1]
    assert document.intervals["map"][0] < document.overall["permutation_map"] < document.intervals["map"][1]
    assert document.permutation_p > 0.05


def test_a_perfect_ranking_has_no_interval_of_its_own(predictions):
    column = 5
    logits = predictions.logits.copy()
    logits[:, column] = np.where(predictions.labels[:, column] >= 0.5, 3, -3)
    document = judge(replace(predictions, logits=logits), source={}, replicates=100)
    assert document.attributes[column].ap == 1 and document.attributes[column].ap_interval is None
    assert document.attributes[column + 1].ap_interval is not None and document.intervals["map"] is not None
    alone = judge(
        replace(
            predictions,
            names=predictions.names[column : column + 1],
            logits=logits[:, column : column + 1],
            labels=predictions.labels[:, column : column + 1],
        ),
        source={},
        groups={predictions.names[column]: "only"},
        replicates=100,
    )
    assert (alone.overall["map"], alone.overall["auroc"]) == (1, 1)
    assert alone.intervals["map"] is None and alone.intervals["auroc"] is None
    assert alone.intervals["prior_map"] is not None
    groups = [*alone.groups["attribute_group"], *alone.groups["category"]]
    assert len(groups) > 1 and all(entry.map_interval is None for entry in groups if entry.map == 1)
    assert any(entry.map == 1 for entry in groups)


@pytest.mark.parametrize("positive_at", [0.3, 0.5, 0.8])
def test_what_counts_as_present_is_what_was_asked_for_everywhere(positive_at):
    predictions = draw_shares(known=1.0)
    document = judge(predictions, source={}, positive_at=positive_at, replicates=0)
    assert document.positive_at == positive_at
    assert document.overall["map"] == pytest.approx(plain_map(predictions, positive_at))
    present = predictions.labels >= positive_at
    assert document.overall["prior_map"] == pytest.approx(present.mean())
    assert [entry.positives for entry in document.attributes] == present.sum(axis=0).tolist()
    cats = predictions.category == "cat"
    of_cats = next(entry for entry in document.groups["category"] if entry.name == "cat")
    assert of_cats.prior_map == pytest.approx(present[cats].mean())
    for name in ("masked", "exhaustive"):
        assert document.views[name].rule.endswith(f"positive is a vote share of at least {positive_at:g}")
    assert document.views["masked"].overall == document.overall
    # In the legacy view any vote makes a positive.
    assert document.views["legacy"].overall["prior_map"] == pytest.approx((predictions.labels > 0).mean())


@pytest.fixture(scope="module")
def partly_exhaustive():
    """40 objects of which everything is known and 30 of which half is, in 180 attributes; and a training split of other
    rates.
    """
    predictions = draw_shares(n=70, a=180, known=1.0, seed=3)
    predictions.labels[40:, ::2] = np.nan
    rng = np.random.default_rng(8)
    labels = np.where(rng.random((90, 180)) < 0.7, rng.random((90, 180)) < rng.uniform(0.1, 0.9, 180), np.nan)
    return predictions, labels.astype(np.float32), rng.choice(["cat", "dog"], 90)  # never a bus


def test_the_guesser_of_the_exhaustive_view_knows_the_training_split(partly_exhaustive):
    predictions, labels, category = partly_exhaustive
    document = judge(predictions, source={}, training=TrainingRates.of(labels, category, 0.5), replicates=0)
    expected = []
    for column in range(180):
        known = ~np.isnan(labels[:, column])
        overall = labels[known, column].mean()
        rate = {"bus": overall}
        for kind in ("cat", "dog"):
            mine = labels[known & (category == kind), column]
            rate[kind] = (mine.sum() + 5 * overall) / (len(mine) + 5)
        present = predictions.labels[:40, column] >= 0.5
        if 5 <= present.sum() <= 35:
            guessed = [np.float32(rate[str(kind)]) for kind in predictions.category[:40]]
            expected.append(average_precision_score(present, guessed))
    assert document.views["exhaustive"].overall["category_map"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_the_other_views_decide_by_the_threshold_and_by_the_thresholds_that_were_tuned(partly_exhaustive):
    predictions, _, _ = partly_exhaustive
    values = np.linspace(-1.5, 1.5, 180).astype(np.float32)
    given = GivenThresholds(values, "thresholds tuned on split 'train'", JudgedSet.of(predictions, 0.5))
    views = judge(predictions, source={}, tuned=given, threshold=0.3, replicates=0).views
    logits, labels = predictions.logits, predictions.labels
    for name, rows, present in (("exhaustive", slice(0, 40), labels >= 0.5), ("legacy", slice(None), labels > 0)):
        truth, scores = present[rows].ravel(), logits[rows]
        tuned, at_threshold = scores > values, scores > np.log(0.3 / 0.7)
        assert views[name].overall["of1_tuned"] == pytest.approx(f1_score(truth, tuned.ravel())), name
        assert views[name].overall["of1"] == pytest.approx(f1_score(truth, at_threshold.ravel())), name


def test_an_attributes_interval_is_as_wide_as_so_few_photographs_ask_for():
    """By hand: photographs are drawn, their scores counted again, and the replicates moved to the score and widened by
    Student's t.
    """
    predictions = draw_shares(n=160, a=3, images=7, known=1.0)
    document = judge(predictions, source={}, replicates=80, seed=2)
    assert document.images == 7
    wider = np.sqrt(7 / 6) * scipy.stats.t.ppf(0.975, 6) / scipy.stats.norm.ppf(0.975)
    drawn = redrawn(predictions, image_weights(7, 80, 2))

    def expected(score, replicates):
        return np.quantile(score + wider * (replicates - replicates.mean()), [0.025, 0.975]).clip(0, 1)

    for a, entry in enumerate(document.attributes):
        assert entry.ap_interval == pytest.approx(expected(entry.ap, drawn[:, a]), abs=1e-6)
    assert document.intervals["map"] == pytest.approx(expected(document.overall["map"], drawn.mean(axis=1)), abs=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_what_is_predicted_is_decided_by_the_threshold_that_was_asked_for(threshold):
    predictions = draw_shares(skill=2.0)
    document = judge(predictions, source={}, threshold=threshold, replicates=0)
    assert document.threshold == threshold
    known, present = ~np.isnan(predictions.labels), predictions.labels >= 0.5
    said = predictions.logits > np.log(threshold / (1 - threshold))
    assert document.overall["of1"] == pytest.approx(f1_score(present[known], said[known]))
    for a, entry in enumerate(document.attributes):
        assert entry.recall == pytest.approx(said[present[:, a], a].mean())
    for entry in document.groups["category"]:
        mine = known & (predictions.category == entry.name)[:, None]
        assert entry.of1 == pytest.approx(f1_score(present[mine], said[mine])), entry.name
    prior = np.array([present[known[:, a], a].mean() for a in range(8)])
    guessed = np.broadcast_to(prior > threshold, known.shape)
    right = (guessed == present)[known].mean()
    assert document.baselines["prior"]["cell_accuracy"] == pytest.approx(right)


def test_categories_come_largest_first_and_without_any_there_are_none():
    predictions = draw_shares(n=240)
    named = replace(predictions, category=np.repeat(["cat", "a bird", "dog"], [40, 80, 120]))
    found = judge(named, source={}, replicates=0).groups["category"]
    assert [(entry.name, entry.objects) for entry in found] == [("dog", 120), ("a bird", 80), ("cat", 40)]
    nameless = judge(replace(predictions, category=np.full(240, "")), source={}, replicates=0)
    assert nameless.groups["category"] == []
    for overall in (nameless.overall, *(nameless.views[name].overall for name in ("masked", "legacy"))):
        assert overall["category_map"] is None


def test_of_one_photograph_there_are_scores_and_no_intervals():
    document = judge(draw_shares(images=1), source={}, replicates=50)
    assert document.overall["map"] is not None and document.images == 1
    assert (document.intervals, document.bootstrap.replicates, document.permutation_p) == ({}, 0, None)
    assert {entry.ap_interval for entry in document.attributes} == {None}


def test_guessers_know_the_training_split_and_decide_as_the_model_does():
    """In the training split all is present, so guessing by rates names everything; and at thresholds that no score
    reaches, shuffled scores name nothing either.
    """
    predictions = draw_shares()
    training = TrainingRates.of(np.ones_like(predictions.labels), predictions.category, 0.5)
    with_training = judge(predictions, source={}, training=training, replicates=0).baselines["prior"]
    alone = judge(predictions, source={}, replicates=0).baselines["prior"]
    assert (with_training["or"], alone["or"]) == (1, 0)  # by the rates of these objects, all below a half
    never = GivenThresholds(np.full(8, 1e9, dtype=np.float32), "thresholds of another", JudgedSet.of(predictions, 0.5))
    given = judge(predictions, source={}, tuned=never, replicates=0)
    cross_fitted = judge(predictions, source={}, replicates=0)
    assert (given.overall["or_tuned"], given.baselines["permutation"]["or_tuned"]) == (0, 0)
    assert cross_fitted.overall["or_tuned"] > 0 and cross_fitted.baselines["permutation"]["or_tuned"] > 0


def test_a_category_of_a_single_photograph_has_scores_and_no_interval():
    predictions = draw_shares(n=300, images=3)
    alone = predictions.image_id == predictions.image_id[0]
    predictions = replace(predictions, category=np.where(alone, "alone", "others"))
    found = {entry.name: entry for entry in judge(predictions, source={}, replicates=50).groups["category"]}
    scored = replace(predictions, labels=np.where(alone[:, None], predictions.labels, np.nan))
    assert found["alone"].map == pytest.approx(plain_map(scored, 0.5))
    assert found["alone"].map_interval is None and found["others"].map_interval is not None

"""From an evaluation to metrics.json and predictions.npz."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import Evaluation
from attrtrain.engine.judging import (
    attribute_table,
    decision_thresholds,
    headline,
    judge_split,
    judged_unlearnt,
    predictions_of,
    thresholds_from,
    write_judgement,
)
from attrtrain.metrics.decisions import tune
from attrtrain.metrics.document import read_metrics
from attrtrain.metrics.functional import mean_scores
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.predictions import Predictions, read_predictions


def evaluated(shards: ShardSet, seed: int = 0) -> Evaluation:
    """What a middling model might have said."""
    labels = shards.labels(np.arange(len(shards)))
    noise = np.random.default_rng(seed).normal(size=labels.shape)
    logits = (2 * np.nan_to_num(labels, nan=0.3) - 1 + noise).astype(np.float32)
    return Evaluation(logits, labels, mean_scores(logits, labels))


@pytest.fixture(scope="module")
def splits(toy_shards: Path) -> dict[str, ShardSet]:
    return {name: ShardSet([toy_shards], name) for name in ("train", "val")}


def predicted(shards: ShardSet, seed: int = 0) -> Predictions:
    return predictions_of(evaluated(shards, seed), shards)


@pytest.mark.parametrize("positive_at", [0.3, 0.5, 0.8])
def test_a_judgement_is_of_this_split_beside_rates_of_the_other(
    splits: dict[str, ShardSet], tmp_path: Path, positive_at: float
) -> None:
    val, train = splits["val"], splits["train"]
    predictions = predicted(val)
    document = judge_split(predictions, val, train, source={"model": "m"}, positive_at=positive_at, replicates=50)
    write_judgement(tmp_path / "new" / "folder", document, predictions)
    assert read_metrics(tmp_path / "new" / "folder" / "metrics.json") == document
    kept = read_predictions(tmp_path / "new" / "folder" / "predictions.npz")
    assert np.array_equal(kept.object_id, val.column("object_id")) and kept.category.tolist() == val.categories()
    assert document.source == {"model": "m", "split": "val", "data_fingerprint": val.fingerprint}
    assert document.objects == len(val) and document.images == len(np.unique(val.column("image_id")))
    assert document.category_from == "training split" and "training split" in (document.frequency_from or "")
    assert {entry.group for entry in document.attributes} == set(val.vocabulary.groups)

    expected = []
    for column, entry in enumerate(document.attributes):
        known = ~np.isnan(predictions.labels[:, column])
        truth = predictions.labels[known, column] >= positive_at
        if entry.judged:
            expected.append(average_precision_score(truth, predictions.logits[known, column]))
        assert entry.judged == (truth.sum() >= 5 and (~truth).sum() >= 5)
    assert document.overall["map"] == pytest.approx(np.mean(expected), abs=1e-6)
    # The prior says of every object what is more frequent in the training split.
    labels = train.labels(np.arange(len(train)))
    shares = [(labels[:, a][~np.isnan(labels[:, a])] >= positive_at).mean() for a in range(labels.shape[1])]
    known = ~np.isnan(predictions.labels)
    right = (np.array(shares) > 0.5) == (predictions.labels >= positive_at)
    frequent_first = np.argsort(-(labels >= positive_at).sum(axis=0), kind="stable")
    for columns, third in zip(np.array_split(frequent_first, 3), ("head", "medium", "tail"), strict=True):
        assert {document.attributes[column].frequency for column in columns} == {third}
    prior = document.baselines["prior"]
    assert prior is not None and prior["cell_accuracy"] == pytest.approx(right[known].mean(), abs=1e-6)


@pytest.mark.parametrize("positive_at", [0.5, 0.8])
def test_thresholds_of_another_split_are_the_best_there_and_used_here(
    splits: dict[str, ShardSet], positive_at: float
) -> None:
    val, tuning = splits["val"], predicted(splits["train"], seed=1)
    given = thresholds_from(tuning, "train", positive_at)
    document = judge_split(predicted(val), val, None, source={}, positive_at=positive_at, tuned=given, replicates=0)
    assert document.tuned_on == "thresholds tuned on split 'train'"
    for column, entry in enumerate(document.attributes):
        known = ~np.isnan(tuning.labels[:, column])
        truth, scores = tuning.labels[known, column] >= positive_at, tuning.logits[known, column]
        if not truth.any():
            continue
        mine = f1_score(truth, scores > given.values[column])
        assert all(f1_score(truth, scores > other) <= mine + 1e-12 for other in np.append(scores, scores.min() - 1))
        here = predicted(val)
        there = ~np.isnan(here.labels[:, column])
        if entry.f1_tuned is not None:
            expected = f1_score(
                here.labels[there, column] >= positive_at, here.logits[there, column] > given.values[column]
            )
            assert entry.f1_tuned == pytest.approx(expected, abs=1e-6)


def test_an_attribute_that_no_object_has_is_said_from_one_half_on(splits: dict[str, ShardSet]) -> None:
    tuning = predicted(splits["train"])
    tuning.labels[:, 3] = np.where(np.isnan(tuning.labels[:, 3]), np.nan, 0)
    found = thresholds_from(tuning, "train", 0.5).values
    assert found[3] == 0 and np.count_nonzero(found) > len(found) / 2  # logits


def test_the_headline_has_interval_and_every_guess(splits: dict[str, ShardSet]) -> None:
    val = splits["val"]
    document = judge_split(predicted(val), val, splits["train"], source={}, positive_at=0.5, replicates=50)
    line = headline(document)
    low, high = document.intervals["map"] or (0, 0)
    assert line.startswith(f"mAP {document.overall['map']:.4f} [{low:.4f}, {high:.4f}] beside a prior of ")
    assert "a random order's" in line and "the category rate's" in line and "\n" not in line
    guesses = [f"{document.overall[key]:.4f}" for key in ("prior_map", "permutation_map", "category_map")]
    assert len(set(guesses)) == 3
    assert " beside a prior of {}, a random order's {}, the category rate's {}, over ".format(*guesses) in line
    few = Predictions(
        val.vocabulary.names, np.arange(2), np.arange(2), np.array(["", ""]), predicted(val).logits[:2], predicted(val).labels[:2]
    )  # fmt: skip
    document = judge_split(few, val, None, source={}, positive_at=0.5)
    assert headline(document) == (
        "no attribute has 5 known positives and 5 known negatives among 2 objects, so there is no mAP"
    )


def test_the_headline_tells_one_attribute_of_one_photograph(splits: dict[str, ShardSet]) -> None:
    labels = (np.arange(12)[:, None] % 2).astype(np.float32)
    one = Predictions(("red",), np.arange(12), np.zeros(12, dtype=np.int64), np.array([""] * 12), labels, labels)
    document = judge_split(one, splits["val"], None, source={}, positive_at=0.5, replicates=50)
    assert headline(document).endswith(", over 1 of 1 attribute of 12 objects in 1 photograph")


def test_the_headline_leaves_out_what_there_is_not(splits: dict[str, ShardSet]) -> None:
    """Without replicates there is no interval, and without categories nothing knows their rates."""
    val = splits["val"]
    nameless = replace(predicted(val), category=np.full(len(val), ""))
    document = judge_split(nameless, val, splits["train"], source={}, positive_at=0.5, replicates=0)
    overall, judged = document.overall, sum(entry.judged for entry in document.attributes)
    assert headline(document) == (
        f"mAP {overall['map']:.4f} beside a prior of {overall['prior_map']:.4f}, a random order's {overall['permutation_map']:.4f}, "
        f"over {judged} of {len(document.attributes)} attributes of {len(val)} objects in {document.images} photographs"
    )


def test_a_table_of_an_evaluation_has_each_attributes_score_beside_its_prior() -> None:
    rng = np.random.default_rng(0)
    labels, logits = (rng.random((60, 5)) < 0.4).astype(np.float32), rng.normal(size=(60, 5)).astype(np.float32)
    labels[rng.random((60, 5)) < 0.3] = np.nan
    labels[:, 1] = np.nan
    labels[:, 3] = np.where(np.isnan(labels[:, 3]), np.nan, 0)
    names = ("red", "unknown", "wet", "absent", "furry")
    table = attribute_table(names, mean_scores(logits, labels))
    assert table.columns == ("attribute", "AP", "prior", "positives", "known", "judged")
    for column, (name, ap, prior, positives, known, judged) in enumerate(table.rows):
        there = ~np.isnan(labels[:, column])
        truth = labels[there, column] == 1
        assert (name, positives, known, judged) == (names[column], truth.sum(), there.sum(), column in (0, 2, 4))
        assert ap == (pytest.approx(average_precision_score(truth, logits[there, column])) if judged else None)
        assert prior == (pytest.approx(truth.mean()) if there.any() else None)


def test_two_folders_that_number_their_objects_alike_are_told_apart(toy_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_shards, tmp_path / "copy")
    both = ShardSet([toy_shards, tmp_path / "copy"], "val")
    ids = predicted(both).object_id
    half = len(ids) // 2
    assert len(np.unique(ids)) == len(ids)
    assert np.array_equal(ids[:half], both.column("object_id")[:half])
    assert np.array_equal(ids[half:] - 10**13, both.column("object_id")[half:])


def test_decision_thresholds_have_the_highest_f1_and_are_never_reached_where_nothing_was_learnt(splits, monkeypatch):
    val, train = splits["val"], splits["train"]
    here = predicted(val)
    counts = train.manifests[0].splits["train"]
    positives = [0 if column == 2 else max(1, count) for column, count in enumerate(counts.positives)]
    monkeypatch.setitem(train.manifests[0].splits, "train", counts.model_copy(update={"positives": positives}))
    found = decision_thresholds(here, train, 0.5)
    assert found[2] == 1.0
    tuned = 0
    for column, threshold in enumerate(found):
        known = ~np.isnan(here.labels[:, column])
        truth, scores = here.labels[known, column] >= 0.5, 1 / (1 + np.exp(-here.logits[known, column].astype(float)))
        if min(truth.sum(), (~truth).sum()) < 5:
            assert threshold in (None, 1.0)
        elif column != 2:
            tuned += 1
            best = max(f1_score(truth, scores >= score) for score in scores)
            assert f1_score(truth, scores >= threshold) == pytest.approx(best)
    assert tuned > 3


@pytest.mark.parametrize("positive_at", [0.3, 0.8])
def test_decision_thresholds_are_of_what_counts_as_present(splits: dict[str, ShardSet], positive_at: float) -> None:
    val = splits["val"]
    here = predicted(val)
    tuned = 0
    for column, threshold in enumerate(decision_thresholds(here, splits["train"], positive_at)):
        known = ~np.isnan(here.labels[:, column])
        truth = here.labels[known, column] >= positive_at
        scores = 1 / (1 + np.exp(-here.logits[known, column].astype(float)))
        if threshold is None:
            assert min(truth.sum(), (~truth).sum()) < 5
            continue
        tuned += 1
        best = max(f1_score(truth, scores >= score) for score in scores)
        assert f1_score(truth, scores >= threshold) == pytest.approx(best)
    assert tuned > 20


def test_attributes_that_are_judged_and_no_training_object_has_are_named(splits, monkeypatch):
    val, train = splits["val"], splits["train"]
    labels, names = val.labels(np.arange(len(val))), val.vocabulary.names
    judged = [min((labels[:, c] >= 0.5).sum(), (labels[:, c] < 0.5).sum()) >= 5 for c in range(len(names))]
    first, second, unjudged = judged.index(True), judged.index(True, judged.index(True) + 1), judged.index(False)
    counts = train.manifests[0].splits["train"]

    def lacking(*columns: int) -> list[str]:
        positives = [0 if column in columns else 1 for column in range(len(names))]
        monkeypatch.setitem(train.manifests[0].splits, "train", counts.model_copy(update={"positives": positives}))
        return judged_unlearnt(train, val, 0.5)

    assert lacking(unjudged) == []
    (line,) = lacking(first, unjudged)
    assert f"'val' judges 1 attribute that no object of 'train' is known to have: {names[first]};" in line
    (line,) = lacking(first, second)
    assert f"judges 2 attributes that no object of 'train' is known to have: {names[first]}, {names[second]};" in line
    (line,) = lacking(*range(len(names)))
    assert f" and {sum(judged) - 5} more; " in line


def test_what_counts_as_learnt_follows_the_vote_share_that_counts_as_present(splits, monkeypatch):
    """An attribute that training objects have by a third of the votes only."""
    val, train = splits["val"], splits["train"]
    labels = train.labels(np.arange(len(train)))
    labels[:, 5] = np.where(labels[:, 5] > 0, np.float32(1 / 3), labels[:, 5])
    counts = train.manifests[0].splits["train"]
    positives = [0 if column == 5 else max(1, count) for column, count in enumerate(counts.positives)]
    monkeypatch.setitem(train.manifests[0].splits, "train", counts.model_copy(update={"positives": positives}))
    monkeypatch.setattr(ShardSet, "labels", lambda self, rows: labels[rows])
    here = predicted(val)
    assert decision_thresholds(here, train, 0.5)[5] == 1.0
    assert decision_thresholds(here, train, 0.3)[5] != 1.0


def test_a_threshold_admits_in_use_what_it_was_tuned_to_admit() -> None:
    """Use compares scores in single precision. Attributes of which all are best said to be present have thresholds at
    their lowest score.
    """
    rng = np.random.default_rng(0)
    names = tuple(f"a{column}" for column in range(200))
    labels = (rng.random((30, 200)) < rng.uniform(0.3, 0.95, 200)).astype(np.float32)
    here = Predictions(
        names, np.arange(30), np.arange(30), np.full(30, ""), rng.normal(-0.3, 0.6, labels.shape).astype(np.float32), labels
    )  # fmt: skip
    training = cast(ShardSet, SimpleNamespace(counts=lambda _: (np.ones(200, dtype=np.int64), None)))
    scores, all_yes = torch.from_numpy(here.logits).sigmoid().numpy(), 0
    tuned = tune(JudgedSet.of(here, 0.5), 0.5)
    for column, threshold in enumerate(decision_thresholds(here, training, 0.5)):
        if threshold is not None:
            admitted = here.logits[:, column] > tuned[column]
            assert ((scores[:, column] >= threshold) == admitted).all()
            all_yes += bool(admitted.all())
    assert all_yes > 20

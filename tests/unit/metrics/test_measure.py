"""Every point score against scikit-learn, torchmetrics, or the published rules as plain loops."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from drawn_cells import cells_of, draw_predictions, draw_shares
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multilabel_auroc,
    multilabel_average_precision,
    multilabel_f1_score,
)

from attrtrain.metrics.decisions import second_half
from attrtrain.metrics.functional import expected_calibration_error
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import measure
from attrtrain.metrics.overall import harmonic_mean, is_judged, rates

CASES = [
    pytest.param({}, id="random"),
    pytest.param({"ties": True}, id="ties"),
    pytest.param({"a": 40, "known": 0.15, "n": 500}, id="sparse"),
    pytest.param({"known": 1.0}, id="fully known"),
    pytest.param({"a": 4}, id="no attribute to judge"),
]


@pytest.fixture(params=CASES)
def predictions(request):
    return draw_predictions(**request.param)


@pytest.fixture
def truth(predictions):
    """Objects in another order than the judged set's: scores must not depend on it."""
    known = ~np.isnan(predictions.labels)
    return known, (predictions.labels >= 0.5) & known, 1 / (1 + np.exp(-predictions.logits.astype(np.float64)))


@pytest.fixture
def measured(predictions):
    return measure(JudgedSet.of(predictions, 0.5), 0.5)


def judged_columns(known, positive):
    return [a for a in range(known.shape[1]) if positive[:, a].sum() >= 5 and (known & ~positive)[:, a].sum() >= 5]


def mean(values):
    return np.mean(values) if len(values) else np.nan


def equal(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_each_attributes_precision_recall_f1_and_balanced_accuracy(measured, truth):
    known, positive, probability = truth
    counts = measured.sums.at_threshold
    for a in range(known.shape[1]):
        true, said = positive[known[:, a], a], probability[known[:, a], a] > 0.5
        if len(true):
            equal(counts.precision[a], precision_score(true, said, zero_division=0))
            equal(counts.recall[a], recall_score(true, said, zero_division=np.nan))
            equal(counts.f1[a], f1_score(true, said, zero_division=np.nan))
        if 0 < true.sum() < len(true):
            equal(counts.balanced_accuracy[a], balanced_accuracy_score(true, said))
        else:
            assert np.isnan(counts.balanced_accuracy[a])


def test_average_precision_and_auroc_over_attributes(measured, truth):
    known, positive, probability = truth
    columns = judged_columns(known, positive)
    assert np.flatnonzero(measured.judged).tolist() == columns
    target = np.where(known, positive, -1)[:, columns]
    given = torch.from_numpy(probability[:, columns]), torch.from_numpy(target), len(columns)
    for key, reference in (("map", multilabel_average_precision), ("auroc", multilabel_auroc)):
        if len(columns) > 1:
            equal(measured.overall[key], float(reference(*given, ignore_index=-1)))
        elif not columns:
            assert np.isnan(measured.overall[key])


def test_prior_map_is_the_mean_share_of_positives(measured, truth):
    known, positive, _ = truth
    columns = judged_columns(known, positive)
    equal(measured.overall["prior_map"], mean([positive[known[:, a], a].mean() for a in columns]))


def test_cp_cr_cf1_and_op_or_of1(measured, truth):
    known, positive, probability = truth
    columns = judged_columns(known, positive)
    said = probability > 0.5
    cp = mean([precision_score(positive[known[:, a], a], said[known[:, a], a], zero_division=0) for a in columns])
    cr = mean([recall_score(positive[known[:, a], a], said[known[:, a], a]) for a in columns])
    equal([measured.overall[key] for key in ("cp", "cr", "cf1")], [cp, cr, 2 * cp * cr / (cp + cr)])
    flat = positive[known], said[known]
    equal(measured.overall["op"], precision_score(*flat))
    equal(measured.overall["or"], recall_score(*flat))
    equal(measured.overall["of1"], f1_score(*flat))
    equal(measured.overall["cell_accuracy"], (flat[0] == flat[1]).mean())
    if len(known[0]) > 1:
        target = torch.from_numpy(np.where(known, positive, -1))
        micro = multilabel_f1_score(
            torch.from_numpy(probability), target, known.shape[1], average="micro", ignore_index=-1
        )
        equal(measured.overall["of1"], float(micro))


def test_mean_accuracy_and_instance_metrics_follow_the_pedestrian_rules(measured, truth):
    known, positive, probability = truth
    said = probability > 0.5
    accuracies = []
    for a in judged_columns(known, positive):
        true, guess = positive[known[:, a], a], said[known[:, a], a]
        accuracies.append((guess[true].mean() + (~guess[~true]).mean()) / 2)
    equal(measured.overall["mA"], mean(accuracies))
    equal(measured.overall["balanced_accuracy"], mean(accuracies))
    scores = []
    for i in range(len(known)):
        true, guess = positive[i, known[i]], said[i, known[i]]
        if known[i].any():
            both = (true & guess).sum()
            scores.append([both / max(below, 1e-20) for below in ((true | guess).sum(), guess.sum(), true.sum())])
    accuracy, precision, recall = np.mean(scores, axis=0)
    keys = ("instance_accuracy", "instance_precision", "instance_recall", "instance_f1")
    equal(
        [measured.overall[key] for key in keys],
        [accuracy, precision, recall, 2 * precision * recall / (precision + recall)],
    )


def test_top_15_follows_vaws_evaluator(measured, truth):
    known, positive, probability = truth
    chosen = np.zeros_like(known)
    for i in range(len(known)):
        ranked = np.argpartition(probability[i], -min(15, known.shape[1]))[-15:]
        chosen[i, ranked] = probability[i, ranked] > 0
    hits = predicted = positives = 0
    recalls = []
    for a in range(known.shape[1]):
        true, said = positive[known[:, a], a], chosen[known[:, a], a]
        hits, predicted, positives = hits + (true & said).sum(), predicted + said.sum(), positives + true.sum()
        if a in judged_columns(known, positive):
            recalls.append((true & said).sum() / true.sum())
    precision, recall = hits / predicted, hits / positives
    equal(measured.overall["mean_recall_at_15"], mean(recalls))
    equal(measured.overall["f1_at_15"], 2 * precision * recall / (precision + recall))


def test_calibration_error_and_loss(measured, truth, predictions):
    known, positive, probability = truth
    errors = []
    for a in judged_columns(known, positive):
        mine = torch.from_numpy(probability[known[:, a], a]), torch.from_numpy(positive[known[:, a], a]).long()
        errors.append(float(binary_calibration_error(*mine, n_bins=15, norm="l1")))
        equal(measured.ece[a], errors[-1])
    equal(measured.overall["ece"], mean(errors))
    logits, labels = torch.from_numpy(predictions.logits[known]), torch.from_numpy(predictions.labels[known])
    equal(measured.overall["loss"], float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)))


def test_calibration_of_certain_and_of_no_predictions():
    assert expected_calibration_error(np.array([0.0, 1.0, 1.0]), np.array([False, True, False])) == pytest.approx(1 / 3)
    in_one_bin = expected_calibration_error(np.array([0.95, 1.0]), np.array([True, False]))
    assert in_one_bin == pytest.approx(0.475)  # torchmetrics gives a probability of exactly 1 a bin of its own
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_logits_and_their_probabilities_score_alike(predictions):
    logits = measure(JudgedSet.of(predictions, 0.5), 0.5).overall
    probabilities = 1 / (1 + np.exp(-predictions.logits.astype(np.float64)))
    again = measure(
        cells_of(probabilities, predictions.labels, are_logits=False, image_id=predictions.image_id), 0.5
    ).overall
    assert logits.keys() == again.keys()
    for key, value in logits.items():
        if "tuned" not in key:  # half-way between two logits is not half-way between their probabilities
            equal(again[key], value)


def test_certain_probabilities_cost_what_torch_says():
    scores, labels = np.array([[0.0], [1.0], [1.0], [0.3]]), np.array([[1.0], [1.0], [0.5], [np.nan]])
    loss = torch.nn.functional.binary_cross_entropy(torch.from_numpy(scores[:3]), torch.from_numpy(labels[:3]))
    equal(measure(cells_of(scores, labels, are_logits=False), 0.5).overall["loss"], float(loss))


def test_half_precision_scores_are_those_numbers(predictions):
    half = predictions.logits.astype(np.float16)
    given, widened = (
        measure(cells_of(scores, predictions.labels, image_id=predictions.image_id), 0.5).overall
        for scores in (half, half.astype(np.float64))
    )
    equal([given[key] for key in given if "15" not in key], [widened[key] for key in given if "15" not in key])


def test_tuned_scores_judge_each_half_of_the_photographs_at_the_thresholds_of_the_other():
    predictions = draw_shares()
    half = second_half(predictions.image_id)
    known, positive = ~np.isnan(predictions.labels), predictions.labels >= 0.5
    said = np.zeros_like(known)
    for a, mine in itertools.product(range(8), (half, ~half)):
        other = known[:, a] & ~mine
        scores, true = predictions.logits[other, a].astype(np.float64), positive[other, a]
        falling = np.unique(scores)[::-1]

        def f1(least, scores=scores, true=true):
            return 2 * (true & (scores > least)).sum() / (true.sum() + (scores > least).sum())

        best = max([*(falling[:-1] + falling[1:]) / 2, falling[-1] - 1e-6], key=f1)  # of equals the highest
        said[mine, a] = predictions.logits[mine, a] > best
    overall = measure(JudgedSet.of(predictions, 0.5), 0.5).overall
    equal(overall["of1_tuned"], f1_score(positive[known], said[known]))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_where_one_half_has_no_positive_the_other_is_decided_by_the_threshold_that_was_asked_for(threshold):
    predictions = draw_shares(a=3, known=1.0)
    half = second_half(predictions.image_id)
    predictions.labels[~half] = 0
    given, found = predictions.logits.astype(np.float64), predictions.labels >= 0.5
    overall = measure(JudgedSet.of(predictions, 0.5), threshold).overall
    equal(overall["or_tuned"], recall_score(found.ravel(), given.ravel() > np.log(threshold / (1 - threshold))))
    equal(overall["or_tuned"], overall["or"])


def test_unknown_cells_never_count(predictions):
    loud = predictions.logits.copy()
    loud[np.isnan(predictions.labels)] *= -100
    before = measure(JudgedSet.of(predictions, 0.5), 0.5).overall
    after = measure(cells_of(loud, predictions.labels, image_id=predictions.image_id), 0.5).overall
    for key, value in before.items():
        if "15" not in key:  # VAW takes the 15 highest before masking
            equal(after[key], value)


@pytest.mark.parametrize("scores", [np.zeros((4, 0)), np.zeros((0, 3))])
def test_nothing_to_judge_is_nan(scores):
    with warnings.catch_warnings(action="error"):
        overall = measure(cells_of(scores, scores), 0.5).overall
    nothing_is_predicted = {"op": 0, "op_tuned": 0}
    equal([overall[key] for key in overall], [nothing_is_predicted.get(key, np.nan) for key in overall])


def test_five_of_either_kind_are_enough_and_four_are_not():
    assert is_judged(np.array([5, 4, 5, 900]), np.array([5, 5, 4, 5])).tolist() == [True, False, False, True]


def test_where_nothing_is_known_there_is_no_share_and_where_both_are_0_their_harmonic_mean_is_0():
    np.testing.assert_array_equal(rates(np.float64([0, 1, 0, 3]), np.float64([0, 1, 1, 4])), [np.nan, 1, 0, 0.75])
    pairs = np.float64([[0, 0], [1, 0], [0.25, 0.75], [np.nan, 0.5], [0, np.nan]])
    np.testing.assert_allclose(harmonic_mean(*pairs.T), [0, 0, 0.375, np.nan, np.nan])

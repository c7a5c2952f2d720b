"""Average precision and AUROC against scikit-learn and torchmetrics, weighted and not."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from attrtrain.metrics.ranking import Falling, Ranking

KINDS = ["random", "ties", "constant", "sorted", "reversed", "float16", "big-endian", "long double", "infinite"]


def draw(kind, seed, n=200):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n).astype(np.float32)
    positive = rng.random(n) < rng.uniform(0.02, 0.98)
    match kind:
        case "ties":
            scores = np.round(scores * 2)
        case "constant":
            scores[:] = 3
        case "sorted":
            scores = np.arange(n, dtype=np.float64)
        case "reversed":
            scores, positive = np.arange(n, dtype=np.float64), np.arange(n) < 7
        case "float16":
            scores = scores.astype(np.float16)
        case "big-endian":
            scores = scores.astype(">f4")
        case "long double":
            scores = scores.astype(np.longdouble)
        case "infinite":
            scores[:20], scores[20:40] = np.inf, -np.inf
    known = rng.random(n) < 0.7
    return scores, known, positive & known


def ranked(scores, known, positive):
    rows = np.flatnonzero(known).astype(np.int32)
    return Ranking.of(Falling.of(rows, scores[rows], positive[rows]), len(scores))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_and_torchmetrics(kind, seed):
    scores, known, positive = draw(kind, seed)
    ap, auroc = ranked(scores, known, positive).average_precision_and_auroc()
    target, values = positive[known], np.clip(scores[known].astype(np.float64), -1e6, 1e6)
    assert ap == pytest.approx(average_precision_score(target, values), abs=1e-9)
    assert auroc == pytest.approx(roc_auc_score(target, values), abs=1e-9)
    ranks = np.unique(values, return_inverse=True)[1] / len(
        values
    )  # torchmetrics puts other scores through a sigmoid, which merges large ones
    tensors = torch.from_numpy(ranks), torch.from_numpy(target).long()
    assert ap == pytest.approx(float(binary_average_precision(*tensors)), abs=1e-6)
    assert auroc == pytest.approx(float(binary_auroc(*tensors)), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_count_objects_as_often_as_they_say(kind):
    scores, known, positive = draw(kind, 0)
    weights = np.random.default_rng(1).integers(0, 4, (6, len(scores))).astype(np.float32)
    ap, auroc = ranked(scores, known, positive).resampled(weights.T)
    values = np.clip(scores.astype(np.float64), -1e6, 1e6)[known]
    for replicate, weight in enumerate(weights[:, known]):
        kept = weight > 0
        expected = average_precision_score(positive[known][kept], values[kept], sample_weight=weight[kept])
        assert ap[replicate] == pytest.approx(expected, abs=1e-6)
        assert auroc[replicate] == pytest.approx(
            roc_auc_score(positive[known][kept], values[kept], sample_weight=weight[kept]), abs=1e-6
        )
    ones = ranked(scores, known, positive)
    np.testing.assert_allclose(
        np.ravel(ones.resampled(np.ones((len(scores), 1), np.float32))), ones.average_precision_and_auroc(), atol=1e-7
    )


@pytest.mark.parametrize("positives", ["none", "all", "one", "nothing known"])
def test_too_few_of_either_kind_is_nan(positives):
    scores = np.float32([3, 1, 2, 2])
    positive = {"none": np.zeros(4, bool), "all": np.ones(4, bool)}.get(
        positives, np.array([False, False, True, False])
    )
    known = np.full(4, positives != "nothing known")
    ranking = ranked(scores, known, positive & known)
    both = ranking.average_precision_and_auroc()
    again = ranking.resampled(np.ones((4, 2), np.float32))
    if positives == "one":
        assert both == (pytest.approx(1 / 3), pytest.approx(0.5))
        np.testing.assert_allclose(again, [[1 / 3] * 2, [0.5] * 2], rtol=1e-6)
    else:
        assert np.isnan(both).all() and np.isnan(again).all()


def test_a_replicate_without_positives_is_nan_and_the_others_are_not():
    ranking = ranked(np.float32([3, 2, 1]), np.ones(3, bool), np.array([True, False, False]))
    ap, auroc = ranking.resampled(np.float32([[0, 1, 1], [1, 1, 0], [1, 0, 0]]).T)
    np.testing.assert_array_equal(ap, [np.nan, 1, np.nan])
    np.testing.assert_array_equal(auroc, [np.nan, 1, np.nan])

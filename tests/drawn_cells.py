"""Predictions drawn for tests: random, and as nasty as they come."""

import numpy as np
from sklearn.metrics import average_precision_score

from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.predictions import Predictions


def draw_predictions(n=300, a=12, images=100, known=0.6, seed=0, ties=False, skill=1.0):
    """Labels that are vote shares, of which `known` is known; attributes 0 to 3 have no known cell, one positive, only
    negatives, only positives.
    """
    rng = np.random.default_rng(seed)
    labels = np.where(
        rng.random((n, a)) < np.clip(rng.beta(1, 2, a), 0.1, 0.7),
        rng.choice([0.5, 0.75, 1.0], (n, a)),
        rng.choice([0.0, 0.25], (n, a)),
    )
    labels[:, 1:4] = [0, 0, 1]
    labels[rng.random((n, a)) > known] = np.nan
    labels[:, 0] = np.nan
    labels[n // 2, 1] = 1
    logits = rng.normal(size=(n, a)) + skill * np.nan_to_num(labels) - skill / 2
    if ties:
        logits = np.round(logits)
    return Predictions(
        names=tuple(f"attribute {i}" for i in range(a)),
        object_id=rng.permutation(n).astype(np.int64) + 1000,
        image_id=rng.integers(0, images, n).astype(np.int64) * 7,
        category=rng.choice(["cat", "dog", "bus"], n),
        logits=logits.astype(np.float32),
        labels=labels.astype(np.float32),
    )


def draw_shares(n=200, a=8, images=60, known=0.8, seed=0, skill=1.0):
    """Labels of which 0.3, 0.5 and 0.8 make other ones positive, with enough of each; scores of the same seed and
    another skill differ in that alone.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 0.2, 0.4, 0.6, 0.9, 1.0], (n, a), p=[0.4, 0.1, 0.15, 0.15, 0.1, 0.1])
    labels[rng.random((n, a)) > known] = np.nan
    logits = rng.normal(size=(n, a)) + skill * (np.nan_to_num(labels) - 0.5)
    return Predictions(
        names=tuple(f"attribute {i}" for i in range(a)),
        object_id=np.arange(n, dtype=np.int64),
        image_id=np.sort(rng.integers(0, images, n)).astype(np.int64),
        category=rng.choice(["cat", "dog", "bus"], n),
        logits=logits.astype(np.float32),
        labels=labels.astype(np.float32),
    )


def plain_map(predictions, positive_at):
    """Mean average precision of all attributes, as scikit-learn has it."""
    known = ~np.isnan(predictions.labels)
    columns = zip(known.T, predictions.labels.T, predictions.logits.T, strict=True)
    return np.mean([average_precision_score(labels[k] >= positive_at, logits[k]) for k, labels, logits in columns])


def redrawn(predictions, weights):
    """(R, A) average precision of all objects, each as often as its photograph is drawn (R, M), as scikit-learn has
    it.
    """
    images, image = np.unique(predictions.image_id, return_inverse=True)
    assert len(images) == weights.shape[1]
    found = []
    for weight in weights:
        rows = np.repeat(np.arange(len(image)), weight[image])
        columns = zip(predictions.labels[rows].T, predictions.logits[rows].T, strict=True)
        found.append([average_precision_score(labels >= 0.5, logits) for labels, logits in columns])
    return np.array(found)


def known_and_positive(cells):
    """(N, A) bool each: the known cells of a judged set, and the positive ones."""
    known = cells.known
    where = known.rows, np.repeat(np.arange(known.attributes), known.counts)
    both = np.zeros((2, len(cells), known.attributes), dtype=bool)
    both[0][where], both[1][where] = True, known.positive
    return both


def spread(cells, values):
    """(N, A) values (K,) of the known cells of a judged set, 0 elsewhere."""
    known = cells.known
    matrix = np.zeros((len(cells), known.attributes), dtype=values.dtype)
    matrix[known.rows, np.repeat(np.arange(known.attributes), known.counts)] = values
    return matrix


def cells_of(scores, labels, *, are_logits=True, image_id=None, category=None, positive_at=0.5):
    """A judged set from arrays."""
    scores, labels = np.asarray(scores), np.asarray(labels, dtype=np.float32)
    return JudgedSet.from_arrays(
        tuple(f"attribute {i}" for i in range(scores.shape[1])),
        scores,
        labels,
        are_logits=are_logits,
        image_id=np.arange(len(scores)) if image_id is None else np.asarray(image_id),
        category=np.full(len(scores), "") if category is None else np.asarray(category),
        positive_at=positive_at,
    )

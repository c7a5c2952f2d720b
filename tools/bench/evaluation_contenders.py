"""Who judges: each reads the same file, is timed on what it does with the arrays, and leaves its scores."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from attrtrain.metrics.judged_set import JudgedSet

Cells = tuple[NDArray[np.float32], NDArray[np.float32]]


def sort_only(cells: str, scores: str) -> dict[str, Any]:
    """One sort of each attribute's known scores."""
    logits, labels = _read(cells)
    begun = time.perf_counter()
    for a in range(logits.shape[1]):
        np.argsort(logits[~np.isnan(labels[:, a]), a])
    return _rate(logits, begun)


def ours(cells: str, scores: str) -> dict[str, Any]:
    """The scores of single attributes, as attrtrain has them of the objects of one category."""
    from attrtrain.metrics.measure import score_attributes

    logits, labels = _read(cells)
    begun = time.perf_counter()
    scored = score_attributes(_judged_set(logits, labels), 0.5)
    rate = _rate(logits, begun)
    at = scored.counts
    _write(scores, scored.average_precision, scored.auroc, at.precision, at.recall, at.f1)
    return rate


def ours_with_everything(cells: str, scores: str) -> dict[str, Any]:
    """All that attrtrain measures of the whole."""
    from attrtrain.metrics.measure import measure

    logits, labels = _read(cells)
    begun = time.perf_counter()
    measured = measure(_judged_set(logits, labels), 0.5)
    rate = _rate(logits, begun)
    at = measured.sums.at_threshold
    _write(scores, measured.average_precision, measured.auroc, at.precision, at.recall, at.f1)
    return rate


def _judged_set(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> "JudgedSet":
    from attrtrain.metrics.judged_set import JudgedSet

    objects, attributes = logits.shape
    return JudgedSet.from_arrays(
        tuple(map(str, range(attributes))),
        logits,
        labels,
        are_logits=True,
        image_id=np.arange(objects),
        category=np.full(objects, ""),
        positive_at=0.5,
    )


def torchmetrics_peer(cells: str, scores: str) -> dict[str, Any]:
    """The multilabel metrics of torchmetrics, unknown cells ignored. Its ranking metrics take probabilities; float64
    ones, so that no two logits become equal.
    """
    import torch
    from torchmetrics.functional.classification import (
        multilabel_auroc,
        multilabel_average_precision,
        multilabel_f1_score,
        multilabel_precision,
        multilabel_recall,
    )

    logits, labels = _read(cells)
    attributes = logits.shape[1]
    begun = time.perf_counter()
    target = torch.from_numpy(np.where(np.isnan(labels), -1, labels >= 0.5).astype(np.int64))
    chances = torch.from_numpy(logits).double().sigmoid()
    settings: dict[str, Any] = {"num_labels": attributes, "average": None, "ignore_index": -1, "validate_args": False}
    ranked = [metric(chances, target, **settings) for metric in (multilabel_average_precision, multilabel_auroc)]
    decided = [
        metric(chances, target, **settings) for metric in (multilabel_precision, multilabel_recall, multilabel_f1_score)
    ]
    rate = _rate(logits, begun)
    _write(scores, *(value.double().numpy() for value in (*ranked, *decided)))
    return rate


def sklearn_peer(cells: str, scores: str) -> dict[str, Any]:
    """scikit-learn, attribute by attribute on its known cells."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    logits, labels = _read(cells)
    begun = time.perf_counter()
    found = []
    for a in range(logits.shape[1]):
        known = ~np.isnan(labels[:, a])
        truth, values = labels[known, a] >= 0.5, logits[known, a]
        decided = precision_recall_fscore_support(truth, values > 0, average="binary", zero_division=0)[:3]
        found.append((average_precision_score(truth, values), roc_auc_score(truth, values), *decided))
    rate = _rate(logits, begun)
    _write(scores, *np.array(found, dtype=np.float64).T)
    return rate


def _read(path: str) -> Cells:
    with np.load(path, allow_pickle=False) as content:
        return content["logits"], content["labels"]


def _rate(logits: NDArray[np.float32], begun: float) -> dict[str, Any]:
    seconds = time.perf_counter() - begun
    return {"value": len(logits) / seconds, "seconds": seconds}


def _write(path: str, *columns: NDArray[np.float64]) -> None:
    from tools.bench.evaluation import SCORES

    named: dict[str, Any] = dict(zip(SCORES, columns, strict=True))
    with Path(path).open("wb") as file:
        np.savez(file, **named)

"""Predictions and measurements for reports to show: scores that know a little, and some awkward names."""

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from attrtrain.metrics.document import (
    AttributeEntry,
    Bootstrap,
    GroupEntry,
    LeftOut,
    MetricsDocument,
    ViewEntry,
)
from attrtrain.predictions import Predictions

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "a / b & 'c' <!--",
    "{{ 7 * 7 }}",
    "naïve\u2028line",
)
MIN_POSITIVES = 5


def drawn_predictions(
    objects: int = 200, attributes: int = 12, *, known: float = 0.6, seed: int = 0, names: tuple[str, ...] = ()
) -> Predictions:
    """Objects in photographs of three; scores follow the labels with much noise, and where the middle attribute is
    present, attribute 1 is named too often.
    """
    rng = np.random.default_rng(seed)
    rates = np.linspace(0.1, 0.7, attributes)
    truth = rng.random((objects, attributes)) < rates
    logits = 1.5 * truth + rng.normal(size=truth.shape) + np.log(rates / (1 - rates))
    if attributes > 1:
        logits[:, 1] += 3.0 * truth[:, attributes // 2]
    labels = np.where(rng.random(truth.shape) < known, truth, np.nan)
    plain = tuple(f"attribute {number}" for number in range(attributes))
    return Predictions(
        names=(*names, *plain[len(names) :]),
        object_id=10_000 + 7 * np.arange(objects, dtype=np.int64),
        image_id=np.arange(objects, dtype=np.int64) // 3,
        category=np.array([("dog", "cat", "zebra <b>")[number % 3] for number in range(objects)]),
        logits=logits.astype(np.float32),
        labels=labels.astype(np.float32),
    )


def document_of(predictions: Predictions, **changes: Any) -> MetricsDocument:
    """A document with the scores of scikit-learn and made-up intervals of ± 0.03."""
    entries = [_entry(predictions, column) for column in range(len(predictions.names))]
    judged = [entry for entry in entries if entry.judged]
    groups = {
        "attribute_group": [_group(name, [e for e in judged if e.group == name], len(predictions)) for name in ("colour", "shape")],
        "frequency": [_group(name, [e for e in judged if e.frequency == name], len(predictions)) for name in ("head", "tail")],
        "category": [_group(str(name), judged, 5) for name in np.unique(predictions.category)],
    }  # fmt: skip
    overall = {
        "map": _mean([entry.ap for entry in judged]), "prior_map": _mean([entry.prior for entry in judged]),
        "auroc": _mean([entry.auroc for entry in judged]), "cf1": 0.5, "cf1_tuned": 0.55, "of1": 0.6, "mA": 0.7,
        "mean_recall_at_15": 0.8, "f1_at_15": None, "instance_f1": 0.5, "cell_accuracy": 0.75, "ece": 0.1, "loss": 0.5,
    }  # fmt: skip
    out = [entry.name for entry in entries if not entry.judged]
    values: dict[str, Any] = {
        "source": {"model": "runs/drawn", "split": "val", "data_fingerprint": "0123456789abcdef", "protocol": None},
        "objects": len(predictions),
        "images": len(np.unique(predictions.image_id)),
        "positive_at": 0.5,
        "threshold": 0.5,
        "tuned_on": "cross-fitted: each half of the photographs is judged at the thresholds of the other half",
        "overall": overall,
        "intervals": {key: _around(value) for key, value in overall.items()},
        "bootstrap": Bootstrap(replicates=100, seed=0, unit="image"),
        "baselines": {
            "prior": dict.fromkeys(overall, 0.3) | {"map": overall["prior_map"]},
            "permutation": dict.fromkeys(overall, 0.32),
            "category": dict.fromkeys(overall, 0.35),
        },
        "permutation_p": 0.01,
        "category_from": "leave-one-photograph-out over the judged objects",
        "attributes": entries,
        "left_out": LeftOut(min_positives=MIN_POSITIVES, min_negatives=MIN_POSITIVES, count=len(out), names=out),
        "groups": groups,
        "views": {
            "masked": ViewEntry(rule="known cells only", objects=len(predictions), overall=overall),
            "exhaustive": ViewEntry(
                rule="objects with more than 175 known attributes", objects=0, note="no such object", overall={}
            ),
            "legacy": ViewEntry(rule="positive is > 0, unknown is negative", objects=len(predictions), overall=overall),
        },
    }
    return MetricsDocument(**(values | changes))


def _entry(predictions: Predictions, column: int) -> AttributeEntry:
    labels, logits = predictions.labels[:, column], predictions.logits[:, column]
    known = ~np.isnan(labels)
    truth, scores = labels[known] >= 0.5, logits[known]
    positives, negatives = int(truth.sum()), int((~truth).sum())
    counts: dict[str, Any] = {
        "name": predictions.names[column],
        "group": ("colour", "shape")[column % 2],
        "frequency": ("head", "tail")[column % 2],
        "positives": positives,
        "negatives": negatives,
        "unknowns": int((~known).sum()),
    }
    if min(positives, negatives) < MIN_POSITIVES:
        return AttributeEntry(**counts, judged=False)
    ap = float(average_precision_score(truth, scores))
    named = scores >= 0
    hits = int((named & truth).sum())
    precision, recall = hits / max(1, int(named.sum())), hits / positives
    return AttributeEntry(
        **counts, judged=True, ap=ap, ap_interval=_around(ap), prior=positives / len(truth), permutation_ap=positives / len(truth),
        auroc=float(roc_auc_score(truth, scores)), precision=precision, recall=recall,
        f1=2 * precision * recall / max(1e-9, precision + recall), ece=0.1, balanced_accuracy=0.7, threshold_tuned=0.4,
        precision_tuned=precision, recall_tuned=recall, f1_tuned=0.5,
    )  # fmt: skip


def _group(name: str, entries: list[AttributeEntry], objects: int) -> GroupEntry:
    score = _mean([entry.ap for entry in entries])
    return GroupEntry(
        name=name, attributes=len(entries), objects=objects, map=score, map_interval=_around(score), cf1=0.4,
        prior_map=_mean([entry.prior for entry in entries]),
    )  # fmt: skip


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _around(value: float | None) -> tuple[float, float] | None:
    return None if value is None else (max(0.0, value - 0.03), min(1.0, value + 0.03))

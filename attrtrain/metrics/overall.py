"""From attributes to one number: means over judged attributes, and scores over all cells or all objects."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.decisions import TOP_K
from attrtrain.metrics.sums import Counts, Sums

MIN_POSITIVES = MIN_NEGATIVES = 5
"""Below this, an attribute is in no mean: its AP says more about those few objects than about the model. A bootstrap
over photographs leaves out all of 4 objects once in 55 replicates, all of 5 once in 150; and a random order scores far
above the prior: with 1 positive among 100 objects 0.052 for 0.010, with 5 still 0.090 for 0.050."""


def is_judged(positives: NDArray[Any], negatives: NDArray[Any]) -> NDArray[np.bool_]:
    """(A,) attributes with positives and negatives enough."""
    return np.asarray((positives >= MIN_POSITIVES) & (negatives >= MIN_NEGATIVES))


def rates(positives: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of positives, NaN where nothing is known."""
    return np.divide(positives, known, out=np.full_like(known, np.nan, dtype=np.float64), where=known > 0)


def permutation_average_precision(positives: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected average precision of a random order without ties: above the share of positives, most of all where they
    are few.

    Whichever object is at rank i is positive with probability P / n and then has (i - 1) (P - 1) / (n - 1) expected
    positives before it; the mean of precisions at the positives is (P - 1) / (n - 1) + (H_n / n) (1 - (P - 1) / (n -
    1)), with the harmonic number H_n. See Bestgen, "Exact expected average precision of the random baseline for system
    evaluation", Prague Bulletin of Mathematical Linguistics 103 (2015).

    Args:
        positives: (...) P.
        known: (...) n, whole numbers.

    Returns:
        (...), NaN without a positive or without a negative.
    """
    largest = int(known.max(initial=0))
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, largest + 1))])[known.astype(np.int64)]
    with np.errstate(invalid="ignore", divide="ignore"):
        others = (positives - 1) / (known - 1)
        expected = others + harmonic / known * (1 - others)
    return np.where((positives > 0) & (positives < known), expected, np.nan)


def mean_over(values: NDArray[np.float64], judged: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of (..., A) over judged attributes, leaving out NaN: an attribute may lose its last positive in a bootstrap
    replicate.
    """
    chosen = values[..., judged]
    there = ~np.isnan(chosen)
    return rates(np.where(there, chosen, 0).sum(axis=-1), there.sum(axis=-1).astype(np.float64))


def harmonic_mean(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where both are 0."""
    return np.divide(2 * a * b, a + b, out=np.where(np.isnan(a + b), np.nan, 0.0), where=a + b > 0)


def overall_scores(
    sums: Sums, average_precision: NDArray[np.float64], auroc: NDArray[np.float64], judged: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """The overall keys that follow from sums (..., ·) and from average precision and AUROC (..., A), each (...).

    Means over attributes are over judged ones (A,). What counts cells or objects (op, or, of1, f1_at_15, cell_accuracy,
    instance, loss) counts every known cell.
    """
    at, top = sums.at_threshold, sums.top_k
    balanced = mean_over(at.balanced_accuracy, judged)
    objects = sums.instance[..., 3]
    accuracy, precision, recall = (rates(sums.instance[..., part], objects) for part in range(3))
    right = at.known - at.positives - at.predicted + 2 * at.hits
    return {
        "map": mean_over(average_precision, judged),
        "prior_map": mean_over(rates(at.positives, at.known), judged),
        "permutation_map": mean_over(permutation_average_precision(at.positives, at.known), judged),
        "auroc": mean_over(auroc, judged),
        "balanced_accuracy": balanced,
        **per_attribute_and_per_cell(at, judged),
        **{f"{key}_tuned": value for key, value in per_attribute_and_per_cell(sums.tuned, judged).items()},
        "mA": balanced,
        f"mean_recall_at_{TOP_K}": mean_over(top.recall, judged),
        f"f1_at_{TOP_K}": top.over_attributes.f1[..., 0],
        "instance_accuracy": accuracy,
        "instance_precision": precision,
        "instance_recall": recall,
        "instance_f1": harmonic_mean(precision, recall),
        "cell_accuracy": rates(right.sum(axis=-1), at.known.sum(axis=-1)),
        "loss": rates(sums.loss[..., 0], sums.loss[..., 1]),
    }


def per_attribute_and_per_cell(counts: Counts, judged: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """CP, CR and CF1 over judged attributes, OP, OR and OF1 over all cells (Zhu et al., "Learning spatial
    regularization with image-level supervisions for multi-label image classification", CVPR 2017). CF1 is the harmonic
    mean of CP and CR; scikit-learn's macro F1 is another number, the mean of F1.
    """
    cells = counts.over_attributes
    cp, cr = mean_over(counts.precision, judged), mean_over(counts.recall, judged)
    return {
        "cp": cp,
        "cr": cr,
        "cf1": harmonic_mean(cp, cr),
        "op": cells.precision[..., 0],
        "or": cells.recall[..., 0],
        "of1": cells.f1[..., 0],
    }

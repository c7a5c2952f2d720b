"""The guessers of `baselines`, measured by the code that measures the model."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from attrtrain.metrics.baselines import (
    CategoryGuess,
    TrainingRates,
    category_guess,
    has_placeholders,
    prior_guess,
    shuffled,
    shuffled_orders,
    traded_maps,
)
from attrtrain.metrics.decisions import GivenThresholds, tune
from attrtrain.metrics.document import Baseline, Scores
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import Measured, measure
from attrtrain.metrics.overall import mean_over
from attrtrain.metrics.views import none_if_nan

_LABEL_ONLY = ("prior_map", "permutation_map")  # keys that follow from the labels, whatever the scores
_SHUFFLES_MEASURED = (1, 10)
_MEASURE_WORK = 20_000_000  # cells x shuffles: of many objects, one shuffle is mean enough
_LEAST_SHUFFLES = 39
_SHUFFLE_WORK = 1_500_000_000  # cells x shuffles: some ten seconds of one core


def guesser_scores(
    cells: JudgedSet,
    training: TrainingRates | None,
    guess: CategoryGuess | None,
    threshold: float,
    seed: int,
    tuned: GivenThresholds | None = None,
) -> dict[Baseline, Scores | None]:
    """Overall keys of each guesser.

    Args:
        cells: the model's scores.
        training: what the training split holds, if there is one.
        guess: the guesser that knows categories, if there are any.
        threshold: probability above which an attribute counts as predicted.
        seed: of the shuffles.
        tuned: the model's thresholds, where they were tuned on other objects; guessers tune theirs on the same ones.
            None: cross-fitted, as the model's.
    """

    def tuned_alike(guess_there: JudgedSet) -> GivenThresholds | None:
        return None if tuned is None else replace(tuned, values=tune(guess_there, threshold))

    there = tuned.objects if tuned is not None else cells
    scores: dict[Baseline, Scores | None] = {
        "prior": _as_json(
            measure(prior_guess(cells, training), threshold, tuned_alike(prior_guess(cells, training, there))).overall
        ),
        "permutation": _as_json(_permutation_scores(cells, threshold, seed, tuned)),
        "category": None,
    }
    if guess is not None:
        guess_there = category_guess(there, training)
        scores["category"] = _as_json(
            _category_scores(guess, threshold, tuned_alike(guess_there.cells) if guess_there is not None else None)
        )
    return scores


def _permutation_scores(
    cells: JudgedSet, threshold: float, seed: int, tuned: GivenThresholds | None
) -> dict[str, float]:
    """Means over a few shuffles of the model's own scores; exact expectations where there are any."""
    count = int(np.clip(_MEASURE_WORK // max(cells.scores.size, 1), *_SHUFFLES_MEASURED))
    drawn = [measure(shuffled(cells, order), threshold, tuned).overall for order in shuffled_orders(cells, count, seed)]
    means = {key: float(np.mean([scores[key] for scores in drawn])) for key in drawn[0]}
    means["map"] = means["permutation_map"]
    for key in ("auroc", "balanced_accuracy", "mA"):
        means[key] = means[key] if np.isnan(means[key]) else 0.5  # NaN where no attribute is judged
    return means


def _category_scores(guess: CategoryGuess, threshold: float, tuned: GivenThresholds | None) -> dict[str, float]:
    measured = measure(guess.cells, threshold, tuned)
    average, auroc = guess.average_precision_and_auroc
    both = {"map": mean_over(average, measured.judged), "auroc": mean_over(auroc, measured.judged)}
    return {**measured.overall, **{key: float(value) for key, value in both.items()}}


def _as_json(scores: Mapping[str, float]) -> Scores:
    return {key: none_if_nan(value) for key, value in scores.items() if key not in _LABEL_ONLY}


def permutation_p(cells: JudgedSet, measured: Measured, replicates: int, seed: int) -> float | None:
    """Share of shuffles, in which photographs of like size trade their scores, whose mAP reaches the model's, (k + 1) /
    (n + 1) (Phipson & Smyth, "Permutation p-values should never be zero", 2010). Scores of unknown cells come to lie on
    known ones, so they have to be the model's as well.

    Args:
        cells, measured: the model's.
        replicates: shuffles wanted; fewer, at least 39, where they would take long. None are drawn for 0.

    Returns:
        None without shuffles, without a judged attribute, where there is one photograph, which cannot be shuffled, and
        where unknown cells have no scores but placeholders.
    """
    fewest = min(replicates, _LEAST_SHUFFLES)
    count = int(np.clip(_SHUFFLE_WORK // max(cells.scores.size, 1), fewest, replicates))
    if count == 0 or not measured.judged.any() or cells.images < 2 or has_placeholders(cells, measured.judged):
        return None
    maps = traded_maps(cells, measured.judged, count, seed)
    return float((1 + (maps >= measured.overall["map"] - 1e-12).sum()) / (1 + count))

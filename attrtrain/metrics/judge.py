"""The one entry point: predictions in, everything that is measured of them out, each score beside what guessing
scores.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.baselines import CategoryGuess, TrainingRates, category_guess
from attrtrain.metrics.bootstrap import default_replicates, image_weights, resample
from attrtrain.metrics.decisions import GivenThresholds
from attrtrain.metrics.document import (
    AttributeEntry,
    Bootstrap,
    Frequency,
    LeftOut,
    MetricsDocument,
    ViewEntry,
)
from attrtrain.metrics.groups import FREQUENCIES, attribute_groups, category_groups, frequency_thirds
from attrtrain.metrics.guessers import guesser_scores, permutation_p
from attrtrain.metrics.intervals import interval_of_ranking, overall_interval
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import Measured, measure
from attrtrain.metrics.overall import MIN_NEGATIVES, MIN_POSITIVES, permutation_average_precision, rates
from attrtrain.metrics.views import MASKED_RULE, none_if_nan, other_views, with_category
from attrtrain.predictions import Predictions

_CROSS_FITTED = "cross-fitted: each half of the {} is judged at the thresholds that maximise F1 on the other half"


def judge(
    predictions: Predictions,
    *,
    source: Mapping[str, str | None],
    groups: Mapping[str, str] | None = None,
    training: TrainingRates | None = None,
    positive_at: float = 0.5,
    threshold: float = 0.5,
    tuned: GivenThresholds | None = None,
    replicates: int | None = None,
    seed: int = 0,
) -> MetricsDocument:
    """Judges a model's predictions.

    Args:
        predictions: logits and labels of N objects.
        source: what is judged, for people: model, split, data fingerprint …
        groups: group of each attribute by name; those that are not there have none.
        training: rates of the training split; without them the guessers learn from the judged objects, and frequency is
            counted on those.
        positive_at: vote share from which an attribute counts as present.
        threshold: probability above which it counts as predicted.
        tuned: thresholds tuned on other data; None: cross-fitted over two halves of the photographs.
        replicates: of the bootstrap; None chooses by size, 0 gives no intervals and no permutation p.
        seed: of bootstrap and shuffles.
    """
    cells = JudgedSet.of(predictions, positive_at)
    return judge_cells(
        cells, source=source, groups=groups, training=training, positive_at=positive_at, threshold=threshold, tuned=tuned,
        replicates=replicates, seed=seed, unit_is_image=True,
    )  # fmt: skip


def judge_cells(
    cells: JudgedSet,
    *,
    source: Mapping[str, str | None],
    groups: Mapping[str, str] | None,
    training: TrainingRates | None,
    positive_at: float,
    threshold: float,
    tuned: GivenThresholds | None,
    replicates: int | None,
    seed: int,
    unit_is_image: bool,
) -> MetricsDocument:
    """As `judge`, for scores of any kind. `unit_is_image` says whether the photographs of `cells` are known, or each
    object stands for one.
    """
    measured = measure(cells, threshold, tuned)
    count = default_replicates(len(cells.known)) if replicates is None else replicates
    weights = image_weights(cells.images, count if cells.images > 1 else 0, seed)
    drawn = resample(cells, measured, weights) if len(weights) else None
    guess = category_guess(cells, training)
    group_of = [(groups or {}).get(name) or None for name in cells.names]
    counted, place = (training.positives, "the training split") if training else (cells.positives, "the judged objects")
    frequency, frequency_from = frequency_thirds(counted, place)
    overall = with_category(measured, guess.mean_average_precision(measured.judged) if guess else None)
    average = drawn.average_precision if drawn else None
    masked = ViewEntry(rule=MASKED_RULE.format(positive_at=positive_at), objects=len(cells), overall=overall)
    return MetricsDocument(
        source=dict(source),
        objects=len(cells),
        images=cells.images,
        positive_at=positive_at,
        threshold=threshold,
        tuned_on=tuned.tuned_on if tuned else _CROSS_FITTED.format("photographs" if unit_is_image else "objects"),
        overall=overall,
        intervals={key: overall_interval(key, drawn, measured.overall.get(key, np.nan)) for key in overall}
        if drawn
        else {},
        bootstrap=Bootstrap(replicates=len(weights), seed=seed, unit="image" if unit_is_image else "object"),
        baselines=guesser_scores(cells, training, guess, threshold, seed, tuned),
        permutation_p=permutation_p(cells, measured, count, seed),
        category_from=guess.source if guess else None,
        frequency_from=frequency_from,
        attributes=_attributes(cells, measured, guess, group_of, frequency, tuned, average),
        left_out=_left_out(cells, measured),
        groups={
            "attribute_group": attribute_groups(cells, measured, group_of, average),
            "frequency": attribute_groups(cells, measured, frequency, average, FREQUENCIES) if frequency_from else [],
            "category": category_groups(cells, threshold, weights if drawn else None),
        },
        views={"masked": masked, **other_views(cells, positive_at, threshold, tuned, training)},
    )


def _left_out(cells: JudgedSet, measured: Measured) -> LeftOut:
    names = [name for name, judged in zip(cells.names, measured.judged, strict=True) if not judged]
    return LeftOut(min_positives=MIN_POSITIVES, min_negatives=MIN_NEGATIVES, count=len(names), names=names)


def _attributes(
    cells: JudgedSet,
    measured: Measured,
    guess: CategoryGuess | None,
    group_of: Sequence[str | None],
    frequency: Sequence[Frequency | None],
    tuned: GivenThresholds | None,
    replicates: NDArray[np.float64] | None,
) -> list[AttributeEntry]:
    at, at_tuned = measured.sums.at_threshold, measured.sums.tuned
    nothing = np.full(len(cells.names), np.nan)
    columns = {
        "ap": measured.average_precision,
        "prior": rates(at.positives, at.known),
        "permutation_ap": permutation_average_precision(at.positives, at.known),
        "category_ap": guess.average_precision_and_auroc[0] if guess is not None else nothing,
        "auroc": measured.auroc,
        "precision": at.precision,
        "recall": at.recall,
        "f1": at.f1,
        "balanced_accuracy": at.balanced_accuracy,
        "ece": measured.ece,
        "threshold_tuned": cells.as_probability(tuned.values) if tuned is not None else nothing,
        "precision_tuned": at_tuned.precision,
        "recall_tuned": at_tuned.recall,
        "f1_tuned": at_tuned.f1,
    }
    return [
        AttributeEntry(
            name=name,
            group=group_of[column],
            frequency=frequency[column],
            judged=bool(measured.judged[column]),
            positives=int(at.positives[column]),
            negatives=int(at.known[column] - at.positives[column]),
            unknowns=len(cells) - int(at.known[column]),
            ap_interval=interval_of_ranking(replicates[:, column], measured.average_precision[column], cells.images)
            if replicates is not None
            else None,
            **{key: none_if_nan(values[column] if at.known[column] else None) for key, values in columns.items()},
        )
        for column, name in enumerate(cells.names)
    ]

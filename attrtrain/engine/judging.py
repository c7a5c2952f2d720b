"""What an evaluation is worth: metrics.json and predictions.npz of one split, beside what guessing from the training
split scores.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import Evaluation
from attrtrain.metrics.baselines import TrainingRates
from attrtrain.metrics.decisions import GivenThresholds, tune
from attrtrain.metrics.document import METRICS, MetricsDocument, write_metrics
from attrtrain.metrics.functional import MeanScores
from attrtrain.metrics.judge import judge
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.overall import is_judged
from attrtrain.predictions import PREDICTIONS, Predictions, write_predictions
from attrtrain.tracking.trackers import Table
from attrtrain.wording import counted, some_of

THRESHOLD = 0.5
# Of a score in single precision, which use compares: one that should just reach its threshold must not miss it.
_ROUNDING = 2.0**-22
_SHOWN = 5  # attributes of a line


def predictions_of(evaluation: Evaluation, shards: ShardSet) -> Predictions:
    """An evaluation of the samples of `shards`, in order, with what identifies them."""
    return Predictions(
        names=shards.vocabulary.names,
        object_id=shards.object_ids,
        image_id=shards.column("image_id"),
        category=np.array(shards.categories(), dtype=str),
        logits=evaluation.logits,
        labels=evaluation.labels,
    )


def judge_split(
    predictions: Predictions,
    shards: ShardSet,
    training: ShardSet | None,
    *,
    source: Mapping[str, str | None],
    positive_at: float,
    tuned: GivenThresholds | None = None,
    replicates: int | None = None,
) -> MetricsDocument:
    """Judges predictions for the samples of `shards`.

    Args:
        training: the split that guessers learn rates from; None lets them learn from the judged objects.
        source: what is judged, for people.
        positive_at: vote share from which an attribute counts as present.
        tuned: thresholds tuned on another split; None cross-fits them.
        replicates: of the bootstrap; None chooses by size.
    """
    rates = None
    if training is not None:
        labels = training.labels(np.arange(len(training)))
        rates = TrainingRates.of(labels, np.array(training.categories(), dtype=str), positive_at)
    vocabulary = shards.vocabulary
    return judge(
        predictions,
        source={"split": shards.split, "data_fingerprint": shards.fingerprint, **source},
        groups=dict(zip(vocabulary.names, vocabulary.groups, strict=True)),
        training=rates,
        positive_at=positive_at,
        threshold=THRESHOLD,
        tuned=tuned,
        replicates=replicates,
    )


def thresholds_from(predictions: Predictions, split: str, positive_at: float) -> GivenThresholds:
    """The thresholds that maximise each attribute's F1 on a split that is not the one reported."""
    judged = JudgedSet.of(predictions, positive_at)
    return GivenThresholds(tune(judged, THRESHOLD), f"thresholds tuned on split '{split}'", judged)


def attribute_table(names: Sequence[str], scores: MeanScores) -> Table:
    """Every attribute of an evaluation beside what guessing scores on it; None where too little is known to judge
    it.
    """
    rows = zip(names, *map(np.ndarray.tolist, (scores.average_precision, scores.positives, scores.known)), strict=True)
    return Table(
        columns=("attribute", "AP", "prior", "positives", "known", "judged"),
        rows=[
            (name, None if math.isnan(ap) else ap, positives / known if known else None, positives, known, not math.isnan(ap))
            for name, ap, positives, known in rows
        ],
    )  # fmt: skip


def decision_thresholds(predictions: Predictions, training: ShardSet, positive_at: float) -> list[float | None]:
    """(A) the probability from which on each attribute is best said to be present: where its F1 on these objects is
    highest.

    None where it has fewer known positives or negatives among them than a mean over attributes asks for. 1, never,
    where no object of `training` has it: of such an attribute the model has learnt nothing, and its score may be
    anything. What has the highest F1 on some objects has a lower one on others: these thresholds are for use, and are
    judged on another split.
    """
    judged = JudgedSet.of(predictions, positive_at)
    tuned = (judged.as_probability(tune(judged, THRESHOLD)) * (1 - _ROUNDING)).tolist()
    enough = is_judged(judged.positives, judged.negatives)
    learnt = training.counts(positive_at)[0] > 0
    return [
        (value if can_tune else None) if is_learnt else 1.0
        for value, can_tune, is_learnt in zip(tuned, enough, learnt, strict=True)
    ]


def judged_unlearnt(training: ShardSet, judged: ShardSet, positive_at: float) -> list[str]:
    """A line that names the attributes which count in the mAP of a split though no training object has them; none
    where there are none.
    """
    learnt = training.counts(positive_at)[0] > 0
    named = [
        name
        for name, is_learnt, counts in zip(
            judged.vocabulary.names, learnt, is_judged(*judged.counts(positive_at)), strict=True
        )
        if counts and not is_learnt
    ]
    if not named:
        return []
    return [
        f"warning: split '{judged.split}' judges {counted(len(named), 'attribute')} that no object of '{training.split}' is known to have: "
        f"{some_of(named, _SHOWN)}; such scores mean nothing, and count in its mAP"
    ]


def headline(document: MetricsDocument) -> str:
    """MAP with its interval, beside what guessing scores, in one line."""
    if (value := document.overall["map"]) is None:
        few = f"{document.left_out.min_positives} known positives and {document.left_out.min_negatives} known negatives"
        return f"no attribute has {few} among {counted(document.objects, 'object')}, so there is no mAP"
    interval = document.intervals.get("map")
    guesses = {"a prior of": "prior_map", "a random order's": "permutation_map", "the category rate's": "category_map"}
    beside = [
        f"{name} {guess:.4f}" for name, key in guesses.items() if (guess := document.overall.get(key)) is not None
    ]
    judged = sum(entry.judged for entry in document.attributes)
    return (
        f"mAP {value:.4f}{f' [{interval[0]:.4f}, {interval[1]:.4f}]' if interval else ''} beside {', '.join(beside)}, "
        f"over {judged:,} of {counted(len(document.attributes), 'attribute')} of {counted(document.objects, 'object')} in {counted(document.images, 'photograph')}"
    )


def write_judgement(folder: Path, document: MetricsDocument, predictions: Predictions) -> None:
    """Writes metrics.json and predictions.npz into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / PREDICTIONS, predictions)
    write_metrics(document, folder / METRICS)

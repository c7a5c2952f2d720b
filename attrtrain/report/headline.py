"""The top of a page: mAP beside what guessing scores, as a picture, a sentence and a table."""

from dataclasses import dataclass

from attrtrain.metrics.document import Baseline, Interval, MetricsDocument
from attrtrain.report.metric_names import in_sections, metric_name

# How each baseline is called in a sentence, from weak to strong as a rule.
_GUESSERS: dict[Baseline, str] = {
    "prior": "each attribute's rate",
    "permutation": "shuffled scores",
    "category": "the rate in the object's category",
}
_LABELS: dict[Baseline, str] = {"prior": "prior", "permutation": "shuffled", "category": "category rate"}


@dataclass(frozen=True)
class Rung:
    """One line of the picture; `kind` decides its mark's shape."""

    kind: str
    label: str
    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class MetricRow:
    """One line of the table."""

    label: str
    meaning: str
    value: float | None
    interval: Interval | None
    prior: float | None
    permutation: float | None
    category: float | None


def ladder(document: MetricsDocument) -> list[Rung]:
    """The model and the baselines that there are."""
    rungs = [Rung("model", "model", document.overall.get("map"), document.intervals.get("map"))]
    for name, label in _LABELS.items():
        if (value := _baseline(document, name, "map")) is not None:
            rungs.append(Rung(name, label, value, None))
    return rungs


def sentence(document: MetricsDocument) -> str:
    """What may be concluded from mAP and its interval, in words."""
    value, interval = document.overall.get("map"), document.intervals.get("map")
    guesses = {name: _baseline(document, name, "map") for name in _GUESSERS}
    known = {name: guess for name, guess in guesses.items() if guess is not None}
    if value is None:
        return "No attribute has enough known labels to be judged, so there is no mAP."
    chance = "" if document.permutation_p is None else f" Against shuffled scores, p = {document.permutation_p:.2g}."
    if interval is None and value == 1 and document.bootstrap.replicates:
        return f"mAP is 1: no ranking has a mistake, and so none that is drawn of these objects, which gives no interval.{chance}"
    if interval is None or not known:
        return (
            f"mAP is {value:.3f}. Without an interval and something to compare it with, that says nothing about chance."
        )
    best = max(known, key=lambda name: known[name])
    told = f"{_GUESSERS[best]} ({known[best]:.3f})"
    if interval[0] > known[best]:
        text = f"The whole interval lies above every way of guessing; the strongest of them is by {told}."
    elif interval[1] < known[best]:
        text = f"Guessing by {told} does better than the model, whose whole interval lies below it."
    else:
        text = (
            f"The interval contains what guessing by {told} scores: on these objects, the model cannot be told from it."
        )
    return text + chance


def metric_rows(document: MetricsDocument) -> list[tuple[str, list[MetricRow]]]:
    """Every overall score by section, with its interval and what guessing scores."""
    return [(section, [_row(document, key) for key in keys]) for section, keys in in_sections(list(document.overall))]


def _row(document: MetricsDocument, key: str) -> MetricRow:
    name = metric_name(key)
    return MetricRow(
        name.label,
        name.meaning,
        document.overall[key],
        document.intervals.get(key),
        _baseline(document, "prior", key),
        _baseline(document, "permutation", key),
        _baseline(document, "category", key),
    )


def _baseline(document: MetricsDocument, name: Baseline, key: str) -> float | None:
    return (document.baselines.get(name) or {}).get(key)

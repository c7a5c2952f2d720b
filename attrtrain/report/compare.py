"""Two runs on the same objects: differences with paired intervals, and the settings that differ."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from attrtrain.errors import PredictionsError
from attrtrain.metrics.document import AttributeEntry, Interval, MetricsDocument
from attrtrain.metrics.paired import Difference, paired_difference
from attrtrain.report.metric_names import TUNED, in_sections, metric_name
from attrtrain.report.render import score, signed, signed_interval
from attrtrain.report.run_directory import JudgedRun
from attrtrain.wording import counted


@dataclass(frozen=True)
class ScoreRow:
    """One score of both runs; `difference` is B − A, None where one of them has no number, or where they were tuned by
    different rules.
    """

    section: str
    label: str
    a: float | None
    b: float | None
    prior: float | None
    difference: float | None
    interval: Interval | None
    p: float | None
    lower_is_better: bool = False

    @property
    def finding(self) -> str:
        """How B stands: `better` or `worse` where the interval does not contain 0, `open` where it does, empty without
        one.
        """
        if self.interval is None:
            return ""
        if self.interval[0] <= 0 <= self.interval[1]:
            return "open"
        return "better" if (self.interval[0] > 0) != self.lower_is_better else "worse"


@dataclass(frozen=True)
class Comparison:
    """Two runs, A and B.

    Attributes:
        replicates: of the paired bootstrap.
        scores: overall scores in the order in which they are shown.
        attributes: average precision of each attribute; `label` is its name, `section` its group.
        settings: those that differ, as (key, value in A, value in B).
        notes: what cannot be compared, and why, in sentences.
    """

    a: JudgedRun
    b: JudgedRun
    replicates: int
    scores: list[ScoreRow]
    attributes: list[ScoreRow]
    settings: list[tuple[str, str, str]]
    notes: list[str]


def compare(a: JudgedRun, b: JudgedRun) -> Comparison:
    """Compares two runs.

    Raises:
        PredictionsError: they were judged on other objects, attributes or labels, or count other things as present.
    """
    _require_same_rules(a, b)
    try:
        paired = paired_difference(
            a.predictions, b.predictions, positive_at=a.document.positive_at, threshold=a.document.threshold
        )
    except PredictionsError as error:
        raise PredictionsError(f"{a.folder} and {b.folder}: {error}") from None
    scores = [
        _score_row(key, a.document, b.document, paired.overall.get(key))
        for _, keys in in_sections(list(a.document.overall))
        for key in keys
    ]
    notes = _notes_on_tuning(a.document, b.document, scores)
    other = {entry.name: entry for entry in b.document.attributes}
    attributes = [
        _attribute_row(entry, other[entry.name], paired.attributes.get(entry.name)) for entry in a.document.attributes
    ]
    return Comparison(a, b, paired.replicates, scores, attributes, _changed_settings(a.config, b.config), notes)


def _require_same_rules(a: JudgedRun, b: JudgedRun) -> None:
    """Predictions are compared by `paired_difference`; this is about how they were read."""
    pair = f"{a.folder} and {b.folder}"
    first, second = set(a.predictions.names), set(b.predictions.names)
    if first != second:
        raise PredictionsError(
            f"{pair} were judged on other attributes: {len(first)} and {len(second)}, {len(first & second)} in common; runs are compared on the same ones"
        )
    for name in ("positive_at", "threshold"):
        values = getattr(a.document, name), getattr(b.document, name)
        if values[0] != values[1]:
            raise PredictionsError(
                f"{pair} were judged with {name} {values[0]:g} and {values[1]:g}; evaluate both alike"
            )


def _notes_on_tuning(a: MetricsDocument, b: MetricsDocument, scores: list[ScoreRow]) -> list[str]:
    if a.tuned_on != b.tuned_on:
        return [f"Tuned scores are not compared: A has {a.tuned_on}, B has {b.tuned_on}."]
    if any(row.section == TUNED and row.difference is not None and row.interval is None for row in scores):
        return [
            "Differences of tuned scores have no interval: drawing photographs again leaves thresholds as they are, and so leaves out the chance of tuning them."
        ]
    return []


def _score_row(key: str, a: MetricsDocument, b: MetricsDocument, paired: Difference | None) -> ScoreRow:
    name, prior = metric_name(key), (a.baselines.get("prior") or {}).get(key)
    scores = a.overall[key], b.overall.get(key)
    if name.section == TUNED and a.tuned_on != b.tuned_on:
        return ScoreRow(name.section, name.full_label, *scores, prior, None, None, None, name.lower_is_better)
    return _row(name.section, name.full_label, *scores, prior, paired, name.lower_is_better)


def _attribute_row(a: AttributeEntry, b: AttributeEntry, paired: Difference | None) -> ScoreRow:
    return _row(a.group or "", a.name, a.ap, b.ap, a.prior, paired if a.judged else None)


def _row(
    section: str,
    label: str,
    a: float | None,
    b: float | None,
    prior: float | None,
    paired: Difference | None,
    lower_is_better: bool = False,
) -> ScoreRow:
    # Where thresholds were tuned elsewhere, the interval belongs to other numbers than these.
    if a is None or b is None:
        return ScoreRow(section, label, a, b, prior, None, None, None, lower_is_better)
    if paired is None or not np.allclose([paired.a, paired.b], [a, b], rtol=0, atol=1e-6):
        return ScoreRow(section, label, a, b, prior, b - a, None, None, lower_is_better)
    return ScoreRow(section, label, a, b, prior, b - a, paired.interval, paired.p, lower_is_better)


def _changed_settings(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    first, second = dict(_flat(a)), dict(_flat(b))
    return [
        (key, first.get(key, "–"), second.get(key, "–"))
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]


def _flat(config: dict[str, Any]) -> list[tuple[str, str]]:
    flat = []
    for section, knobs in config.items():
        if isinstance(knobs, dict):
            flat += [(f"{section}.{name}", str(value)) for name, value in knobs.items()]
        else:
            flat.append((section, str(knobs)))
    return flat


def as_text(comparison: Comparison) -> str:
    """The overall scores as a table for a terminal."""
    a, b = comparison.a, comparison.b
    width = max(len(row.label) for row in comparison.scores)
    lines = [
        f"A = {a.folder}, B = {b.folder}: the same {counted(a.document.objects, 'object')} of {counted(a.document.images, 'photograph')}",
        f"{'':<{width}}  {'A':>7}  {'B':>7}  {'prior':>7}  {'B − A':>7}  95 % interval",
        *(
            f"{row.label:<{width}}  {score(row.a):>7}  {score(row.b):>7}  {score(row.prior):>7}  {signed(row.difference):>7}  {signed_interval(row.interval)}"
            for row in comparison.scores
        ),
        *comparison.notes,
        f"average precision: {tally(comparison.attributes)}",
    ]
    return "\n".join(lines)


def tally(rows: list[ScoreRow]) -> str:
    """How many attributes are clearly better or worse in B."""
    found = [row.finding for row in rows]
    return f"B is clearly better at {counted(found.count('better'), 'attribute')}, clearly worse at {found.count('worse')}, {found.count('open')} cannot be told apart"

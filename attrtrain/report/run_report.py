"""report.html: how good each attribute is beside guessing, where the model errs, and what it says of crops it never
saw.
"""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrtrain.data.reader import ShardSet
from attrtrain.errors import PredictionsError
from attrtrain.metrics.document import SHARDS, AttributeEntry, Grouping, MetricsDocument
from attrtrain.predictions import Predictions
from attrtrain.report import headline
from attrtrain.report.cells import Cells
from attrtrain.report.confusion import find_confusion
from attrtrain.report.gallery import draw_gallery
from attrtrain.report.history import best_epoch, read_curves
from attrtrain.report.mistakes import add_pictures, find_mistakes
from attrtrain.report.payload import build_payload
from attrtrain.report.pictures import Pictures
from attrtrain.report.render import write_page
from attrtrain.report.samples import tabulate
from attrtrain.wording import counted

# What the parts of a page may take, so that all of it stays below render.MAX_BYTES.
_SAMPLE_ENTRIES = 200_000  # numbers of one to four characters and a comma: 0.8 MB
_ATTRIBUTE_BYTES = 2_500  # its row, its curves, its numbers
_PICTURE_BYTES = (300_000, 2_600_000)  # at least, at most
_FOR_PICTURES_AND_ATTRIBUTES = 3_600_000
_MISTAKE_PX = 112
_PAIRS = 30
_HEADINGS: dict[Grouping, str] = {
    "attribute_group": "Groups of attributes",
    "frequency": "Frequency of attributes",
    "category": "Categories of objects",
}


def write_report(
    path: Path,
    *,
    title: str,
    document: MetricsDocument,
    predictions: Predictions,
    shards: ShardSet | None,
    settings: str,
    history: Path | None,
    audit: dict[str, Any] | None,
    versions: dict[str, str],
    no_pictures: str = "",
    val_split: str = "val",
) -> None:
    """Writes the page: one file below 5 MB that opens without a network.

    Args:
        path: where to.
        title: what is reported on.
        document: what was measured of the predictions.
        predictions: of every object that was judged.
        shards: where the objects' crops are; None gives a page without pictures.
        settings: the configuration, as text.
        history: the run's metrics.jsonl, or None where there was no training.
        audit: what audit.json holds, or None where there was none.
        versions: of the software, by name.
        no_pictures: why there are none, where `shards` is None.
        val_split: on which the training of `history` was judged after each epoch; what is reported on may be another.

    Raises:
        PredictionsError: predictions and document are not of the same attributes and objects.
        ShardError: a crop cannot be read.
    """
    _require_match(document, predictions)
    cells = Cells.of(predictions, document.positive_at, document.threshold)
    pictures = Pictures(shards, predictions.object_id, _picture_budget(len(predictions.names)))
    gallery = draw_gallery(predictions, cells, pictures)
    mistakes = find_mistakes(cells)
    add_pictures(pictures, mistakes, _MISTAKE_PX)
    samples = tabulate(cells, predictions.object_id, _SAMPLE_ENTRIES)
    curves = read_curves(history)
    write_page(
        path,
        "report.html.j2",
        ("report.js",),
        data=build_payload(
            document, predictions, cells,
            curves=curves, mistakes=mistakes, samples=samples, pictures=pictures, gallery=gallery,
        ),
        title=title,
        settings=settings,
        facts=_facts(document, audit, versions),
        audit=_audit_facts(audit),
        curves=curves,
        best=best_epoch(history),
        val_split=val_split,
        gallery=gallery,
        no_pictures=_why_no_pictures(pictures, shards, no_pictures),
        sample_count=len(samples.rows),
        confusion=find_confusion(cells.named, predictions.labels, document.positive_at, _PAIRS),
        **_scores(document, predictions.names),
    )  # fmt: skip


def _scores(document: MetricsDocument, names: tuple[str, ...]) -> dict[str, Any]:
    """What the page shows of metrics.json alone."""
    groups = {entry.group for entry in document.attributes if entry.group}
    frequencies = {entry.frequency for entry in document.attributes}
    return {
        "document": document,
        "names": names,
        "ladder": headline.ladder(document),
        "sentence": headline.sentence(document),
        "metric_rows": headline.metric_rows(document),
        "attribute_rows": _attribute_rows(document.attributes, names),
        "groups_of_attributes": sorted(groups),
        "frequencies": [name for name in ("head", "medium", "tail") if name in frequencies],
        "group_tables": _group_tables(document),
    }


def _why_no_pictures(pictures: Pictures, shards: ShardSet | None, told: str) -> str:
    if pictures.uris or told:
        return told
    return "There are no pictures: " + (
        "the shards are not at hand." if shards is None else "the shards hold other objects than were judged."
    )


def _picture_budget(attributes: int) -> int:
    least, most = _PICTURE_BYTES
    return min(most, max(least, _FOR_PICTURES_AND_ATTRIBUTES - attributes * _ATTRIBUTE_BYTES))


def installed_versions() -> dict[str, str]:
    """Versions of what scores depend on, as they are installed."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("attrtrain", "torch", "numpy")}}


def _require_match(document: MetricsDocument, predictions: Predictions) -> None:
    if sorted(predictions.names) != sorted(entry.name for entry in document.attributes):
        raise PredictionsError("metrics and predictions are of different attributes; evaluate again to make them anew")
    if len(predictions) != document.objects:
        raise PredictionsError(
            f"metrics were measured on {counted(document.objects, 'object')}, predictions are for {len(predictions):,}; evaluate again to make them anew"
        )


def _attribute_rows(entries: list[AttributeEntry], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Entries with their columns, the highest AP first; those that are left out of the means come last."""
    column = {name: number for number, name in enumerate(names)}
    ordered = sorted(entries, key=lambda entry: (entry.judged, -1.0 if entry.ap is None else entry.ap), reverse=True)
    return [{"column": column[entry.name], **dict(entry)} for entry in ordered]


def _group_tables(document: MetricsDocument) -> list[tuple[str, list[Any], str]]:
    notes = {"frequency": document.frequency_from or ""}
    return [
        (heading, document.groups[name], notes.get(name, ""))
        for name, heading in _HEADINGS.items()
        if document.groups.get(name)
    ]


def _audit_facts(audit: dict[str, Any] | None) -> dict[str, str] | None:
    if audit is None:
        return None
    numbers = {"p": audit.get("p_value"), "effect": audit.get("effect")}
    facts = [f"{name} = {value:.2g}" for name, value in numbers.items() if isinstance(value, int | float)]
    return {
        "verdict": str(audit.get("verdict", "unknown")),
        "facts": ", ".join(facts),
        "reason": str(audit.get("reason") or ""),
    }


def _facts(document: MetricsDocument, audit: dict[str, Any] | None, versions: dict[str, str]) -> list[tuple[str, str]]:
    told = _audit_facts(audit)
    drawn = document.bootstrap
    return [
        *((name.replace("_", " "), value) for name, value in document.source.items() if value is not None and name != SHARDS),
        ("present from", f"a vote share of {document.positive_at:g} on"),
        ("named above", f"a score of {document.threshold:g}"),
        (
            "intervals",
            f"95 %, bootstrap, {drawn.replicates:,} replicates over {drawn.unit}s, seed {drawn.seed}"
            if drawn.replicates
            else "none were drawn",
        ),
        ("label audit", ". ".join(filter(None, (f"{told['verdict']} {told['facts']}", told["reason"]))) if told else "none was made; `attrtrain audit` makes one"),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
    ]  # fmt: skip

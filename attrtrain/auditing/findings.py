"""What of an audit somebody should act on, the serious first."""

from collections.abc import Iterator, Sequence
from typing import Literal

from attrtrain.auditing.coverage import GOOD_SHARE
from attrtrain.auditing.document import (
    AttributeEntry,
    AuditDocument,
    CountEntry,
    Coverage,
    Finding,
    OddBoxes,
    Pictures,
    RateSummary,
    Relations,
    TornPhotographs,
    Votes,
)
from attrtrain.metrics.overall import MIN_NEGATIVES, MIN_POSITIVES
from attrtrain.wording import by_reason, counted, some_of

Severity = Literal["serious", "check", "note"]
_SHOWN = 3  # attributes of a line
_ORDER: tuple[Severity, ...] = ("serious", "check", "note")
# Attributes, and the spread of fair coins' rates: of fewer, or with fewer labels, any might pass for coins.
_ENOUGH_RATES, _SHARP_RATES = 5, 0.1
_BOX_SEVERITY: dict[str, Severity] = {
    "same_box_everywhere": "serious",
    "over_the_edge": "note",
    "whole_photograph": "note",
}


def findings_of(audit: AuditDocument) -> list[Finding]:
    """What the parts of an audit come to, most serious first."""
    found = [
        *_of_coverage(audit.coverage),
        *_of_splits(audit.torn, audit.pictures),
        *_of_labels(audit.attributes, audit.rates, audit.votes),
        *_of_rare_labels(audit.attributes, [split.name for split in audit.splits]),
        *_of_boxes(audit.boxes),
        *_of_relations(audit.relations),
        *_of_categories(audit.categories),
    ]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _of_coverage(coverage: Coverage | None) -> Iterator[Finding]:
    if coverage is None:
        return
    if coverage.share < GOOD_SHARE:
        text = f"only {coverage.matched:,} of {coverage.labelled:,} labelled objects ({coverage.share:.0%}) have an annotation. "
        yield Finding(
            severity="serious" if coverage.share < 0.9 else "check",
            text=text + "Likely wrong: " + "; ".join(coverage.likely_wrong),
        )
    if lost := sum(coverage.left_out.values()):
        share = lost / max(coverage.matched, 1)
        yield Finding(
            severity="check" if share > 0.01 else "note",
            text=f"left out of the shards: {', '.join(by_reason(coverage.left_out))}",
        )


def _of_splits(torn: TornPhotographs, pictures: Pictures) -> Iterator[Finding]:
    if torn.count:
        yield Finding(
            severity="serious",
            text=f"{counted(torn.count, 'photograph has', 'photographs have')} objects in two splits, such as {torn.examples[0]}: "
            "validation would reward remembering photographs. `attrtrain shard --split auto` or `--split image` mends it",
        )
    if pictures.across_splits:
        example = next(group for group in pictures.examples if len(set(group.splits)) > 1)
        yield Finding(
            severity="serious",
            text=f"{counted(pictures.across_splits, 'picture is', 'pictures are')} in two splits under different names, such as {' and '.join(example.images[:3])}: "
            "keep one name of each",
        )
    if within := pictures.groups - pictures.across_splits:
        yield Finding(
            severity="check", text=f"{counted(within, 'picture has', 'pictures have')} several names in one split"
        )
    if pictures.unreadable:
        yield Finding(
            severity="check",
            text=f"{counted(pictures.unreadable, 'picture is', 'pictures are')} missing or cannot be read",
        )


def _of_labels(attributes: Sequence[AttributeEntry], rates: RateSummary, votes: Votes) -> Iterator[Finding]:
    if rates.like_fair_coins and len(attributes) >= _ENOUGH_RATES and (rates.spread_of_fair_coins or 1) <= _SHARP_RATES:
        yield Finding(
            severity="serious",
            text=f"attributes are positive as often as fair coins come up heads: mean rate {rates.mean:.3f}, spread {rates.spread:.3f} "
            f"where fair coins give {rates.spread_of_fair_coins:.3f}; real attributes are mostly rare",
        )
    if votes.kind == "scores":
        yield Finding(
            severity="check",
            text=f"{votes.distinct:,} distinct values, which are no shares of a few votes: a model's scores rather than labels?",
        )
    if votes.kind == "none":
        yield Finding(severity="serious", text="every label is unknown")
    if votes.at_half > 0.05:
        yield Finding(
            severity="note",
            text=f"{votes.at_half:.0%} of known labels are ties, vote shares of 0.5, which count as positive",
        )
    for start, what, advice in (
        ("always", "always unknown", ""),
        ("never positive", "never positive", ""),
        # Others' labels are 1 and -1, or a mark in the cells that apply and nothing in the rest.
        ("never neg", "never negative", " (a label of 0 says no; -1 and an empty cell say unknown)"),
    ):
        named = [entry.name for entry in attributes if any(note.startswith(start) for note in entry.notes)]
        if named:
            yield Finding(
                severity="check",
                text=f"{counted(len(named), 'attribute is', 'attributes are')} {what}: {some_of(named, _SHOWN)}; "
                f"there is nothing to learn from that{advice}",
            )


def _of_rare_labels(attributes: Sequence[AttributeEntry], splits: Sequence[str]) -> Iterator[Finding]:
    """What a split cannot teach, or be judged by; but for what no split has, which `_of_labels` tells."""
    if len(splits) < 2:
        return
    for split in sorted(splits):
        few = [
            entry.name
            for entry in attributes
            for own in entry.by_split
            if own.name == split
            and entry.positives
            and entry.negatives
            and (own.positives < MIN_POSITIVES or own.negatives < MIN_NEGATIVES)
        ]
        if few:
            yield Finding(
                severity="note",
                text=f"split '{split}': {counted(len(few), 'attribute has', 'attributes have')} fewer than {MIN_POSITIVES} known positives or "
                f"{MIN_NEGATIVES} known negatives there, too few to learn from or to be in a mean: {some_of(few, _SHOWN)}",
            )


def _of_boxes(boxes: Sequence[OddBoxes]) -> Iterator[Finding]:
    for odd in boxes:
        yield Finding(
            severity=_BOX_SEVERITY.get(odd.kind, "check"), text=f"{counted(odd.count, 'box', 'boxes')}: {odd.what}"
        )


def _of_relations(relations: Relations) -> Iterator[Finding]:
    for count, what in (
        (relations.duplicates, "always positive or negative together: one of the two would do"),
        (relations.complements, "always opposite: one of the two would do"),
        (relations.implied, "such that one implies the other"),
    ):
        if count:
            yield Finding(
                severity="note", text=f"{counted(count, 'pair of attributes is', 'pairs of attributes are')} {what}"
            )


def _of_categories(categories: Sequence[CountEntry]) -> Iterator[Finding]:
    if len(categories) == 1:
        yield Finding(
            severity="note",
            text="all objects are of one category, so whether labels depend on category cannot be tested",
        )

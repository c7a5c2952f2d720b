"""audit.html: one self-contained page, for eyes. audit.json says the same."""

from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment

from attrtrain.auditing.document import AuditDocument, EvidenceEntry
from attrtrain.files import atomic_write

_BINS = 20
_CATEGORIES_OPEN = 10  # without a click
_FULL_BAR = 0.5  # an AUROC of 1; the correlations that are found are mostly below as well

HEADLINES = {
    "learnable": "These labels look learnable",
    "weak": "These labels could not be shown to be learnable",
    "noise": "These labels look like noise",
}
EXPLAINED = {
    "co-occurrence": "Do attributes go together? Coin flips do not; labels shuffled between objects still do.",
    "photographs": "Are objects of one photograph alike? Neither coin flips nor shuffled labels are.",
    "category and box": "Do category, size and place of an object tell its labels, in photographs that were not fitted?",
    "pixels": "Do frozen features of the crop tell its labels, in photographs that were not fitted?",
}


def write_page(document: AuditDocument, path: Path) -> None:
    """Writes the page, whole or not at all."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (files("attrtrain.auditing") / "page.html.j2").read_text(encoding="utf-8")
    )
    html = template.render(
        audit=document,
        headline=HEADLINES[document.verdict],
        explained=EXPLAINED,
        bars={test.name: _bar(test) for test in document.tests},
        histogram=_histogram(document),
        categories=(document.categories[:_CATEGORIES_OPEN], document.categories[_CATEGORIES_OPEN:]),
        by_split={entry.name: {own.name: own for own in entry.by_split} for entry in document.categories},
        attributes=sorted(document.attributes, key=lambda entry: -entry.positives),
    )
    with atomic_write(path) as file:
        file.write(html.encode())


def _bar(test: EvidenceEntry) -> dict[str, float]:
    """Where a test's effect and the edge of chance lie, in percent of the track; one scale for all, so that they can be
    compared.
    """
    return {
        "effect": 100 * min(max(test.effect, 0) / _FULL_BAR, 1),
        "chance": 100 * min(max(test.detectable, 0) / _FULL_BAR, 1),
    }


def _histogram(document: AuditDocument) -> list[dict[str, float]]:
    """Attributes by their rate of positives in 20 bins: for each, its height in percent of the highest and its
    count.
    """
    rates = [entry.rate for entry in document.attributes if entry.rate is not None]
    counts, edges = np.histogram(rates, bins=_BINS, range=(0, 1))
    highest = max(int(counts.max(initial=0)), 1)
    return [
        {
            "from": float(edges[bin_]),
            "to": float(edges[bin_ + 1]),
            "count": int(count),
            "height": 100 * int(count) / highest,
        }
        for bin_, count in enumerate(counts)
    ]

"""audit.json: everything the audit found, as plain data. Lists of examples are cut short; the counts beside them are
not.
"""

from typing import Literal

from pydantic import Field

from attrtrain.auditing.noise_test import Verdict
from attrtrain.contract import Contract


class EvidenceEntry(Contract):
    """One permutation test. `detectable` is the effect that shuffled data exceed once in a hundred times."""

    name: str
    effect: float
    effect_unit: str
    p_value: float
    detectable: float
    permutations: int
    objects: int
    judged: int | None = None
    """Attributes with enough known positives and negatives to be judged one by one; None where the test judges none."""
    above_chance: int | None = None
    """Of those, the ones above chance at 5 %, adjusted for their number."""
    power: float | None = None
    """Share of planted signals of AUROC 0.65 that this test finds in data like these; None where none was planted."""


class LabelsOfSplit(Contract):
    """Known labels of one attribute in one split."""

    name: str
    positives: int
    negatives: int


class AttributeEntry(Contract):
    """One attribute. Positive is a vote share of at least 0.5; `rate` its share of the known."""

    name: str
    positives: int
    negatives: int
    unknowns: int
    rate: float | None
    auroc_side: float | None = None
    """Of predicting it from category and box, on photographs that were not fitted."""
    auroc_pixels: float | None = None
    """The same from frozen features of the crop."""
    by_split: list[LabelsOfSplit]
    notes: list[str] = Field(default_factory=list)


class RateSummary(Contract):
    """How the attributes' rates of positives lie, beside where those of fair coins lie."""

    mean: float | None
    spread: float | None
    """Standard deviation of the rates over attributes."""
    spread_of_fair_coins: float | None
    """What it would be, on as many known labels each, if every label were a fair coin flip."""
    like_fair_coins: bool
    """Whether a chi-squared test at 1 % cannot tell the rates from 0.5."""


class CountEntry(Contract):
    """Objects and photographs of one split or category."""

    name: str
    objects: int
    images: int


class CategoryEntry(CountEntry):
    """Those of one category, and how many of them each split has."""

    by_split: list[CountEntry]


class TornPhotographs(Contract):
    """Photographs with objects in more than one split."""

    count: int
    examples: list[str]


class SamePicture(Contract):
    """One picture under several names, with the split of each (several where a photograph is torn)."""

    images: list[str]
    splits: list[str]


class Pictures(Contract):
    """Pictures that look the same. `compared` says what of, and how many; `note` what was not compared, and why."""

    compared: Literal["photographs", "crops", "nothing"]
    pictures: int
    groups: int
    across_splits: int
    examples: list[SamePicture]
    unreadable: int
    note: str


class OddBoxes(Contract):
    """Boxes that look wrong in one way, and ids of some."""

    kind: str
    what: str
    count: int
    examples: list[int]


class Relation(Contract):
    """What a pair of attributes says of each other over `objects` for which both are known.

    duplicate: both or neither; complement: exactly one; implies: wherever the first is, the second is. `exceptions` is
    how often not, and `expected` how often not if they were independent with the same rates.
    """

    kind: Literal["duplicate", "complement", "implies"]
    first: str
    second: str
    objects: int
    support: int
    """Objects that show it: for implies those with the first; for the others the rarer of the two ways of agreeing."""
    exceptions: int
    expected: float


class Relations(Contract):
    """Counts of all such pairs, and those with the most objects."""

    duplicates: int
    complements: int
    implied: int
    examples: list[Relation]


class Votes(Contract):
    """What the known labels are as numbers."""

    values: list[float]
    """The most common distinct values, rising, at most 24."""
    distinct: int
    kind: Literal["none", "decisions", "vote shares", "scores"]
    at_half: float
    """Share of known labels of exactly 0.5: ties, which count as positive."""


class Coverage(Contract):
    """Labelled objects that the instances files know, and what was left out when shards were made."""

    labelled: int
    matched: int
    share: float
    likely_wrong: list[str]
    left_out: dict[str, int]


class Finding(Contract):
    """Something to act on. serious: results would mislead; check: look before training; note: good to know."""

    severity: Literal["serious", "check", "note"]
    text: str


class AuditDocument(Contract):
    """The whole audit."""

    schema_version: Literal[1] = 1
    verdict: Verdict
    p_value: float
    effect: float
    effect_unit: str
    decided_by: str
    reason: str
    open_question: str
    audited: list[str]
    kind: Literal["labels", "shards"]
    objects: int
    images: int
    known_share: float
    findings: list[Finding]
    tests: list[EvidenceEntry]
    rates: RateSummary
    attributes: list[AttributeEntry]
    splits: list[CountEntry]
    categories: list[CategoryEntry]
    torn: TornPhotographs
    pictures: Pictures
    boxes: list[OddBoxes]
    relations: Relations
    votes: Votes
    coverage: Coverage | None

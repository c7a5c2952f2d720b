"""What of an audit is told as a finding, from where on, and how serious it is."""

import numpy as np
import pytest

from attrtrain.auditing.assemble import Subject, audit
from attrtrain.auditing.document import (
    AttributeEntry,
    CategoryEntry,
    CountEntry,
    Coverage,
    LabelsOfSplit,
    Pictures,
    RateSummary,
    SamePicture,
    Votes,
)
from attrtrain.auditing.findings import findings_of


@pytest.fixture
def said(make_table):
    """Says the findings, as (severity, text), of an audit in which nothing is odd but what is given."""
    table = make_table(0, box=np.zeros((0, 4)), labels=np.zeros((0, 1), dtype=np.float32))
    nothing = audit(Subject("labels", ["boxes.csv"], table, None, None), [], None, 0)
    plain = {"votes": Votes(values=[0, 1], distinct=2, kind="decisions", at_half=0.0), "attributes": []}

    def say(**parts):
        return [(found.severity, found.text) for found in findings_of(nothing.model_copy(update=plain | parts))]

    assert say() == []
    return say


def attribute(name="wet", **by_split):
    """An attribute with (positives, negatives) in each split."""
    own = [LabelsOfSplit(name=split, positives=p, negatives=n) for split, (p, n) in by_split.items()]
    positives, negatives = (sum(getattr(entry, kind) for entry in own) for kind in ("positives", "negatives"))
    return AttributeEntry(name=name, positives=positives, negatives=negatives, unknowns=0, rate=None, by_split=own)


@pytest.mark.parametrize(("lost", "severity"), [(1, "note"), (2, "check")])
def test_more_than_one_in_a_hundred_left_out_is_to_be_checked(said, lost, severity):
    coverage = Coverage(labelled=100, matched=100, share=1.0, likely_wrong=[], left_out={"image_missing": lost})
    assert said(coverage=coverage) == [(severity, f"left out of the shards: {lost} image missing")]


@pytest.mark.parametrize(("at_half", "is_told"), [(0.04, False), (0.06, True)])
def test_ties_are_told_from_five_in_a_hundred_on(said, at_half, is_told):
    found = said(votes=Votes(values=[0, 0.5, 1], distinct=3, kind="vote shares", at_half=at_half))
    assert [severity for severity, text in found if "6% of known labels are ties" in text] == ["note"] * is_told


def test_labels_that_are_all_unknown_are_serious(said):
    found = said(votes=Votes(values=[], distinct=0, kind="none", at_half=0.0))
    assert found == [("serious", "every label is unknown")]


@pytest.mark.parametrize(("attributes", "spread", "is_told"), [(5, 0.03, True), (4, 0.03, False), (5, 0.2, False)])
def test_rates_are_called_coins_only_where_there_are_enough_to_tell(said, attributes, spread, is_told):
    rates = RateSummary(mean=0.5, spread=spread, spread_of_fair_coins=spread, like_fair_coins=True)
    found = said(rates=rates, attributes=[attribute(train=(50, 50))] * attributes)
    assert [severity for severity, text in found if "as fair coins come up heads" in text] == ["serious"] * is_told


def test_pictures_across_splits_are_serious_and_counted_apart_from_those_within_one(said):
    pictures = Pictures(
        compared="photographs",
        pictures=9,
        groups=3,
        across_splits=1,
        examples=[
            SamePicture(images=["a.jpg", "b.jpg"], splits=["train", "val"]),
            SamePicture(images=["c.jpg", "d.jpg"], splits=["train", "train"]),
        ],
        unreadable=2,
        note="",
    )
    assert said(pictures=pictures) == [
        (
            "serious",
            "1 picture is in two splits under different names, such as a.jpg and b.jpg: keep one name of each",
        ),
        ("check", "2 pictures have several names in one split"),
        ("check", "2 pictures are missing or cannot be read"),
    ]


def test_few_labels_are_told_of_several_splits_and_not_where_an_attribute_has_one_kind_only(said):
    """What is positive nowhere, or negative nowhere, is told of the attribute itself."""
    both = [CountEntry(name=name, objects=50, images=50) for name in ("train", "val")]
    rare = attribute("rare", train=(20, 20), val=(20, 4))
    always, never = attribute("always", train=(40, 0), val=(4, 0)), attribute("never", train=(0, 40), val=(0, 4))
    ((severity, text),) = said(attributes=[rare, always, never], splits=both)
    assert severity == "note" and text.startswith("split 'val': 1 attribute has fewer") and text.endswith(": rare")
    assert said(attributes=[attribute(train=(20, 4))], splits=both[:1]) == []


@pytest.mark.parametrize(("categories", "is_told"), [([], False), (["dog"], True), (["dog", "cat"], False)])
def test_a_single_category_is_noted(said, categories, is_told):
    entries = [CategoryEntry(name=name, objects=9, images=9, by_split=[]) for name in categories]
    assert [severity for severity, text in said(categories=entries) if "one category" in text] == ["note"] * is_told

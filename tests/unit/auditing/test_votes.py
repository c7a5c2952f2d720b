import tracemalloc

import numpy as np
import pytest

from attrtrain.auditing.votes import attribute_notes, describe_votes


def described(values):
    return describe_votes(np.array(values, dtype=np.float32).reshape(-1, 1))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 1, 1, 0, np.nan], "decisions"),
        ([0, 1 / 3, 2 / 3, 1], "vote shares"),
        ([0, 0.33, 0.67, 0.5, 0.25, 0.2], "vote shares"),  # written with two digits
        (np.random.default_rng(0).random(500), "scores"),
        (np.random.default_rng(0).random(500).round(2), "scores"),
        ([0, 1 / 3, 0.5, 1] * 50 + [0.475] * 2, "vote shares"),  # up to one in a hundred may be a slip
        ([0, 1 / 3, 0.5, 1] * 50 + [0.475] * 3, "scores"),
        ([np.nan, np.nan], "none"),
    ],
)
def test_values_are_told_for_what_they_are(values, kind):
    assert described(values).kind == kind


def test_ties_are_counted_among_the_known():
    assert described([0.5, 0.5, 1, 0, np.nan]).at_half == 0.5


def test_values_are_listed_and_counted():
    votes = described([1, 0, 0, 0.5])
    assert votes.values == [0, 0.5, 1] and votes.distinct == 3
    assert len(described(np.random.default_rng(0).random(500)).values) == 24


@pytest.mark.parametrize(
    ("values", "kind", "times"), [(None, "scores", 10), (np.float32([0, 1 / 3, 0.5, 1]), "vote shares", 2)]
)
def test_looking_at_labels_holds_little_more_than_they_do(values, kind, times):
    """Each score compared with each share of up to 12 voters would take nearly two hundred times as much."""
    rng = np.random.default_rng(0)
    labels = rng.random((5000, 100), dtype=np.float32) if values is None else rng.choice(values, (5000, 100))
    tracemalloc.start()
    try:
        votes = describe_votes(labels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (votes.kind, votes.distinct) == (kind, len(set(labels.ravel().tolist())))
    assert votes.at_half == (labels == 0.5).mean()
    assert peak < times * labels.nbytes


def test_the_lowest_share_is_of_known_labels():
    assert attribute_notes(np.array([[1], [np.nan], [0.75]], dtype=np.float32)) == [
        ["never negative: no vote share is below 0.75"]
    ]


def test_attributes_that_teach_nothing_are_noted():
    u = np.nan
    labels = np.array([[u, 0, 0.4, 1, 0, 1], [u, 0, 0, 0.5, 1, u], [u, u, 0, 1, u, 0]], dtype=np.float32)
    assert attribute_notes(labels) == [
        ["always unknown"],
        ["never positive: always 0"],
        ["never positive: no vote share reaches 0.5, the highest is 0.4"],
        ["never negative: no vote share is below 0.5"],
        [],
        [],
    ]
    assert attribute_notes(np.zeros((0, 2), dtype=np.float32)) == [["always unknown"]] * 2

import numpy as np
import pytest

from attrtrain.auditing.relations import EXCEPTIONS, MIN_EXPECTED, find_relations


def relations_by_plain_loops(labels, names):
    """The rules read aloud: (kind, first, second) → (objects, exceptions, expected)."""
    found = {}
    for a, first in enumerate(names):
        for b, second in enumerate(names):
            pairs = [(x >= 0.5, y >= 0.5) for x, y in zip(labels[:, a], labels[:, b], strict=True) if x == x and y == y]
            if a == b or not pairs:
                continue
            count = {(p, q): pairs.count((p, q)) for p in (True, False) for q in (True, False)}
            p, q, n = sum(x for x, _ in pairs) / len(pairs), sum(y for _, y in pairs) / len(pairs), len(pairs)
            unequal, expected = count[True, False] + count[False, True], n * (p * (1 - q) + q * (1 - p))
            is_duplicate = False
            if unequal <= EXCEPTIONS * min(count[True, True], count[False, False]) and expected >= MIN_EXPECTED:
                is_duplicate = True
                if a < b:
                    found["duplicate", first, second] = (n, unequal, expected)
            equal = n - unequal
            rarer = min(count[True, False], count[False, True])
            if equal <= EXCEPTIONS * rarer and n - expected >= MIN_EXPECTED and a < b:
                found["complement", first, second] = (n, equal, n - expected)
            missing, by_chance = count[True, False], n * p * (1 - q)
            if missing <= EXCEPTIONS * count[True, True] and by_chance >= MIN_EXPECTED and not is_duplicate:
                found["implies", first, second] = (n, missing, by_chance)
    return found


@pytest.fixture
def related():
    """Attributes of which some say the same, one the opposite, one implies another, and coins."""
    rng = np.random.default_rng(0)
    coin = rng.random((600, 3)) < 0.4
    wet = coin[:, 0] & coin[:, 1]  # implies both
    almost = coin[:, 0] ^ (rng.random(600) < 0.002)
    labels = np.column_stack([coin, wet, coin[:, 0], ~coin[:, 2], almost]).astype(np.float32)
    labels[rng.random(labels.shape) > 0.9] = np.nan
    return labels, ["a", "b", "c", "a and b", "a again", "not c", "nearly a"]


def test_relations_are_those_of_plain_loops(related):
    labels, names = related
    result = find_relations(labels, names)
    got = {(r.kind, r.first, r.second): (r.objects, r.exceptions, r.expected) for r in result.examples}
    expected = relations_by_plain_loops(labels, names)
    assert got.keys() == expected.keys()
    for key, numbers in expected.items():
        assert got[key] == pytest.approx(numbers, abs=0.06)
    assert ("duplicate", "a", "a again") in got
    assert ("complement", "c", "not c") in got
    assert {("implies", "a and b", "a"), ("implies", "a and b", "b")} <= got.keys()
    assert (result.duplicates, result.complements, result.implied) == tuple(
        sum(key[0] == kind for key in expected) for kind in ("duplicate", "complement", "implies")
    )


@pytest.mark.parametrize(("exceptions", "is_related"), [(3, True), (4, False), (30, False)])
def test_one_exception_in_a_hundred_is_allowed(exceptions, is_related):
    """Of 1,000 objects 400 are `a`. Nearly all of these are `nearly`: 3 exceptions among 397, or 4 among 396. And 300
    are `some`, as are few others: 3 or 4 among 300.
    """
    row = np.arange(1000)
    a, nearly = row < 400, (row >= exceptions) & (row < 400)
    some = (row < 300) | (row >= 1000 - exceptions)
    labels = np.column_stack([a, nearly, ~nearly, some]).astype(np.float32)
    found = find_relations(labels, ["a", "nearly", "not nearly", "some"])
    kinds = {(one.kind, one.first, one.second) for one in found.examples}
    for relation in (("duplicate", "a", "nearly"), ("complement", "a", "not nearly"), ("implies", "some", "a")):
        assert (relation in kinds) == is_related, relation


def test_rare_attributes_and_coins_are_not_said_to_be_related():
    rng = np.random.default_rng(1)
    labels = (rng.random((500, 60)) < rng.choice([0.005, 0.02, 0.5, 0.98], 60)).astype(np.float32)
    assert find_relations(labels, [str(i) for i in range(60)]).examples == []


def test_pairs_that_are_never_known_together_are_not_related():
    labels = np.full((200, 2), np.nan, dtype=np.float32)
    labels[:100, 0], labels[100:, 1] = 1, 1
    assert find_relations(labels, ["a", "b"]).examples == []

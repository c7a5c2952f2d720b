from itertools import permutations

import numpy as np
import pytest
from report_data import drawn_predictions
from scipy.stats import fisher_exact

from attrtrain.report.confusion import find_confusion


def counted_by_loop(named, labels, i, j):
    """(errors, objects) where i is present, and where it is absent, for j known to be absent."""
    here = elsewhere = errors_here = errors_elsewhere = 0
    for row in range(len(labels)):
        if np.isnan(labels[row, [i, j]]).any() or labels[row, j] >= 0.5:
            continue
        if labels[row, i] >= 0.5:
            here += 1
            errors_here += named[row, j]
        else:
            elsewhere += 1
            errors_elsewhere += named[row, j]
    return errors_here, here, errors_elsewhere, elsewhere


def assert_rates_of_the_map_are_those_of_a_loop(found, named, labels):
    assert found.rates.shape == (len(found.rows), len(found.columns))
    for i, row in enumerate(found.rows):
        for j, column in enumerate(found.columns):
            errors, objects, _, _ = counted_by_loop(named, labels, row, column)
            if row == column or objects < 10:
                assert np.isnan(found.rates[i, j])
            else:
                assert found.rates[i, j] == pytest.approx(errors / objects)


@pytest.fixture
def drawn():
    predictions = drawn_predictions(objects=400, attributes=8)
    return predictions.logits >= 0, predictions.labels


def test_counts_are_those_of_a_plain_loop(drawn):
    named, labels = drawn
    found = find_confusion(named, labels, 0.5, top=30)
    assert found.pairs
    for pair in found.pairs:
        errors, objects, others_errors, others = counted_by_loop(named, labels, pair.present, pair.named)
        assert (pair.errors, pair.objects) == (errors, objects)
        assert pair.rate == pytest.approx(errors / objects)
        assert pair.elsewhere == pytest.approx(others_errors / others)
        pooled = (errors + others_errors) / (objects + others)
        deviation = np.sqrt(pooled * (1 - pooled) * (1 / objects + 1 / others))
        assert pair.z == pytest.approx((pair.rate - pair.elsewhere) / deviation)
        assert pair.z >= 3 and errors >= 5 and objects >= 10 and others >= 10


def test_an_object_of_which_the_other_attribute_is_unknown_counts_on_neither_side():
    """Wrongly named in half of the objects, whether the other one is present or absent, and never where that is
    unknown: there is no confusion of the two.
    """
    furry = np.repeat([1, 0, np.nan], [40, 40, 400])
    labels = np.stack([furry, np.zeros(480)], axis=1).astype(np.float32)
    named = np.zeros((480, 2), dtype=bool)
    named[:80:2, 1] = True
    assert find_confusion(named, labels, 0.5, top=5).pairs == []
    named[1:40:2, 1] = True  # in all where it is present, and in half where it is absent
    pair = find_confusion(named, labels, 0.5, top=5).pairs[0]
    assert (pair.present, pair.named, pair.errors, pair.objects, pair.rate, pair.elsewhere) == (0, 1, 40, 40, 1.0, 0.5)


@pytest.mark.parametrize(
    ("seed", "attributes", "named_by_mistake"),
    [(13, 3, 0.1), (44, 3, 0.1), (4, 16, 0.02), (7, 16, 0.02)],
)
def test_pairs_are_those_that_a_plain_loop_finds_clear(seed, attributes, named_by_mistake):
    """By Fisher's exact test of each pair, its p-value times the pairs that could have been told; the clearest first.
    Few objects: of three attributes, many pairs are just clear, or just not, and of sixteen most are not testable.
    """
    rng = np.random.default_rng(seed)
    known_share, shape = {3: 0.7, 16: 0.8}[attributes], (60, attributes)
    labels = np.where(rng.random(shape) < 1 - known_share, np.nan, rng.random(shape) < 0.4).astype(np.float32)
    named = rng.random(shape) < np.where(np.roll(labels, -1, axis=1) == 1, 0.6, named_by_mistake)
    possible, clear = 0, {}
    for i, j in permutations(range(attributes), 2):
        errors, objects, other_errors, others = counted_by_loop(named, labels, i, j)
        if min(objects, others) < 10 or errors + other_errors < 5:
            continue
        possible += 1
        pooled = (errors + other_errors) / (objects + others)
        deviation = np.sqrt(pooled * (1 - pooled) * (1 / objects + 1 / others))
        if errors >= 5 and errors / objects - other_errors / others >= 3 * deviation:
            counts = [[errors, objects - errors], [other_errors, others - other_errors]]
            clear[i, j] = (
                (errors / objects - other_errors / others) / deviation,
                fisher_exact(counts, alternative="greater").pvalue,
            )
    expected = [pair for pair, (z, p) in sorted(clear.items(), key=lambda one: -one[1][0]) if p * possible <= 0.05]
    assert [(pair.present, pair.named) for pair in find_confusion(named, labels, 0.5, top=30).pairs] == expected
    assert [(pair.present, pair.named) for pair in find_confusion(named, labels, 0.5, top=2).pairs] == expected[:2]
    assert_rates_of_the_map_are_those_of_a_loop(find_confusion(named, labels, 0.5, top=30), named, labels)


def test_the_built_in_confusion_comes_first(drawn):
    best = find_confusion(*drawn, 0.5, top=5).pairs[0]
    assert (best.present, best.named) == (4, 1)


def test_the_map_has_the_rates_of_its_rows_and_columns(drawn):
    found = find_confusion(*drawn, 0.5, top=30)
    assert found.rows and found.columns
    assert_rates_of_the_map_are_those_of_a_loop(found, *drawn)


@pytest.mark.parametrize("labels", [np.full((30, 3), np.nan), np.zeros((30, 3)), np.ones((30, 3)), np.zeros((0, 3))])
def test_without_anything_to_compare_there_are_no_pairs(labels):
    found = find_confusion(np.ones(labels.shape, bool), labels.astype(np.float32), 0.5, top=5)
    assert found.pairs == [] and found.rows == [] and found.rates.size == 0


def test_what_luck_shows_of_many_attributes_is_left_out():
    """A model that looks at nothing: without a correction for 6,320 pairs, 8 to 16 of them stand out."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels = np.where(rng.random((1500, 80)) < 0.5, np.nan, rng.random((1500, 80)) < 0.15).astype(np.float32)
        assert len(find_confusion(rng.random((1500, 80)) < 0.15, labels, 0.5, top=30).pairs) <= 1


def test_an_attribute_that_is_always_named_is_no_confusion():
    labels = np.random.default_rng(0).integers(0, 2, (200, 4)).astype(np.float32)
    assert find_confusion(np.ones((200, 4), bool), labels, 0.5, top=5).pairs == []

"""Known cells, packed, against the matrix they came from."""

import numpy as np
import pytest

from attrtrain.metrics.known_cells import KnownCells


def draw(dtype=np.float32, order="C", n=5000, a=37):
    """More rows and more columns than are turned at a time; attribute 3 has no known cell, attribute 4 knows all."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((n, a)) < 0.2, rng.choice([0, 0.25, 0.5, 1], (n, a)), np.nan)
    labels[:, 3], labels[:, 4] = np.nan, 1
    return np.asarray(labels, dtype=dtype, order=order)


def unpacked(known):
    """(N, A) vote shares, NaN = unknown."""
    labels = np.full((known.objects, known.attributes), np.nan, dtype=known.shares.dtype)
    for a in range(known.attributes):
        cells = known.of_attribute(a)
        assert (np.diff(known.rows[cells]) > 0).all()
        labels[known.rows[cells], a] = known.shares[cells]
    return labels


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_known_cell_is_there_once_whatever_lies_where_in_memory(dtype, order):
    labels = draw(dtype, order)
    known = KnownCells.of(labels, 0.5)
    assert len(known) == (~np.isnan(labels)).sum() and known.shares.dtype == dtype
    np.testing.assert_array_equal(unpacked(known), labels)
    np.testing.assert_array_equal(known.positive, known.shares >= 0.5)
    every_other = labels[::2, ::3]
    np.testing.assert_array_equal(unpacked(KnownCells.of(every_other, 0.5)), every_other)


@pytest.mark.parametrize("order", ["C", "F"])
def test_other_matrices_are_read_in_the_same_cells(order):
    labels = draw()
    known = KnownCells.of(labels, 0.5)
    scores = np.asarray(np.random.default_rng(1).normal(size=labels.shape), order=order)
    np.testing.assert_array_equal(known.gather(scores), scores.T[~np.isnan(labels.T)])
    one_for_all = np.broadcast_to(scores[0], scores.shape)
    np.testing.assert_array_equal(known.gather(one_for_all), one_for_all.T[~np.isnan(labels.T)])


def test_cells_are_counted_by_attribute_and_by_object():
    labels = draw()
    known, there, positive = KnownCells.of(labels, 0.5), ~np.isnan(labels), labels >= 0.5
    np.testing.assert_array_equal(known.counts, there.sum(axis=0))
    np.testing.assert_array_equal(known.count(known.positive), positive.sum(axis=0))
    np.testing.assert_array_equal(known.counts_by_object, there.sum(axis=1))
    np.testing.assert_array_equal(known.count_by_object(known.positive), positive.sum(axis=1))
    assert known.objects_with(np.array([3])) == 0
    assert known.objects_with(np.array([3, 5, 6])) == (there[:, 5] | there[:, 6]).sum()


def test_taking_objects_and_attributes_is_indexing():
    labels = draw()
    known = KnownCells.of(labels, 0.5)
    rows, columns = np.array([0, 1, 1, 7, 4999]), np.array([4, 3, 36, 0])  # rows may come again
    taken = known.take(rows, columns)
    assert (taken.objects, taken.attributes) == (5, 4)
    for place, column in enumerate(columns):
        cells = taken.of_attribute(place)
        there = ~np.isnan(labels[rows, column])
        assert taken.rows[cells].tolist() == np.flatnonzero(there).tolist()
        np.testing.assert_array_equal(taken.shares[cells], labels[rows, column][there])
        np.testing.assert_array_equal(taken.positive[cells], labels[rows, column][there] >= 0.5)


def test_unknown_may_count_as_negative():
    labels = draw()
    every = KnownCells.of(labels, 0.5).with_unknown_as_negative()
    np.testing.assert_array_equal(unpacked(every), np.nan_to_num(labels))
    np.testing.assert_array_equal(every.positive, np.nan_to_num(labels).T.ravel() > 0)  # any vote at all


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4, 3)])
def test_nothing_may_be_known(shape):
    known = KnownCells.of(np.full(shape, np.nan), 0.5)
    assert len(known) == 0 and known.counts.tolist() == [0] * shape[1]
    assert known.gather(np.zeros(shape)).shape == (0,) and known.counts_by_object.tolist() == [0] * shape[0]

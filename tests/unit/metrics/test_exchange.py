"""Photographs that trade places in a permutation test."""

import numpy as np
import pytest
from drawn_cells import cells_of

from attrtrain.metrics.exchange import shuffle_photographs, size_classes
from attrtrain.metrics.guessers import permutation_p
from attrtrain.metrics.measure import measure


def test_sizes_of_too_few_photographs_share_a_class():
    objects = np.array([1] * 30 + [2] * 12 + [3] * 4 + [9])
    assert size_classes(objects, 10).tolist() == [0] * 30 + [1] * 17
    assert size_classes(objects, 2).tolist() == [0] * 30 + [1] * 12 + [2] * 5
    assert size_classes(np.array([5, 1]), 2).tolist() == [0, 0]


@pytest.mark.parametrize("least", [1, 2, 3, 10])
@pytest.mark.parametrize("seed", range(10))
def test_classes_are_as_small_as_they_may_be(seed, least):
    """Beside a plain loop: a class ends as soon as it holds enough, if enough are left for another."""
    objects = np.random.default_rng(seed).geometric(0.15, 60)
    expected, number, held = {}, 0, 0
    for size in sorted(set(objects.tolist())):
        expected[size] = number
        held += (objects == size).sum()
        if held >= least and (objects > size).sum() >= least:
            number, held = number + 1, 0
    assert size_classes(objects, least).tolist() == [expected[size] for size in objects.tolist()]
    assert number > 1


def test_shuffled_photographs_trade_places_whole_with_their_like():
    photograph = np.repeat(np.arange(60), np.repeat([1, 2, 4], 20))  # 20 photographs of each size
    moved = 0
    for seed in range(20):
        rows = shuffle_photographs(photograph, np.random.default_rng(seed))
        assert sorted(rows) == list(range(len(photograph)))
        for place in range(60):
            (origin,) = set(photograph[rows[photograph == place]])
            assert (photograph == origin).sum() == (photograph == place).sum()
            moved += origin != place
    assert moved > 1000  # of 1,200


def test_photographs_of_rare_sizes_trade_places_too():
    photograph = np.repeat(np.arange(12), [1] * 2 + [2] * 3 + [3] * 4 + [5, 7, 9])
    orders = {tuple(shuffle_photographs(photograph, np.random.default_rng(seed))) for seed in range(20)}
    assert len(orders) == 20 and all(sorted(rows) == list(range(len(photograph))) for rows in orders)


def test_objects_of_a_photograph_are_shuffled_inside_it():
    photograph = np.repeat(np.arange(40), 5)
    rows = shuffle_photographs(photograph, np.random.default_rng(0)).reshape(40, 5)
    assert len({tuple(row - row.min()) for row in rows}) > 20


@pytest.mark.slow
@pytest.mark.parametrize("known", [1.0, 0.5])
@pytest.mark.parametrize(
    "objects",
    [lambda rng: np.full(60, 8), lambda rng: np.r_[np.ones(50, int), rng.integers(20, 60, 10)]],
    ids=["alike", "unequal"],
)
def test_models_without_skill_seldom_stand_out_however_clustered_photographs_are_and_whatever_is_known(objects, known):
    rng, small = np.random.default_rng(0), []
    for number in range(200):
        image = np.repeat(np.arange(60), objects(rng))

        def clustered(image=image):
            return rng.normal(size=(60, 4))[image] + 0.2 * rng.normal(size=(len(image), 4))

        labels = (clustered() > 0.5).astype(float)
        labels[rng.random(labels.shape) > known] = np.nan
        cells = cells_of(clustered(), labels, image_id=image)
        small.append(permutation_p(cells, measure(cells, 0.5), 39, number) <= 0.05)
    assert np.mean(small) < 0.1

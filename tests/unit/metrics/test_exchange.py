"""Photographs that trade places in a permutation test."""

import numpy as np
import pytest
from drawn_cells import cells_of

from attrtrain.metrics.baselines import shuffled
from attrtrain.metrics.exchange import by_size, size_classes, traded_orders
from attrtrain.metrics.guessers import permutation_p
from attrtrain.metrics.measure import measure


def test_sizes_of_too_few_photographs_share_a_class():
    objects = np.array([1] * 30 + [2] * 12 + [3] * 4 + [9])
    assert size_classes(objects, 10).tolist() == [0] * 30 + [1] * 17
    assert size_classes(objects, 2).tolist() == [0] * 30 + [1] * 12 + [2] * 5
    assert size_classes(np.array([5, 1]), 2).tolist() == [0, 0]


def test_the_scores_of_a_photograph_go_to_one_that_holds_as_many_objects():
    image = np.repeat(np.arange(46), np.random.default_rng(0).permutation([1] * 20 + [3] * 20 + [30] * 6))
    cells = cells_of(image[:, None].astype(float), np.zeros((len(image), 1)), image_id=image)
    onto, moved = by_size(image), 0
    for order in traded_orders(image, 20, 0):
        came_from = shuffled(cells, order, onto).scores[:, 0].astype(int)
        assert sorted(came_from) == sorted(image)
        for photograph in range(46):
            (origin,) = set(came_from[image == photograph])
            assert (image == origin).sum() == (image == photograph).sum()
            moved += origin != photograph
    assert moved > 800  # of 920


@pytest.mark.slow
def test_models_without_skill_seldom_stand_out_however_unequal_and_clustered_photographs_are():
    rng, small = np.random.default_rng(0), []
    for number in range(200):
        image = np.repeat(np.arange(60), np.r_[np.ones(50, int), rng.integers(20, 60, 10)])

        def clustered(image=image):
            return rng.normal(size=(60, 4))[image] + 0.2 * rng.normal(size=(len(image), 4))

        cells = cells_of(clustered(), (clustered() > 0.5).astype(float), image_id=image)
        small.append(permutation_p(cells, measure(cells, 0.5), 39, number) <= 0.05)
    assert np.mean(small) < 0.1

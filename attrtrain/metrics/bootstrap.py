"""Scores measured again on photographs drawn with replacement: objects of one photograph are alike, so drawing objects
would make scores look steadier than they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import Measured, rank_attributes
from attrtrain.metrics.overall import overall_scores
from attrtrain.metrics.parallel import each_attribute
from attrtrain.metrics.ranking import Ranking
from attrtrain.metrics.sums import Sums

_CELLS_AT_A_TIME = 2**20
_DRAWN_AT_A_TIME = 32  # replicates of which an object's weights fill a cache line or two
_REPLICATES_AT_A_TIME = 64  # in a matrix product, which with fewer would wait for memory
_WORK = 1_500_000_000  # known cells x replicates: some ten seconds of one core
_REPLICATES = (100, 1000)


@dataclass(frozen=True)
class Replicates:
    """Scores of R bootstrap replicates over so many photographs: overall keys (R,), average precision (R, A)."""

    images: int
    overall: dict[str, NDArray[np.float64]]
    average_precision: NDArray[np.float64]


def default_replicates(known_cells: int) -> int:
    """1000, and fewer, at least 100, where they would take long."""
    least, most = _REPLICATES
    return int(np.clip(_WORK // max(known_cells, 1), least, most))


def image_weights(images: int, replicates: int, seed: int) -> NDArray[np.uint8]:
    """(R, M) how often each photograph is drawn, when M of M are drawn with replacement."""
    rng = np.random.default_rng(seed)
    weights = np.empty((replicates, images), dtype=np.uint8)
    for row in weights:
        row[:] = np.minimum(np.bincount(rng.integers(0, images, images), minlength=images), 255)
    return weights


def resample(cells: JudgedSet, measured: Measured, weights: NDArray[np.uint8]) -> Replicates:
    """Measures again with each photograph counted as often as `weights` (R, M) say. Tuned thresholds and the choice of
    judged attributes stay as they are.
    """
    sums = Sums.of(cells, measured.decisions, _Resampled(cells, weights))
    average, auroc = resampled_rankings(cells, rank_attributes(cells), weights)
    return Replicates(cells.images, overall_scores(sums, average, auroc, measured.judged), average)


def resampled_rankings(
    cells: JudgedSet, rankings: Sequence[Ranking], weights: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, A) average precision and AUROC of each replicate."""
    at_a_time = max(_DRAWN_AT_A_TIME, _CELLS_AT_A_TIME // max(len(cells), 1))
    parts = []
    for start in range(0, len(weights), at_a_time):
        of_images = np.ascontiguousarray(weights[start : start + at_a_time].T, dtype=np.float32)
        of_objects = of_images.take(cells.image, axis=0)  # (N, B)
        drawn = partial(_resampled, rankings, of_objects)
        parts.append(np.array(each_attribute(drawn, len(rankings), of_objects.size)))  # (A, 2, B)
    whole = np.concatenate(parts, axis=2)
    return whole[:, 0].T, whole[:, 1].T


def _resampled(rankings: Sequence[Ranking], weights: NDArray[np.float32], column: int) -> NDArray[np.float64]:
    return np.array(rankings[column].resampled(weights))


@dataclass(frozen=True)
class _Resampled:
    """Objects of a judged set count as often as their photograph is drawn, `weights` (R, M)."""

    judged: JudgedSet
    weights: NDArray[np.uint8]

    def cells(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(R, A)."""
        known = self.judged.known
        of_images = np.empty((self.judged.images, known.attributes), dtype=np.float32)  # counts in it are exact
        for attribute in range(known.attributes):
            cells = known.of_attribute(attribute)
            images = self.judged.image[known.rows[cells][chosen[cells]]]
            of_images[:, attribute] = np.bincount(images, minlength=self.judged.images)
        return self._summed(of_images)

    def objects(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """(R, C)."""
        starts = np.searchsorted(self.judged.image, np.arange(self.judged.images))
        return self._summed(np.add.reduceat(matrix, starts, axis=0))  # a loss may be larger than single precision holds

    def _summed(self, of_images: NDArray[np.floating]) -> NDArray[np.float64]:
        """(R, C) sums (M, C) over the objects of each photograph, summed over photographs."""
        at_a_time = max(_REPLICATES_AT_A_TIME, _CELLS_AT_A_TIME // max(len(of_images), 1))
        return np.concatenate(
            [
                self.weights[start : start + at_a_time].astype(of_images.dtype) @ of_images
                for start in range(0, len(self.weights), at_a_time)
            ]
        ).astype(np.float64, copy=False)

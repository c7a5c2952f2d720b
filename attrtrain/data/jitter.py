"""Boxes that are a little off, as those of people and detectors are: the window that is cut out of a stored crop is
shifted and scaled.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.data.streams import Stream
from attrtrain.keyed_random import uniform


@dataclass(frozen=True)
class Jitter:
    """Shifts and scales windows, each sample's by a pure function of (seed, epoch, sample).

    Attributes:
        seed: of the run.
        share: a window's centre moves along each side by up to this share of it, either way, and each side is scaled by
            a factor of 1 - share to 1 + share; all four are uniform.
    """

    seed: int
    share: float

    def moved(
        self, windows: NDArray[np.int64], sizes: NDArray[np.int64], epoch: int, key: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The windows that are cut in this epoch, inside the stored crops: what would reach over a border is moved
        back, and is no larger than the crop.

        Args:
            windows: (B, 4) left, top, right, bottom, pixels.
            sizes: (B, 2) width and height of the stored crops.
            epoch: counts from 0.
            key: (B,) what stands for each sample (`BatchRequest.key`).
        """
        drawn = 2 * uniform(self.seed, epoch, key[:, None], Stream.JITTER, np.arange(4)) - 1  # (B, 4)
        sides = windows[:, 2:] - windows[:, :2]
        centres = windows[:, :2] + (0.5 + self.share * drawn[:, :2]) * sides
        scaled = np.minimum(sides * (1 + self.share * drawn[:, 2:]), sizes)
        near = np.clip(centres - scaled / 2, 0, sizes - scaled)
        first = np.minimum(np.rint(near), sizes - 1)
        last = np.maximum(np.rint(near + scaled), first + 1)
        return np.concatenate([first, last], axis=1).astype(np.int64)

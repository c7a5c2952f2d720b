"""What every test of the audit gives: an effect, and where it stands among the effects of shuffled data."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.01
"""A p-value of at most this counts as evidence: one set of coin flips in a hundred may look like more than it is."""


@dataclass(frozen=True)
class PermutationTest:
    """A permutation test.

    Attributes:
        effect: how far from what chance gives, in a unit that does not grow with the number of objects.
        p_value: of the effect, one-sided.
        null: (permutations,) float64, the effect in each shuffled data set.
    """

    effect: float
    p_value: float
    null: NDArray[np.float64]

    @property
    def detectable(self) -> float:
        """The effect that shuffled data exceed once in a hundred times: what is smaller could not have been found
        here.
        """
        return float(np.quantile(self.null, 1 - ALPHA))


def permutation_p(observed: float, null: NDArray[np.float64]) -> float:
    """The share of data sets, the observed one among them, whose effect reaches the observed one.

    Never 0, and at most `alpha` with probability `alpha` where nothing is to be found (Phipson & Smyth, "Permutation
    p-values should never be zero", 2010).
    """
    # Rounding may differ between equal data in another order.
    return float((1 + (null >= observed - 1e-12).sum()) / (1 + len(null)))

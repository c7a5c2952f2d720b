"""Predictions and labels of every object and attribute, compared cell by cell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from attrtrain.predictions import Predictions


@dataclass(frozen=True)
class Cells:
    """Arrays (N, A), rows and columns as in the predictions.

    Attributes:
        logits: by which cells are ranked: of probabilities, rounding makes many equal.
        named: where the model says that the attribute is there.
        present: where it is known to be there.
        absent: where it is known not to be there; a cell that is neither is unknown.
    """

    logits: NDArray[np.floating]
    named: NDArray[np.bool_]
    present: NDArray[np.bool_]
    absent: NDArray[np.bool_]

    @classmethod
    def of(cls, predictions: Predictions, positive_at: float, threshold: float) -> "Cells":
        """Compares predictions with labels.

        Args:
            positive_at: vote share from which an attribute counts as present.
            threshold: probability above which it counts as named, as in metrics.
        """
        logits, labels = predictions.logits, predictions.labels
        return cls(logits, logits > logit(threshold), labels >= positive_at, labels < positive_at)  # NaN compares false

    def take(self, rows: NDArray[np.int64]) -> "Cells":
        """The cells of some objects (K,)."""
        return Cells(self.logits[rows], self.named[rows], self.present[rows], self.absent[rows])

    @property
    def known(self) -> NDArray[np.bool_]:
        """Labelled, either way."""
        return self.present | self.absent

    @property
    def right(self) -> NDArray[np.bool_]:
        """Named and present."""
        return self.named & self.present

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Named, but known to be absent."""
        return self.named & self.absent

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Present, but not named."""
        return self.present & ~self.named

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Named where nobody labelled."""
        return self.named & ~self.known


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits, of any shape, as scores between 0 and 1."""
    scores: NDArray[np.float64] = expit(logits.astype(np.float64))
    return scores

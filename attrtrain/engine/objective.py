"""What a run makes small: its loss, with what the training split says about attributes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attrtrain.config.schema import TrainConfig
from attrtrain.data.reader import ShardSet
from attrtrain.losses import AttributeLoss, positive_weights
from attrtrain.metrics.baselines import TrainingRates


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss, and what it has to know of the training split.

    Attributes:
        loss: the configured one.
        rates: (C, A) float32 how frequent each attribute is in each kind of object, where the loss asks for it.
        row: (N,) the row of `rates` of each training object.
    """

    loss: AttributeLoss
    rates: NDArray[np.float32] | None = None
    row: NDArray[np.intp] | None = None

    @classmethod
    def of(cls, config: TrainConfig, shards: ShardSet, device: torch.device) -> "Objective":
        """The configured loss, with rates and weights counted in the training split."""
        weight = None
        if config.loss.positive_weight != 1:
            positives, negatives = map(torch.from_numpy, shards.counts(config.labels.positive_at))
            weight = positive_weights(positives, negatives, config.loss.positive_weight).to(device)
        loss = AttributeLoss(
            config.loss, config.labels.unknown, config.labels.selective_below, config.train.global_batch, weight
        )
        if config.labels.unknown != "selective":
            return cls(loss)
        category = np.array(shards.categories(), dtype=str)
        counts = TrainingRates.of(shards.labels(np.arange(len(shards))), category, config.labels.positive_at).counts
        return cls(loss, counts.category_rates, counts.row_of(category))

    def rates_of(self, index: Tensor) -> Tensor | None:
        """(B, A) float32 on the CPU: how frequent each attribute is among objects like these (B,); None where the loss
        does not ask.
        """
        if self.rates is None or self.row is None:
            return None
        return torch.from_numpy(self.rates[self.row[index.numpy()]])

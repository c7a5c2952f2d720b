"""Batches of crops → what a model says of them: the loop that annotating and describing share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attrtrain.engine.evaluate import EVALUATION_BATCH, filled_up
from attrtrain.errors import AttrtrainError
from attrtrain.inference.crops import CropBatch
from attrtrain.inference.predictor import Predictor
from attrtrain.shards.manifest import Failure

BATCH = EVALUATION_BATCH
"""Objects in a batch. Shorter ones are filled up as in an evaluation, so that an object's logits are the same in both,
to the bit.
"""


@dataclass(frozen=True)
class Scored:
    """What a model says of n objects.

    Attributes:
        rows: (n,) which of all the objects they are, rising.
        logits: (n, A) float32.
        features: (n, F) float32.
        failures: objects among them that have no crop, and why.
    """

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    failures: list[Failure]


def score_batches(
    predictor: Predictor, batches: Iterable[CropBatch], categories: NDArray[Any], together: int
) -> Iterator[Scored]:
    """Runs the model over batches of at most `BATCH` crops of objects of some categories (N,) and yields the results of
    every `together` batches.

    Outputs stay on the device until then, so that it need not wait for the next crops.

    Raises:
        AttrtrainError: an output is not finite.
    """
    pending: list[CropBatch] = []
    logits: list[torch.Tensor] = []
    features: list[torch.Tensor] = []

    def taken() -> Scored:
        scored = Scored(
            np.concatenate([batch.rows for batch in pending]),
            torch.cat([torch.zeros(0, len(predictor.names), device=predictor.device), *logits]).cpu().numpy(),
            torch.cat([torch.zeros(0, predictor.feature_width, device=predictor.device), *features]).cpu().numpy(),
            [failure for batch in pending for failure in batch.failures],
        )
        for values in (pending, logits, features):
            values.clear()
        if not np.isfinite(scored.logits).all():
            raise AttrtrainError("the model's output is not finite for some objects; its training has diverged")
        return scored

    for batch in batches:
        if len(batch.rows):
            images = filled_up(batch.images)
            names = [*categories[batch.rows].tolist(), *[""] * (len(images) - len(batch.rows))]
            outputs = predictor(images, names)
            logits.append(outputs.logits[: len(batch.rows)])
            features.append(outputs.features[: len(batch.rows)])
        pending.append(CropBatch(batch.rows, torch.zeros(0), batch.failures))  # the pictures are no longer needed
        if len(pending) == together:
            yield taken()
    if pending:
        yield taken()

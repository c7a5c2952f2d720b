"""What a model is trained to make small."""

import torch
from torch import Tensor
from torch.nn import functional


def masked_bce(
    logits: Tensor, target: Tensor, known: Tensor, denominator: float | Tensor, weight: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy on vote shares over known cells.

    Args:
        logits: (B, A).
        target: (B, A) vote shares in [0, 1]; whatever stands in unknown cells does not count.
        known: (B, A) bool.
        denominator: what the sum is divided by. The known cells of the whole step, over ranks and micro-batches, make the step's gradient that of the mean
            over them, however the step was cut up.
        weight: (B, 1) of the rows; None where all weigh 1.

    Returns:
        Scalar float32.
    """
    cells = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    if weight is not None:
        cells = cells * weight
    return torch.where(known, cells, 0.0).sum() / denominator

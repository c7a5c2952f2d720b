"""What a model is trained to make small: a loss of each known cell, and what an unknown one stands for.

A target t is a vote share in [0, 1]. Every loss has a part for a positive, l⁺, and one for a negative, l⁻; a cell costs
t·l⁺ + (1 − t)·l⁻, the loss expected of a voter.
With p = σ(logit):

    bce     l⁺ = −log p                      l⁻ = −log(1 − p)
    focal   l⁺ = −(1 − p)^γ log p            l⁻ = −p^γ log(1 − p)           Lin et al. 2017, arXiv 1708.02002, without α
    asl     l⁺ = −(1 − p)^γ⁺ log p           l⁻ = −q^γ⁻ log(1 − q), q = max(p − clip, 0)
            no gradient flows through what the logarithm is multiplied by   Ridnik et al. 2021, arXiv 2009.14119

l⁺ is multiplied by the attribute's positive weight.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attrtrain.config.schema import LossConfig, UnknownLabels

# Zhang et al. 2021, arXiv 2112.07368: λ of the Hill loss; from which probability, and after how many epochs, SPLC takes
# an unknown cell for a positive.
HILL_LAMBDA = 1.5
SPLC_ABOVE = 0.6
SPLC_AFTER_EPOCHS = 1


@dataclass(frozen=True, eq=False)
class Cells:
    """What is known of a micro-batch, one entry an object and attribute.

    Attributes:
        target: (B, A) float32 vote shares, 0 where unknown.
        known: (B, A) bool.
        epoch: counts from 0.
        step_known: known cells of the whole step, over ranks and micro-batches.
        rates: (B, A) how frequent each attribute is among objects of that kind; only `selective` asks for it.
        weight: (B, 1) of each object; None where all weigh 1.
    """

    target: Tensor
    known: Tensor
    epoch: int
    step_known: int
    rates: Tensor | None = None
    weight: Tensor | None = None


@dataclass(frozen=True, eq=False)
class AttributeLoss:
    """The configured loss.

    Attributes:
        settings: which loss, and its constants.
        unknown: what an unknown cell stands for. `mask`: nothing. `negative`: a negative. `selective`: a negative as
            sure as the attribute's rate is low, where that rate is at most `selective_below`, else nothing (after
            Ben-Baruch et al. 2022, arXiv 2110.10955, with rates counted instead of learnt). `hill`: costs (λ − p) p²,
            which falls again where the model is sure of a positive. `splc`: a negative in the first epoch; later, where
            p is above 0.6, a positive.
        selective_below: rates up to this one.
        step_objects: objects of a whole step, over ranks and micro-batches.
        positive_weight: (A,) float32 on the device of the logits, or None for 1.
    """

    settings: LossConfig
    unknown: UnknownLabels = "mask"
    selective_below: float = 0.0
    step_objects: int = 1
    positive_weight: Tensor | None = None

    def __call__(self, logits: Tensor, cells: Cells) -> Tensor:
        """The loss of a micro-batch as its part of the step's: the mean over the step's known cells, or over all its
        cells where unknown ones count.

        Args:
            logits: (B, A).
            cells: what is known of them.

        Returns:
            Scalar float32.
        """
        logits = logits.float()
        if self.unknown == "mask":  # not even from a logit that is no number may anything come back
            logits = torch.where(cells.known, logits, 0.0)
        positive, negative = self._parts(logits)
        target = cells.target + self.settings.smoothing * (0.5 - cells.target)
        costs = torch.where(
            cells.known,
            target * positive + (1 - target) * negative,
            self._unknown(logits, target, positive, negative, cells),
        )
        if cells.weight is not None:
            costs = costs * cells.weight
        return costs.sum() / self.denominator(cells)

    def denominator(self, cells: Cells) -> float:
        """What the sum over cells is divided by."""
        if self.unknown == "mask":
            return max(cells.step_known, 1)
        return self.step_objects * cells.known.shape[1]

    def _parts(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What each cell costs as a positive, and as a negative: (B, A) each."""
        log_p, log_q = functional.logsigmoid(logits), functional.logsigmoid(-logits)  # of a positive, of a negative
        positive, negative = -log_p, -log_q
        settings = self.settings
        match settings.name:
            case "bce":
                pass
            case "focal":  # powers by way of logarithms: those of a probability that underflows have no gradient
                positive, negative = (
                    positive * (settings.gamma * log_q).exp(),
                    negative * (settings.gamma * log_p).exp(),
                )
            case "asl":
                shifted = (logits.sigmoid() - settings.clip).clamp(min=0)
                if settings.clip:
                    # 1 - q, but exact where p rounds to 1 and a small clip is lost in it.
                    negative = -((-logits).sigmoid() + settings.clip).clamp(max=1).log()
                positive = positive * (settings.gamma_positive * log_q).exp().detach()
                negative = negative * shifted.pow(settings.gamma_negative).detach()
        return positive if self.positive_weight is None else positive * self.positive_weight, negative

    def _unknown(self, logits: Tensor, target: Tensor, positive: Tensor, negative: Tensor, cells: Cells) -> Tensor:
        """(B, A) what each cell costs if it is unknown; `target` is that of a negative there."""
        match self.unknown:
            case "mask":
                return torch.zeros_like(logits)
            case "negative":
                return target * positive + (1 - target) * negative
            case "selective":
                if (rates := cells.rates) is None:
                    raise ValueError("selective needs the rates of the attributes")
                return torch.where(rates <= self.selective_below, rates * positive + (1 - rates) * negative, 0.0)
            case "hill":
                p = logits.sigmoid()
                return (HILL_LAMBDA - p) * p.square()
            case "splc":
                is_positive = (cells.epoch >= SPLC_AFTER_EPOCHS) & (logits.detach().sigmoid() > SPLC_ABOVE)
                return torch.where(is_positive, positive, negative)


def positive_weights(positives: Tensor, negatives: Tensor, bound: float) -> Tensor:
    """(A,) float32 known negatives / known positives (A,) of the training split, held to [1 / bound, bound]; 1 where
    there are none of either.
    """
    both = (positives > 0) & (negatives > 0)
    return torch.where(both, negatives / positives.clamp(min=1), 1.0).clamp(1 / bound, bound).float()

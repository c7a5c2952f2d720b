"""Trained models, ready for use: crops → logits and features, in the arithmetic they were evaluated in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attrtrain.data.decode import framed_crop
from attrtrain.device import device_type, to_device
from attrtrain.inference.members import (
    PLAIN,
    Pass,
    View,
    mirror_notes,
    read_members,
    shared_card,
    shared_fingerprint,
)
from attrtrain.launcher import prepare_cpu
from attrtrain.shards.crop import Box, cut
from attrtrain.wording import counted

UNTUNED = 0.5


@dataclass(frozen=True)
class Outputs:
    """What is said of B crops.

    Attributes:
        logits: (B, A) float32, means over all models and views.
        features: (B, F) float32, the pooled output of the first model's backbone.
    """

    logits: Tensor
    features: Tensor


class Predictor:
    """A model with its card, or several that answer together, on their device.

    Attributes:
        card: what is known about it; of several, the first one's with what holds for all (`shared_card`).
        members: the models.
        names: (A) attribute names, in the order of the logits.
        device: where it computes.
        precision: of the arithmetic, the first model's: as it was evaluated, or what this device computes in where it
            lacks that.
    """

    def __init__(
        self,
        model: str | Path | Sequence[str | Path],
        device: str | torch.device | None = None,
        views: Sequence[View] = (PLAIN,),
    ) -> None:
        """Reads models.

        Args:
            model: a bundle folder, a run directory or a repository `hf:owner/name`, or several whose logits are
                averaged.
            device: where to; by default a GPU where there is one.
            views: ways to look at each crop, the plain one first.

        Raises:
            HubError: a repository cannot be fetched.
            WeightsError: there is no usable bundle.
            ConfigError: the models do not fit together.
        """
        self.device = torch.device(device if device is not None else device_type())
        if self.device.type == "cpu":
            prepare_cpu()
        self.members = read_members([model] if isinstance(model, str | Path) else model, self.device)
        self._views = views
        self._passes = [Pass(member, view).eval() for member in self.members for view in views]
        self.card = shared_card(self.members)
        self.precision = self.members[0].precision
        self.names = tuple(self.card.vocabulary.names)

    @property
    def feature_width(self) -> int:
        """F, the number of features of a crop."""
        return self.members[0].model.feature_width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the logits; equal only for the same models and views."""
        return shared_fingerprint(self.members, self._views)

    @property
    def thresholds(self) -> list[float]:
        """(A) the score from which on each attribute is said to be present; one half where the bundle knows none."""
        return [UNTUNED if value is None else value for value in self.tuned]

    @property
    def threshold_note(self) -> str:
        """A line about thresholds that were not tuned for what is used, "" where there are none."""
        if untuned := sum(value is None for value in self.tuned):
            of_all = f"of {len(self.names):,} attributes"
            which = (
                "no attribute has a"
                if untuned == len(self.names)
                else f"{counted(untuned, f'{of_all} has', f'{of_all} have')} no"
            )
            return (
                f"{which} threshold tuned on labels; such an attribute counts as present from a score of {UNTUNED:g} on"
            )
        if len(self._passes) > 1:
            return "thresholds are those of the models by themselves; answering together, others may serve better"
        return ""

    @property
    def mirror_notes(self) -> list[str]:
        """Lines about models that do not say what they were trained to say of mirrored crops, where they are shown
        some.
        """
        return mirror_notes(self.members, self._views)

    @property
    def tuned(self) -> list[float | None]:
        """(A) the threshold that was tuned for each attribute, None where there is none."""
        return self.card.thresholds or [None] * len(self.names)

    @property
    def categories(self) -> list[str]:
        """What the models whose heads look at the kind of object tell apart, sorted; none where no head does."""
        return sorted({name for member in self.members for name in member.model.categories})

    def __call__(self, images: Tensor, categories: Sequence[str] | None = None) -> Outputs:
        """Computes the outputs, on this predictor's device.

        Args:
            images: crops (B, 3, H, W) uint8 as `crop` gives them.
            categories: (B) what the objects are, for heads that read it; "" or None where that is not known, or was in
                no training object.
        """
        images = to_device(images, self.device)
        logits, told = [], None
        with torch.inference_mode():
            for one in self._passes:
                with one.arithmetic(self.device):
                    said, features = one.outputs(images, categories)  # (B, A), (B, F)
                    logits.append(said.float())
                told = features.float() if told is None else told
        assert told is not None
        return Outputs(logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0), told)

    def crop(self, image: NDArray[np.uint8], box: Box) -> Tensor:
        """One object (3, image_px, image_px) uint8 of an upright RGB photograph (H, W, 3), cut, stored and decoded as
        sharding and training do, so pixels agree.

        Args:
            image: as `attrtrain.shards.image_decode.load_image` gives it.
            box: x, y, width, height in pixels.

        Raises:
            LeftOutError: the box is empty or lies outside the photograph.
        """
        return framed_crop(cut(image, box, False, self.card.crop), self.card.image_px, self.card.framing)

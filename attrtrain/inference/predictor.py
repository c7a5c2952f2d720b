"""One bundle, ready for use: crops → logits and features, in the arithmetic it was evaluated in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attrtrain.bundle import ModelCard, bundle_fingerprint, default_device, locate_bundle, read_bundle
from attrtrain.data.decode import decode_crop
from attrtrain.runtime import autocast, resolve_precision
from attrtrain.shards.crop import Box, cut

UNTUNED = 0.5


@dataclass(frozen=True)
class Outputs:
    """What a model says of B crops.

    Attributes:
        logits: (B, A) float32.
        features: (B, F) float32, the backbone's pooled output, from which the head computes the logits.
    """

    logits: Tensor
    features: Tensor


class Predictor:
    """A model with its card, on its device.

    Attributes:
        card: what is known about it.
        names: (A) attribute names, in the order of the logits.
        device: where it computes.
        precision: of the arithmetic: as it was evaluated, or what this device computes in where it lacks that.
    """

    def __init__(self, path: str | Path, device: str | torch.device | None = None) -> None:
        """Reads the bundle of a bundle folder, a run directory or a repository `hf:owner/name`.

        Args:
            device: where to; by default a GPU where there is one.

        Raises:
            HubError: the repository cannot be fetched.
            WeightsError: there is no usable bundle.
        """
        self._folder = locate_bundle(path)
        model, self.card = read_bundle(self._folder)
        self.device = torch.device(device) if device is not None else default_device()
        self.precision = _usable(self.card, self.device)
        self.names = tuple(self.card.vocabulary.names)
        self._layout = torch.channels_last if self.card.channels_last else torch.contiguous_format
        self._model = model.to(self.device).to(memory_format=self._layout).eval()

    @property
    def feature_width(self) -> int:
        """F, the number of features of a crop."""
        return next(part for part in self._model.head.modules() if isinstance(part, nn.Linear)).in_features

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the logits; equal only for the same model."""
        return bundle_fingerprint(self._folder, self.card)

    @property
    def thresholds(self) -> list[float]:
        """(A) the score from which on each attribute is said to be present; one half where the bundle knows none."""
        return [UNTUNED if value is None else value for value in self.tuned]

    @property
    def threshold_note(self) -> str:
        """A line about attributes without a tuned threshold, "" where there are none."""
        if not (untuned := sum(value is None for value in self.tuned)):
            return ""
        which = (
            "no attribute has a" if untuned == len(self.names) else f"{untuned} of {len(self.names)} attributes have no"
        )
        return f"{which} threshold tuned on labels; such an attribute counts as present from a score of {UNTUNED:g} on"

    @property
    def tuned(self) -> list[float | None]:
        """(A) the threshold that was tuned for each attribute, None where there is none."""
        return self.card.thresholds or [None] * len(self.names)

    def __call__(self, images: Tensor) -> Outputs:
        """Computes the outputs, on this predictor's device, for crops (B, 3, H, W) uint8 as `crop` and `decode` give them."""
        images = images.to(self.device, non_blocking=True).contiguous(memory_format=self._layout)
        with torch.inference_mode(), autocast(self.device, self.precision):
            features = self._model.backbone(self._model.normalise(images))  # (B, F)
            logits = self._model.head(features)  # (B, A)
        return Outputs(logits.float(), features.float())

    def crop(self, image: NDArray[np.uint8], box: Box) -> Tensor:
        """One object (3, image_px, image_px) uint8 of an upright RGB photograph (H, W, 3), cut, stored and decoded as sharding and training do, so pixels agree.

        Args:
            image: as `attrtrain.shards.crop.load_image` gives it.
            box: x, y, width, height in pixels.

        Raises:
            LeftOutError: the box is empty or lies outside the photograph.
        """
        return decode_crop(cut(image, box, False, self.card.crop).jpeg, self.card.image_px)

    def decode(self, jpegs: Sequence[bytes]) -> Tensor:
        """Stored crops → (B, 3, image_px, image_px) uint8.

        Raises:
            ValueError: one is no JPEG.
        """
        return torch.stack([decode_crop(jpeg, self.card.image_px) for jpeg in jpegs])


def _usable(card: ModelCard, device: torch.device) -> Literal["no", "fp16", "bf16"]:
    """The card's precision where the device computes in it; for a mixed one that it lacks, the device's own choice."""
    if device.type == "cuda" or card.precision == "no":
        return resolve_precision(card.precision, device.type)
    return resolve_precision("auto", device.type)

"""Trained models that answer together, and the views they take of a crop: mirrored, or in other sizes.

Logits are averaged. In probabilities that is a geometric mean, renormalised (a logarithmic opinion pool, Heskes 1998);
unlike a mean of probabilities it can be computed where scores round to 0 or 1. Averaging over views is test-time
augmentation (Krizhevsky et al. 2012).

What a mirrored picture shows on the left is on the right. A model that tells sides says so of the mirrored view, and
its logits of attributes whose names differ in nothing but left and right are swapped back. One that was trained on
mirrored crops with the labels of the unmirrored ones has learnt to say the same of both, and its logits stay: swapping
would give each side half of the other's.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from attrtrain.bundle import ModelCard, bundle_fingerprint, locate_bundle, read_bundle
from attrtrain.config.schema import TIMM
from attrtrain.data.meaning import swapped_columns
from attrtrain.device import to_device
from attrtrain.errors import ConfigError
from attrtrain.models.network import AttributeModel
from attrtrain.models.timm_backbone import refusal
from attrtrain.runtime import autocast, usable_precision


@dataclass(frozen=True)
class View:
    """One way to look at a crop.

    Attributes:
        flip: mirrored, left to right.
        scale: its side, as a multiple of the one that the model was trained with.
    """

    flip: bool = False
    scale: float = 1.0


PLAIN = View()


def views_of(flip: bool, scales: Sequence[float]) -> tuple[View, ...]:
    """Every scale, the model's own first, as it is and mirrored where asked for."""
    sides = dict.fromkeys((1.0, *scales))
    return tuple(View(mirrored, scale) for scale in sides for mirrored in ((False, True) if flip else (False,)))


@dataclass(frozen=True)
class Member:
    """One model of those that answer together, on the device.

    Attributes:
        name: as it was given.
        folder: its bundle.
        model: the network.
        card: what is known about it.
        precision: of its arithmetic: as it was evaluated, or what the device computes in where it lacks that.
    """

    name: str
    folder: Path
    model: AttributeModel
    card: ModelCard
    precision: Literal["no", "fp16", "bf16"]

    @property
    def mirrored_columns(self) -> tuple[int, ...]:
        """(A) which of its logits of a mirrored crop tells of each attribute; empty where that is the same one for
        all.
        """
        return swapped_columns(self.card.vocabulary.names) if self.card.mirrored in ("never", "swapped") else ()

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout it computes in."""
        return torch.channels_last if self.card.channels_last else torch.contiguous_format


def read_members(paths: Sequence[str | Path], device: torch.device) -> list[Member]:
    """Reads models that are to answer together.

    Args:
        paths: bundles, run directories, or repositories `hf:owner/name`.

    Raises:
        HubError: a repository cannot be fetched.
        WeightsError: one is no usable model.
        ConfigError: one is given twice, by whatever path, or they have other attributes or look at other crops.
    """
    members: list[Member] = []
    for path in paths:
        folder = locate_bundle(path)
        if same := [other.name for other in members if other.folder.samefile(folder)]:
            raise ConfigError(f"--model {path}: is the model of --model {same[0]}; give it once")
        model, card = read_bundle(folder)
        members.append(Member(str(path), folder, model.to(device), card, usable_precision(card.precision, device.type)))
        members[-1].model.to(memory_format=members[-1].layout)
    first = members[0]
    for other in members[1:]:
        if other.card.vocabulary.fingerprint != first.card.vocabulary.fingerprint:
            raise ConfigError(
                f"--model {other.name}: has other attributes than {first.name}; only models of the same answer together"
            )
        if other.card.crop.context != first.card.crop.context or other.card.positive_at != first.card.positive_at:
            raise ConfigError(
                f"--model {other.name}: was trained with other crops or other labels than {first.name} (context {other.card.crop.context:g} and "
                f"{first.card.crop.context:g}, positive_at {other.card.positive_at:g} and {first.card.positive_at:g}); only models of the same answer together"
            )
        # Crops are made once, as the first has them; how they are resized makes little difference.
        if (
            other.card.framing.model_copy(update={"interpolation": first.card.framing.interpolation})
            != first.card.framing
        ):
            told = [member.card.framing.told(member.card.crop) for member in (other, first)]
            raise ConfigError(
                f"--model {other.name}: sees other parts of crops than {first.name} ({told[0]}; {told[1]}); only models of the same answer together"
            )
    return members


def shared_card(members: Sequence[Member]) -> ModelCard:
    """The card of the first, with what holds for all: the largest input size, every untrained attribute, and thresholds
    at the means of their log odds.
    """
    card = members[0].card
    if len(members) == 1:
        return card
    thresholds = None
    if any(member.card.thresholds is not None for member in members):
        nothing = [None] * len(card.vocabulary.names)
        columns = zip(*(member.card.thresholds or nothing for member in members), strict=True)
        thresholds = [_shared(column) for column in columns]
    untrained = {name for member in members for name in member.card.untrained}
    return card.model_copy(
        update={
            "image_px": max(member.card.image_px for member in members),
            "untrained": [name for name in card.vocabulary.names if name in untrained],
            "thresholds": thresholds,
        }
    )


def shared_fingerprint(members: Sequence[Member], views: Sequence[View]) -> str:
    """SHA-256 of all that decides the logits; equal only for the same models and views. That of a model by itself is
    its bundle's.
    """
    single = [bundle_fingerprint(member.folder, member.card) for member in members]
    if len(single) == 1 and tuple(views) == (PLAIN,):
        return single[0]
    seen = [f"{view.flip} {view.scale!r}" for view in views]
    flips = any(view.flip for view in views)
    swapping = [f"{number} swaps" for number, member in enumerate(members) if flips and member.mirrored_columns]
    told = "\n".join([*single, *seen, *swapping])
    return hashlib.sha256(told.encode()).hexdigest()


def mirror_notes(members: Sequence[Member], views: Sequence[View]) -> list[str]:
    """Lines about models that are shown mirrored crops, tell sides by their attributes' names, and do not say whether
    they were trained to.
    """
    if not any(view.flip for view in views) or not swapped_columns(members[0].card.vocabulary.names):
        return []
    return [
        f"{member.name}: its bundle is of a version that did not say how it was trained on mirrored crops; its scores of left and right on them are averaged as they are"
        for member in members
        if member.card.mirrored is None
    ]


class Pass(nn.Module):
    """One model's look at crops through one view."""

    def __init__(self, member: Member, view: View) -> None:
        super().__init__()
        self.model = member.model
        self._member, self._view = member, view
        self._side = max(1, round(view.scale * member.card.image_px))
        columns = member.mirrored_columns if view.flip else ()
        self._columns = torch.tensor(columns, device=member.model.mean.device) if columns else None
        if view.scale != 1 and member.card.architecture.backbone.startswith(TIMM):
            _require_side(member, self._side, view.scale)

    def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
        """Crops (B, 3, S, S) uint8 → logits (B, A) float32. Crops of another size than this view's are resized,
        bilinear with antialiasing.

        Args:
            images: the crops.
            category: (B,) int64 codes of this model.
        """
        with self.arithmetic(images.device):
            logits: Tensor = self.model(self._seen(images), category)
        return self._of_the_crop(logits.float())

    def outputs(self, images: Tensor, names: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        """Crops (B, 3, S, S) uint8 of objects of some categories (B) → logits (B, A) and pooled features (B, F), in the
        arithmetic of the context.
        """
        codes = (
            None if names is None or not self.model.categories else to_device(self.model.codes(names), images.device)
        )
        logits, features = self.model.outputs(self._seen(images), codes)
        return self._of_the_crop(logits), features

    def _of_the_crop(self, logits: Tensor) -> Tensor:
        """Logits (B, A) of what was seen as those of the crops themselves."""
        return logits if self._columns is None else logits[:, self._columns]

    def _seen(self, images: Tensor) -> Tensor:
        """Crops as this view shows them."""
        if images.shape[-1] != self._side:
            images = transforms.resize(images, [self._side, self._side], antialias=True)
        if self._view.flip:
            images = images.flip(-1)
        return images.contiguous(memory_format=self._member.layout)

    def arithmetic(self, device: torch.device) -> torch.autocast:
        """The context in which this model computes."""
        return autocast(device, self._member.precision)


def _require_side(member: Member, side: int, scale: float) -> None:
    """Refuses pictures of a size that a network cannot take which was built for one size."""
    if reason := refusal(member.model, side):
        raise ConfigError(
            f"--tta-scales {scale:g}: {member.name} ({member.card.architecture.backbone}) takes no pictures of {side} x {side} pixels ({reason})"
        )


def _shared(thresholds: Sequence[float | None]) -> float | None:
    """One attribute's threshold from those of all models: the mean of their log odds."""
    known = [value for value in thresholds if value is not None]
    if max(known, default=0.0) >= 1:  # what no training object of one of them had is never said to be present
        return 1.0
    if len(known) < len(thresholds):
        return None
    if len(set(known)) == 1:
        return known[0]
    if min(known) <= 0:
        return 0.0
    odds = [math.log(value / (1 - value)) for value in known]
    return 1 / (1 + math.exp(-sum(odds) / len(odds)))

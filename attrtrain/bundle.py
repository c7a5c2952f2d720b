"""The artefact people use: a model with all that is needed to apply it, in two files without code.

bundle/
  weights.safetensors     the network's state dict, float32
  model.json              ModelCard: architecture, attributes, input size, what it was trained on and how well it did
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from attrtrain import __version__, hub
from attrtrain.config.schema import MOST_HIDDEN, Head, Mirroring, Precision
from attrtrain.contract import Contract, first_fault, to_json
from attrtrain.device import device_type
from attrtrain.errors import ConfigError, LabelError, WeightsError
from attrtrain.files import atomic_folder, legible, sha256_of
from attrtrain.framing import Framing
from attrtrain.models.network import IMAGE_MEAN, IMAGE_STD, AttributeModel, build_network
from attrtrain.models.plain import model_from_tensors
from attrtrain.models.weights import read_tensors, savable
from attrtrain.run_layout import BUNDLE, BUNDLES, CONFIG
from attrtrain.shards.manifest import CropSettings, VocabularyRecord
from attrtrain.wording import first_line

WEIGHTS, CARD = "weights.safetensors", "model.json"

_Positive = Annotated[float, Field(gt=0)]


class Architecture(Contract):
    """Arguments of `build_network`.

    Attributes:
        backbone: a ResNet of torchvision's, or `timm:NAME`.
        mean: (3) that is taken from RGB in [0, 1] before the backbone. Here, so that another version of timm cannot
            change it; ImageNet's in bundles older than this field.
        std: (3) that is then divided by, likewise.
        categories: what the category head tells apart, in the order of their codes; empty for other heads.
    """

    backbone: str
    head: Head
    hidden: Annotated[int, Field(ge=1, le=MOST_HIDDEN)]
    dropout: Annotated[float, Field(ge=0, le=1)]
    mean: tuple[float, float, float] = IMAGE_MEAN
    std: tuple[_Positive, _Positive, _Positive] = IMAGE_STD
    categories: list[str] = Field(default_factory=list)


class ModelCard(Contract):
    """What is known about a model besides its weights.

    Attributes:
        image_px: side of the square that crops are squashed to.
        crop: how the crops it was trained on were cut and stored.
        framing: what of such a crop it sees, and how that fills the square; all of it, squashed, in bundles older than
            this field.
        positive_at: vote share that counted as present.
        precision: arithmetic it was evaluated in.
        data_fingerprint: of the shards it was trained on.
        selected_on: split whose scores chose this epoch, "" where unknown.
        untrained: attributes without one known label in training, whose scores mean nothing; empty too in bundles older
            than this field.
        thresholds: (A) the score from which on each attribute is said to be present: where its F1 was highest on
            `selected_on`. None for an attribute that has too few labels there, 1 for one that no training object had;
            None for a model of which nothing is known. Since schema version 2.
        mirrored: what training did with mirrored crops and their labels, which decides what the attributes of a
            mirrored view are; None in bundles older than this field.
        metrics: of its evaluation, such as val map and prior_map; None where nothing could be judged.
    """

    schema_version: Literal[1, 2] = 2
    attrtrain_version: str = __version__
    architecture: Architecture
    vocabulary: VocabularyRecord
    image_px: Annotated[int, Field(ge=1, le=2**14)]
    crop: CropSettings
    framing: Framing = Field(default_factory=Framing)
    positive_at: float
    precision: Precision
    channels_last: bool
    data_fingerprint: str
    selected_on: str = ""
    untrained: list[str] = Field(default_factory=list)
    thresholds: list[Annotated[float, Field(ge=0, le=1)] | None] | None = None
    mirrored: Mirroring | None = None
    metrics: dict[str, float | None]

    @model_validator(mode="after")
    def _has_a_vocabulary(self) -> Self:
        try:
            fits = self.vocabulary.vocabulary().fingerprint == self.vocabulary.fingerprint
        except LabelError as error:
            raise ValueError(str(error)) from None
        if not fits:
            raise ValueError("the vocabulary's fingerprint is of other attributes")
        return self

    @model_validator(mode="after")
    def _has_a_threshold_for_each_attribute(self) -> Self:
        if self.thresholds is not None and len(self.thresholds) != len(self.vocabulary.names):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.vocabulary.names)} attributes")
        return self


def save_bundle(folder: Path, tensors: dict[str, Tensor], card: ModelCard) -> None:
    """Writes a bundle, replacing the one that is there only once the new one is whole.

    Raises:
        WeightsError: the disk is full or cannot be written; the bundle before it is as it was.
    """
    try:
        with atomic_folder(folder) as partial:
            save_file(savable(tensors), partial / WEIGHTS)
            (partial / CARD).write_bytes(to_json(card))
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise WeightsError(f"{folder}: {reason}; free space and run the same command again to go on") from None


def require_bundle(path: Path) -> Path:
    """The bundle folder behind a bundle or run directory. Raises WeightsError where there is neither."""
    for candidate in (path, path / BUNDLE):
        if (candidate / CARD).is_file():
            return candidate
    if not path.is_dir():
        what = (
            "a file, and only attrtrain.load_model takes plain weights" if path.exists() else "no such file or folder"
        )
        raise WeightsError(f"{path}: {what}; give a run directory or a bundle")
    unfinished = " (a run writes its bundle after its first evaluation)" if (path / CONFIG).exists() else ""
    raise WeightsError(
        f"{path}: no bundle here, nor in a bundle folder below{unfinished}; give a run directory or a bundle"
    )


def locate_bundle(path: str | Path) -> Path:
    """The bundle folder of a bundle, a run directory, or a repository `hf:owner/name`, which is fetched.

    Raises:
        HubError: the repository cannot be fetched.
        WeightsError: there is none.
    """
    return require_bundle(hub.fetch(str(path), (CARD, WEIGHTS)) if hub.is_repository(path) else Path(path))


def model_name(path: str | Path) -> str:
    """What people call a model: a repository as it is given, a run or a bundle by its folder; a run's own bundle has
    the run's name, that of an epoch the epoch's too.
    """
    if hub.is_repository(path):
        return str(path)
    here = Path(path).resolve()
    if here.parent.name == BUNDLES:
        return legible(f"{here.parent.parent.name}-{here.name}")
    return legible(here.parent.name if here.name == BUNDLE else here.name)


def read_card(folder: Path) -> ModelCard:
    """Reads the card of a bundle folder. Raises WeightsError if it is damaged, or a newer attrtrain's."""
    try:
        return ModelCard.model_validate_json((folder / CARD).read_bytes(), strict=True)
    except OSError as error:
        raise WeightsError(f"{folder / CARD}: {error.strerror or error}") from None
    except ValidationError as error:
        raise WeightsError(
            f"{folder / CARD}: damaged, or written by a newer attrtrain ({first_fault(error)})"
        ) from None


def read_bundle(path: str | Path) -> tuple[AttributeModel, ModelCard]:
    """Reads the bundle of a bundle folder, a run directory or a repository `hf:owner/name`, onto the CPU, ready to
    predict.

    Raises:
        HubError: the repository cannot be fetched.
        WeightsError: there is none, or its files are damaged or do not belong together.
    """
    folder = locate_bundle(path)
    card = read_card(folder)
    try:
        model = build_network(
            **card.architecture.model_dump(), attributes=len(card.vocabulary.names), image_px=card.image_px
        )
    except (ConfigError, KeyError) as error:  # a timm that lacks the backbone, or a card that names none
        raise WeightsError(f"{folder / CARD}: its network cannot be built ({first_line(error)})") from None
    try:
        model.load_state_dict(read_tensors(folder / WEIGHTS))
    except RuntimeError as error:
        raise WeightsError(f"{folder / WEIGHTS}: does not fit {CARD} ({str(error).splitlines()[-1].strip()})") from None
    return model.eval(), card


def bundle_fingerprint(folder: Path, card: ModelCard) -> str:
    """SHA-256 over the weights in a bundle folder and what of its card decides logits: of two bundles equal only where
    they are the same model.
    """
    decisive = {"architecture", "vocabulary", "image_px", "crop", "precision", "channels_last"}
    if card.framing != Framing():  # so that bundles older than the field keep their fingerprint
        decisive.add("framing")
    # As before there were mean and std, so that what an older version began can be gone on with.
    plain = (card.architecture.mean, card.architecture.std) == (IMAGE_MEAN, IMAGE_STD)
    newer = {*({"mean", "std"} if plain else ()), *(() if card.architecture.categories else {"categories"})}
    way = {"interpolation"} if card.framing.interpolation == "bilinear" else set()
    told = card.model_dump_json(include=decisive, exclude={"architecture": newer, "framing": way})
    return hashlib.sha256(f"{sha256_of(folder / WEIGHTS)}\n{told}".encode()).hexdigest()


def load_model(
    path: str | Path, num_attributes: int | None = None, device: str | torch.device | None = None
) -> tuple[AttributeModel, torch.device]:
    """Loads a trained model, ready to predict.

    Args:
        path: a bundle, a run directory, a repository of the Hugging Face Hub as `hf:owner/name` or
            `hf:owner/name@revision`, or a state dict (.pth, .pt, .safetensors) of attrtrain's network or of a
            torchvision ResNet whose `fc` is a linear layer or layers.
        num_attributes: for a plain state dict, the number of logits it is expected to have.
        device: where to; by default a GPU where there is one.

    Returns:
        The model in evaluation mode and the device it is on. It takes images (B, 3, H, W), uint8 or in [0, 1], and
        gives logits (B, A).

    Raises:
        HubError: a repository cannot be fetched.
        WeightsError: nothing usable is there, or it has another number of attributes.
    """
    path = Path(path)
    if path.is_file():
        model = model_from_tensors(read_tensors(path), str(path))
    else:
        model, _ = read_bundle(path)
    found = model.attributes
    if num_attributes is not None and found != num_attributes:
        raise WeightsError(f"{path}: the model has {found} attributes, not {num_attributes}")
    chosen = torch.device(device if device is not None else device_type())
    return model.to(chosen).eval(), chosen

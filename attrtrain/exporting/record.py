"""What an exported file says of itself."""

from typing import Literal

from pydantic import Field

from attrtrain import __version__
from attrtrain.bundle import ModelCard
from attrtrain.contract import Contract
from attrtrain.exporting.graph import ExportedNetwork
from attrtrain.framing import MEAN_COLOUR
from attrtrain.models.category_head import NONE

KEY = "attrtrain"  # of ONNX's metadata_props
EXTRA_FILE = "attrtrain.json"  # of torch.export's extra files

Arithmetic = Literal["float32", "int8"]


class ExportRecord(Contract):
    """All that is needed to use the file, as JSON inside it.

    Attributes:
        arithmetic: int8 where weights and activations are quantised; inputs and outputs are the same.
        input: what to give, for people.
        category_input: what to give beside it, for people; "" where the network looks at crops alone.
        categories: names of the codes from 1 on; none where the network looks at crops alone.
        no_category: the code of objects whose category is not known, or is not among these.
        outputs: what comes out, for people, by name.
        attributes: names in the order of the outputs' columns.
        image_px: side of the square the network sees.
        resizes: whether pictures of any size are resized to it inside.
        mean, std: the normalisation inside, of channels in [0, 1].
        card: the bundle's model.json: vocabulary with its fingerprint, crop settings, the data's fingerprint, metrics.
    """

    schema_version: Literal[1] = 1
    attrtrain_version: str = __version__
    arithmetic: Arithmetic
    input: str
    category_input: str = ""
    categories: list[str] = Field(default_factory=list)
    no_category: int = NONE
    outputs: dict[str, str]
    attributes: list[str]
    image_px: int
    resizes: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    card: ModelCard

    def to_json(self) -> str:
        """The record, without a word of categories where the network reads none."""
        silent = {"category_input", "categories", "no_category"}
        return self.model_dump_json(exclude=None if self.categories else silent)


def record_of(network: ExportedNetwork, card: ModelCard, arithmetic: Arithmetic) -> ExportRecord:
    """The record of one exported file."""
    side = network.image_px
    way = f"{network.interpolation} with antialiasing"
    bars = f"padded with RGB {MEAN_COLOUR} to a square and resized" if network.fit == "pad" else "squashed"
    if network.resize:
        size = f"of any size, which is {bars} to {side} x {side} inside, {way}"
    else:
        size = f"of {side} x {side} pixels, {bars} to that, {way}"
    if card.framing.context is not None:
        size += f", with a context of {card.framing.context:g} of the box's sides"
    categories = card.architecture.categories
    told = f"category: int64 (batch,); {NONE} for an object whose category is not known, else its place among `categories`, counted from 1"
    return ExportRecord(
        arithmetic=arithmetic,
        category_input=told if categories else "",
        categories=categories,
        input=f"images: uint8 RGB (batch, 3, height, width) {size}; one object's crop each, normalised inside",
        outputs={
            "logits": f"float32 (batch, {len(card.vocabulary.names)})",
            "scores": "their sigmoid, in (0, 1)",
        },
        attributes=card.vocabulary.names,
        image_px=side,
        resizes=network.resize,
        mean=card.architecture.mean,
        std=card.architecture.std,
        card=card,
    )

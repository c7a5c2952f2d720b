"""What is exported: uint8 pictures in, for a head that reads them the objects' categories too, logits and scores
out.
"""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from attrtrain.config.schema import Fit, Interpolation
from attrtrain.framing import MEAN_COLOUR
from attrtrain.models.network import AttributeModel

INPUT, CATEGORY, OUTPUTS = "images", "category", ("logits", "scores")

# Added before rounding down. Where a resize lands between two levels, which is common because scales are fractions,
# runtimes would otherwise round by the last bit of their sums, each in its own way.
_TIE = 0.5 + 2.0**-12


class ExportedNetwork(nn.Module):
    """The network as it is exported, normalisation included.

    Without `resize` the input is uint8 RGB (B, 3, image_px, image_px). With it (B, 3, H, W) of any size, which is
    brought to the square inside, as `fit` and `interpolation` say. A network whose head reads categories has a second
    input: their codes (B,) int64.
    """

    def __init__(
        self,
        model: AttributeModel,
        image_px: int,
        resize: bool,
        fit: Fit = "squash",
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.fit = fit
        self.interpolation = interpolation
        self.model = model
        self.image_px = image_px
        self.resize = resize

    def forward(self, images: Tensor, category: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, A) and scores (B, A), their sigmoid."""
        logits = self.model(self.resized(images) if self.resize else images, category)
        return logits, logits.sigmoid()

    def resized(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) uint8 of any size → (B, 3, image_px, image_px) uint8."""
        whole = padded_to_square(images) if self.fit == "pad" else images
        return squash_as_floats(whole, self.image_px, self.interpolation)


def padded_to_square(images: Tensor) -> Tensor:
    """(B, 3, H, W) with the bars of `Framing.fitted`: (B, 3, S, S) float32 in levels of 0 to 255, S the larger of H and
    W.
    """
    height, width = images.shape[2:]
    side = torch.sym_max(height, width)
    above, beside = (side - height) // 2, (side - width) // 2
    # Runtimes pad with one value for all channels.
    mean = torch.tensor(MEAN_COLOUR, dtype=torch.float32).view(1, 3, 1, 1)
    bars = (beside, side - width - beside, above, side - height - above)
    return functional.pad(images.float() - mean, bars) + mean  # type: ignore[arg-type]  # sizes of a captured program are symbols


def squash_as_floats(images: Tensor, image_px: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """Resizes levels (B, 3, H, W) to (B, 3, image_px, image_px) uint8 by operations that every runtime has.

    Where a crop shrinks, training resizes with torch's uint8 kernel, which works as Pillow's: first along the width,
    rounded to whole levels, then along the height, in 16-bit fixed point. The same two passes in floating point agree
    with it but for one level in a few pixels of a thousand; in a single pass one pixel in six would differ. Where a
    crop grows, training rounds once, and a pixel may be one level off.
    """
    wide = _levels(images.float(), images.shape[2], image_px, interpolation)
    return _levels(wide, image_px, image_px, interpolation).to(torch.uint8)


def _levels(images: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Resized and rounded to whole levels."""
    resized = functional.interpolate(images, (height, width), mode=interpolation, antialias=True, align_corners=False)
    rounded = torch.floor(resized + _TIE)
    return rounded.clamp(0, 255) if interpolation == "bicubic" else rounded  # which overshoots at edges


def export_program(network: ExportedNetwork) -> ExportedProgram:
    """Captures the network, on the CPU in evaluation mode, for any batch size and, where it resizes, any picture
    size.
    """
    side = network.image_px
    # Sizes of an example must differ from each other and from 1, or they are taken for constants.
    example = torch.zeros((2, 3, side + 3, side + 5) if network.resize else (2, 3, side, side), dtype=torch.uint8)
    batch = Dim("batch", min=1)
    sizes = {0: batch} | ({2: Dim("height", min=1), 3: Dim("width", min=1)} if network.resize else {})
    given, shapes = [example], {INPUT: sizes}
    if network.model.categories:
        given.append(torch.tensor([0, 1]))
        shapes[CATEGORY] = {0: batch}
    program = torch.export.export(network.eval(), tuple(given), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that exported, of no use elsewhere
    return program

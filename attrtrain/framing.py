"""What of a stored crop the network sees, and how that fills its square. Training, evaluation and every use of a model
go through this.
"""

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from attrtrain.config.schema import Fit, Interpolation
from attrtrain.contract import Contract
from attrtrain.errors import ConfigError
from attrtrain.shards.manifest import CropSettings

MEAN_COLOUR = (124, 116, 104)
"""RGB of what is filled in: ImageNet's mean, which normalisation turns into about 0."""

# Pixels; the index holds boxes in single precision, which is finer than this in crops of up to 1,024 px.
_ROUNDING = 1e-4


class Framing(Contract):
    """How a stored crop becomes the picture that is resized to the network's square.

    Attributes:
        context: picture kept around the box on each side, as a share of its width and height, at most what the crop was
            stored with; None for all that is stored.
        fit: squash resizes the picture to a square whatever its sides; pad first adds bars of `MEAN_COLOUR` on both
            sides, so that shapes stay as they are.
        interpolation: how it is resized, with antialiasing.
    """

    context: Annotated[float, Field(ge=0)] | None = None
    fit: Fit = "squash"
    interpolation: Interpolation = "bilinear"

    @classmethod
    def within(
        cls, stored: CropSettings, context: float | None, fit: Fit, interpolation: Interpolation = "bilinear"
    ) -> "Framing":
        """The framing that a configuration means for crops stored so.

        Raises:
            ConfigError: more context is asked for than is stored.
        """
        if context is not None and context > stored.context:
            raise ConfigError(
                f"data.context: {context:g} is more than the {stored.context:g} that the shards store; lower it, or shard with --context {context:g}"
            )
        return cls(context=None if context == stored.context else context, fit=fit, interpolation=interpolation)

    @property
    def is_plain(self) -> bool:
        """Whether the picture is the whole crop, as it is."""
        return self.context is None and self.fit == "squash"

    def windows(self, boxes: ArrayLike, sizes: ArrayLike) -> NDArray[np.int64]:
        """Which part of each stored crop is shown.

        The box is widened by the context and cut off at the crop's border, and pixels that are touched are kept whole,
        as when a crop is cut out of a photograph (`attrtrain.shards.crop.cut`). A box that reaches over the
        photograph's border counts as far as it lies inside, because no more of it is known.

        Args:
            boxes: (B, 4) x, y, width, height of the object inside the stored crop, pixels.
            sizes: (B, 2) width and height of the stored crop.

        Returns:
            (B, 4) left, top, right, bottom: whole pixels, right and bottom one past the last.
        """
        limits = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
        if self.context is None:
            return np.concatenate([np.zeros_like(limits), limits], axis=1)
        # Single precision, as the index has it, so that a crop just cut and one that was stored are treated alike.
        box = np.asarray(boxes, dtype=np.float32).astype(np.float64).reshape(-1, 4)
        beside = self.context * box[:, 2:]
        near = np.floor(box[:, :2] - beside + _ROUNDING)
        far = np.ceil(box[:, :2] + box[:, 2:] + beside - _ROUNDING)
        near = np.clip(near, 0, limits - 1)
        return np.concatenate([near, np.clip(far, near + 1, limits)], axis=1).astype(np.int64)

    def shown(self, pixels: NDArray[np.uint8], window: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The picture (h, w, 3) that is resized: a crop's pixels (H, W, 3) in a window (4,) left, top, right, bottom,
        as `fitted` gives them.
        """
        left, top, right, bottom = window.tolist()
        return self.fitted(pixels[top:bottom, left:right])

    def fitted(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture (H, W, 3) as it is, or with bars that make it a square. Where these cannot be equally wide, the
        first is a pixel narrower.
        """
        height, width = pixels.shape[:2]
        if self.fit == "squash" or height == width:
            return np.ascontiguousarray(pixels)
        side = max(height, width)
        square = np.empty((side, side, 3), dtype=np.uint8)
        square[:] = MEAN_COLOUR
        above, beside = (side - height) // 2, (side - width) // 2
        square[above : above + height, beside : beside + width] = pixels
        return square

    def told(self, stored: CropSettings) -> str:
        """For people, such as `context 0.1 of a box's sides, padded to a square`."""
        context = stored.context if self.context is None else self.context
        return f"context {context:g} of a box's sides, " + (
            "squashed to a square" if self.fit == "squash" else "padded to a square"
        )

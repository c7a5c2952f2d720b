"""Does the exported file compute what PyTorch computes? Asked of every export, before it gets its name."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attrtrain.data.decode import decode, squashed
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ExportError, ImageError, LeftOutError
from attrtrain.exporting.graph import ExportedNetwork
from attrtrain.framing import Framing
from attrtrain.shards.crop import cut, whole_picture
from attrtrain.shards.image_decode import load_image
from attrtrain.shards.manifest import CropSettings

CROPS = 64
# Of logits. Sums in another order differ by some 1e-6. A file that resizes may also round a pixel to the level beside,
# where a sum lands between two: how much that is depends on the network, and it happens in few crops, while a file that
# resizes in another way differs in nearly all.
TOLERANCE, TOLERANCE_RESIZING, _TOLERANCE_ROUNDED = 1e-3, 1e-2, 1e-1
_ROUNDED_OF = 16  # crops: in one of them a pixel may be
_BATCHES = (1, 3, 17)  # a file whose batch size is fixed fails


@dataclass(frozen=True)
class Agreement:
    """How far logits are apart.

    Attributes:
        crops: that were compared.
        largest: difference between the file and PyTorch, on the same input.
        usual: the largest in all crops but those few in which a pixel may have been rounded otherwise; `largest` where
            the file does not resize.
        tolerance: what the usual one may be.
        resizing: largest and mean difference that resizing inside the file makes to resizing as training does; None
            where it does not resize.
    """

    crops: int
    largest: float
    usual: float
    tolerance: float
    resizing: tuple[float, float] | None

    def require(self) -> None:
        """Raises:
        ExportError: they are further apart than the tolerance, or one of them is no number.
        """
        most = self.tolerance if self.resizing is None else _TOLERANCE_ROUNDED
        if not (self.usual <= self.tolerance and self.largest <= most):
            raise ExportError(
                f"the exported model's logits differ from PyTorch's by {self.largest:.3g} on {self.crops} crops, more than {self.tolerance:g}; nothing was written"
            )


def compare(network: ExportedNetwork, exported: Callable[..., Tensor], crops: Sequence[Tensor]) -> Agreement:
    """Compares an exported file with the network it was made from.

    Args:
        network: on the CPU, in evaluation mode.
        exported: images, and codes of categories where the network reads them → logits, computed by the file.
        crops: (3, H, W) uint8 each, of any sizes. They are said to be of every category in turn, and of none. Where
            there are too few for a batch of each size, they come again.
    """
    crops = list(itertools.islice(itertools.cycle(crops), max(len(crops), sum(_BATCHES))))
    differences, resizing = [], []
    with torch.inference_mode():
        for group, codes in zip(_groups(crops), _codes(network, len(crops)), strict=True):
            framing = Framing(fit=network.fit)
            usual = torch.stack(
                [squashed(framing.fitted(_as_read(crop)), network.image_px, network.interpolation) for crop in group]
            )
            trained = expected = network.model(usual, *codes)
            if network.resize:  # crops of different sizes make no batch
                inside = torch.cat([network.resized(crop[None]) for crop in group])
                expected = network.model(inside, *codes)
                singly = (
                    exported(crop[None], *(code[row : row + 1] for code in codes)) for row, crop in enumerate(group)
                )
                logits = torch.cat(list(singly))
            else:
                logits = exported(usual, *codes)
            differences.append((logits - expected).abs().amax(dim=1))
            resizing.append((expected - trained).abs())
    largest, _ = torch.cat(differences).sort(descending=True)  # NaN counts as largest
    return Agreement(
        crops=len(crops),
        largest=float(largest[0]),
        usual=float(largest[len(crops) // _ROUNDED_OF if network.resize else 0]),
        tolerance=TOLERANCE_RESIZING if network.resize else TOLERANCE,
        resizing=(float(torch.cat(resizing).max()), float(torch.cat(resizing).mean())) if network.resize else None,
    )


def _codes(network: ExportedNetwork, count: int) -> list[tuple[Tensor, ...]]:
    """What is given to the network beside each group of crops: codes of categories, or nothing where it reads none. The
    last categories come first, where codes that are off by one show.
    """
    codes = -torch.arange(count) % (len(network.model.categories) + 1)
    groups = _groups(list(codes))
    return [(torch.stack(list(group)),) if network.model.categories else () for group in groups]


def _groups(crops: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Crops in groups of the sizes of `_BATCHES`, in turn."""
    start = 0
    for size in itertools.cycle(_BATCHES):
        if start >= len(crops):
            return
        yield crops[start : start + size]
        start += size


def spread(available: int, wanted: int) -> list[int]:
    """Up to `wanted` positions, evenly spread over `available`."""
    return [int(place) for place in np.linspace(0, available - 1, min(available, wanted))]


def crops_of_shards(shards: ShardSet, framing: Framing) -> list[Tensor]:
    """Some stored crops (3, H, W), spread over the split, as far as the network sees them.

    Raises:
        ShardError: one cannot be read.
    """
    crops = []
    chosen = np.array(spread(len(shards), CROPS), dtype=np.int64)
    sizes = np.stack([shards.column("width", chosen), shards.column("height", chosen)], axis=1)
    windows = framing.windows(shards.column("box", chosen), sizes)
    for position, (left, top, right, bottom) in zip(chosen.tolist(), windows.tolist(), strict=True):
        try:
            crops.append(_pixels(shards.jpeg(position))[:, top:bottom, left:right])
        except ValueError as error:
            raise shards.damaged(position, str(error)) from None
    return crops


def crops_of_photographs(paths: Sequence[Path], settings: CropSettings) -> list[Tensor]:
    """Whole photographs as crops (3, H, W), stored and read back as sharding does.

    Raises:
        ImageError: one cannot be read.
    """
    crops = []
    for path in paths:
        if not path.is_file():
            raise ImageError(f"--check {path}: neither shards nor a photograph")
        try:
            image = load_image(path)
            crops.append(_pixels(cut(image, whole_picture(image), False, settings).jpeg))
        except LeftOutError as error:
            raise ImageError(str(error)) from None
    return crops


def _as_read(crop: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3), as decoding gives it."""
    return np.ascontiguousarray(crop.permute(1, 2, 0).numpy())


def noise_crops(image_px: int) -> list[Tensor]:
    """Drawn noise (3, H, W), where nobody gave pictures: it exercises every operation, but activations are not those of
    photographs.
    """
    draw = torch.Generator().manual_seed(0)
    sides = [
        (image_px, image_px),
        (image_px * 3 // 5, image_px),
        (image_px + 7, image_px),
        (image_px * 3 + 1, image_px * 2 + 1),
    ]
    return [torch.randint(0, 256, (3, *sides[turn % 4]), dtype=torch.uint8, generator=draw) for turn in range(32)]


def _pixels(jpeg: bytes) -> Tensor:
    return torch.from_numpy(decode(jpeg)).permute(2, 0, 1)

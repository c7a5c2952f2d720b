"""Augmentation of a whole batch on its device, from parameters that are a pure function of (seed, epoch, sample), or of
(seed, epoch, step) where all of a step shares them.

What stands for a sample in these keys is `Batch.key`: its number, or another one each further time that an epoch shows
it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from attrtrain.config.schema import DataConfig, Policy
from attrtrain.data.loader import Batch
from attrtrain.data.meaning import swapped_columns
from attrtrain.data.policies import ToDevice, draw_operations, operated
from attrtrain.data.streams import Stream
from attrtrain.data.warp import warped
from attrtrain.errors import ConfigError
from attrtrain.framing import MEAN_COLOUR
from attrtrain.keyed_random import uniform


@dataclass(frozen=True)
class Augmentation:
    """What is done to training batches. The fields are those of `DataConfig`; by default nothing is done.

    Attributes:
        seed: of the run.
        flip: share of crops that are mirrored.
        rotate: largest angle, degrees.
        scales: sides of the network's input as multiples of the crops' own, one for each step.
        policy: a random operation of TrivialAugment, or two of RandAugment, on each crop.
        erase: share of crops in which a rectangle is erased.
        mixup: parameter of mixup's Beta distribution; 0 mixes nothing.
        cutmix: the same of CutMix. Where both are given, a crop is treated by either with equal probability.
        swaps: for each attribute, the one whose label it takes on mirrored crops; empty where labels stay.
    """

    seed: int = 0
    flip: float = 0.0
    rotate: float = 0.0
    scales: tuple[float, ...] = ()
    policy: Policy = "none"
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    swaps: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: DataConfig, seed: int, names: Sequence[str]) -> "Augmentation":
        """What a configuration asks for, where the attributes have those names.

        Raises:
            ConfigError: labels are to be swapped, and no two names differ in nothing but left and right.
        """
        swaps = swapped_columns(names) if config.flip_swaps else ()
        if config.flip_swaps and not swaps:
            raise ConfigError(
                "data.flip_swaps: no two attributes have names that differ in nothing but left and right, so there is nothing to swap"
            )
        return cls(
            seed=seed,
            flip=config.flip,
            rotate=config.rotate,
            scales=tuple(config.scales),
            policy=config.augment,
            erase=config.erase,
            mixup=config.mixup,
            cutmix=config.cutmix,
            swaps=swaps,
        )


@dataclass(frozen=True)
class AugmentedBatch:
    """What the network is trained on.

    Attributes:
        images: (B, 3, S, S) uint8.
        target: (B, A) float32 vote shares.
        known: (B, A) bool.
        own_share: (B, 1) float32, how much of each image is its own, the rest being its partner's (`partners`); None
            where nothing is mixed.
        columns: (B, A) int64, the attribute whose label stands in each column of a sample; None where each has its own.
    """

    images: Tensor
    target: Tensor
    known: Tensor
    own_share: Tensor | None = None
    columns: Tensor | None = None

    def loss(self, loss_of: Callable[[Callable[[Tensor], Tensor], Tensor | None], Tensor]) -> Tensor:
        """The loss against the labels of the images, each weighted by its share of the image; so a cell that is unknown
        for one of two mixed objects still counts for the other.

        Args:
            loss_of: the loss against the labels of some objects, with weights of rows (B, 1), None where all weigh 1.
                Which objects, says a function that takes what is known of the batch's own (B, ...), such as `target`,
                and gives that of theirs.
        """
        if self.own_share is None:
            return loss_of(_own, None)
        return loss_of(_own, self.own_share) + loss_of(partners, 1 - self.own_share)


def _own(rows: Tensor) -> Tensor:
    return rows


def augmented(batch: Batch, settings: Augmentation, step: int, to_device: ToDevice) -> AugmentedBatch:
    """A batch as the network is trained on it.

    Args:
        batch: on the device.
        settings: what is done.
        step: optimizer steps before this one, over the whole run.
        to_device: brings what was drawn to the batch's device.
    """
    key = batch.key
    flips = draw_flips(settings.seed, batch.epoch, key, settings.flip)
    flipped = to_device(flips)
    images, target, known = apply_flips(batch.image, flipped), batch.target, batch.known
    columns = None
    if settings.swaps:
        mirrored = to_device(torch.tensor(settings.swaps))
        columns = torch.where(flipped[:, None], mirrored, torch.arange(len(settings.swaps), device=mirrored.device))
        target, known = target.gather(1, columns), known.gather(1, columns)
    if settings.policy != "none":
        rounds = draw_operations(settings.seed, batch.epoch, key, settings.policy, images.shape[-1])
        fill = to_device(mean_colour())
        for operation, amount in zip(*rounds, strict=True):
            images = operated(images, operation, amount, fill, to_device)
    if settings.rotate:
        angles = draw_angles(settings.seed, batch.epoch, key, settings.rotate)
        images = rotated(images, to_device(angles), to_device(mean_colour()))
    if settings.erase:
        rectangles = draw_erased(settings.seed, batch.epoch, key, settings.erase, images.shape[-1])
        erased = inside(to_device(rectangles), images.shape[-1])
        images = torch.where(erased, to_device(mean_colour()).to(torch.uint8), images)
    own_share = None
    if settings.mixup or settings.cutmix:
        mix = draw_mixing(settings.seed, batch.epoch, key, settings.mixup, settings.cutmix, images.shape[-1])
        images = mixed(images, to_device(mix.blend), to_device(mix.rectangles))
        own_share = to_device(mix.own_share)
    if settings.scales:
        images = resized(images, draw_scale(settings.seed, batch.epoch, step, settings.scales))
    return AugmentedBatch(images, target, known, own_share, columns)


def mean_colour() -> Tensor:
    """`MEAN_COLOUR` as (1, 3, 1, 1) float32, on the CPU."""
    return torch.tensor(MEAN_COLOUR, dtype=torch.float32).view(1, 3, 1, 1)


def draw_flips(seed: int, epoch: int, key: NDArray[np.int64], share: float) -> Tensor:
    """Which samples (B,) are mirrored in this epoch: (B,) bool, each with probability `share`."""
    return torch.from_numpy(uniform(seed, epoch, key, Stream.FLIP) < share)


def apply_flips(images: Tensor, flips: Tensor) -> Tensor:
    """Mirrors the chosen images (B, 3, H, W) left to right; `flips` is (B,) bool on the same device."""
    return torch.where(flips[:, None, None, None], images.flip(-1), images)


def draw_angles(seed: int, epoch: int, key: NDArray[np.int64], most: float) -> Tensor:
    """The angle of each sample (B,) in this epoch: (B,) float32 degrees, uniform between -`most` and `most`."""
    return torch.from_numpy((2 * uniform(seed, epoch, key, Stream.ROTATION) - 1) * most).float()


def rotated(images: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Rotates images about their centres, bilinear; what comes in from outside is `fill`.

    Args:
        images: (B, 3, H, W) uint8.
        degrees: (B,) float32, counter-clockwise.
        fill: (1, 3, 1, 1) float32, levels.
    """
    height, width = images.shape[2:]
    cosine, sine = torch.cos(degrees * (math.pi / 180)), torch.sin(degrees * (math.pi / 180))
    # From where each pixel of the result is taken, in coordinates that run from -1 to 1 along either side.
    rows = (
        [cosine, -sine * (height / width), torch.zeros_like(sine)],
        [sine * (width / height), cosine, torch.zeros_like(sine)],
    )
    places = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (B, 2, 3)
    return warped(images, places, fill)


def draw_erased(seed: int, epoch: int, key: NDArray[np.int64], share: float, side: int) -> Tensor:
    """The rectangle that is erased in each sample (B,) of this epoch: (B, 4) int64 left, top, right, bottom, pixels of
    a square of `side`; empty where none is.

    Random erasing (Zhong et al., AAAI 2020): 2 to 40 % of the area, at any place. The ratio of its sides is between 0.3
    and 1 / 0.3, uniform in its logarithm, so that wide rectangles are as frequent as tall ones. Of ten draws the
    first that fits counts.
    """
    shapes = uniform(seed, epoch, key[:, None, None], Stream.ERASING, np.arange(10)[:, None], np.arange(2))
    area, ratio = 0.02 + 0.38 * shapes[..., 0], 0.3 ** (1 - 2 * shapes[..., 1])
    sides = np.sqrt(np.stack([area * ratio, area / ratio], axis=-1))  # (B, 10, 2) as shares of the square's
    first = np.argmax((sides < 1).all(axis=-1), axis=1)
    sizes = np.rint(np.minimum(sides[np.arange(len(key)), first], 1) * side)
    others = uniform(seed, epoch, key[:, None], Stream.ERASING, 10, np.arange(3))
    near = np.floor(others[:, 1:] * (side - sizes + 1))
    rectangles = np.concatenate([near, near + sizes], axis=1)
    return torch.from_numpy(np.where(others[:, :1] < share, rectangles, 0).astype(np.int64))


def inside(rectangles: Tensor, side: int) -> Tensor:
    """Which pixels of a square of `side` lie in rectangles (B, 4) left, top, right, bottom: (B, 1, side, side) bool."""
    pixel = torch.arange(side, device=rectangles.device)
    left, top, right, bottom = (rectangles[:, edge, None] for edge in range(4))
    columns, rows = (left <= pixel) & (pixel < right), (top <= pixel) & (pixel < bottom)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


@dataclass(frozen=True)
class Mixing:
    """How much of its partner each sample (B,) gets.

    Attributes:
        blend: (B, 1, 1, 1) float32, the weight of the sample's own pixels.
        rectangles: (B, 4) int64 left, top, right, bottom: pixels that are the partner's alone; empty where there are
            none.
        own_share: (B, 1) float32, the sample's own part of the image, which its labels weigh.
    """

    blend: Tensor
    rectangles: Tensor
    own_share: Tensor


def draw_mixing(seed: int, epoch: int, key: NDArray[np.int64], mixup: float, cutmix: float, side: int) -> Mixing:
    """Draws how samples (B,) are mixed: a share from Beta(a, a) is the weight of a sample's own pixels (mixup, Zhang et
    al., ICLR 2018), or what a rectangle of the partner's leaves of the image, its centre anywhere and cut off at the
    border (CutMix, Yun et al., ICCV 2019).

    Args:
        mixup, cutmix: a of either; 0 for not at all. Where both are given, each sample is treated by one of them, with
            equal probability.
        side: of the images, pixels.
    """
    drawn = uniform(seed, epoch, key[:, None], Stream.MIXING, np.arange(4))  # (B, 4)
    is_cut = drawn[:, 0] < 0.5 if mixup and cutmix else np.full(len(key), cutmix > 0)
    alpha = np.where(is_cut, cutmix, mixup)
    share = betaincinv(alpha, alpha, drawn[:, 1])  # the distribution's inverse
    half = np.sqrt(1 - share)[:, None] / 2
    edges = np.concatenate([drawn[:, 2:] - half, drawn[:, 2:] + half], axis=1)
    rectangles = np.where(is_cut[:, None], np.rint(edges.clip(0, 1) * side), 0).astype(np.int64)
    left, top, right, bottom = rectangles.T
    own = np.where(is_cut, 1 - (right - left) * (bottom - top) / side**2, share)
    return Mixing(
        blend=torch.from_numpy(np.where(is_cut, 1.0, share)).float().view(-1, 1, 1, 1),
        rectangles=torch.from_numpy(rectangles),
        own_share=torch.from_numpy(own).float()[:, None],
    )


def partners(rows: Tensor) -> Tensor:
    """What each sample (B, ...) of a micro-batch is mixed with: the sample before it, the last one for the first. Order
    is drawn, so neighbours are any two samples.
    """
    return rows.roll(1, 0)


def mixed(images: Tensor, blend: Tensor, rectangles: Tensor) -> Tensor:
    """Images (B, 3, S, S) uint8 with their partners blended in, rounded to whole levels, and the partners alone inside
    the rectangles.
    """
    others = partners(images)
    blended = (images * blend + others * (1 - blend)).round_().to(torch.uint8)
    return torch.where(inside(rectangles, images.shape[-1]), others, blended)


def draw_scale(seed: int, epoch: int, step: int, scales: tuple[float, ...]) -> float:
    """The scale of a step: one of `scales`, all of them as likely. Every rank and every micro-batch of the step draws
    the same.
    """
    return scales[int(uniform(seed, epoch, step, Stream.SCALE) * len(scales))]


def resized(images: Tensor, scale: float) -> Tensor:
    """Images (B, 3, S, S) uint8 with sides of `scale` x S, rounded, bilinear with antialiasing: as views of other sizes
    are made when a model is applied.
    """
    side = max(1, round(scale * images.shape[-1]))
    if side == images.shape[-1]:
        return images
    sized: Tensor = transforms.resize(images, [side, side], antialias=True)
    return sized

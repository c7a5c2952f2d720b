"""Augmentation of batches: beside torchvision and Pillow on single pictures, and a function of seed, epoch and sample
alone.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import CutMix, InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from attrtrain.data.augment import (
    Augmentation,
    augmented,
    draw_angles,
    draw_erased,
    draw_mixing,
    draw_scale,
    inside,
    mean_colour,
    mixed,
    resized,
    rotated,
)
from attrtrain.data.loader import Batch
from attrtrain.data.policies import draw_operations, operated
from attrtrain.framing import MEAN_COLOUR

SIDE = 32


def smooth(count: int, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    """Pictures (count, 3, height, width) uint8 without edges, so that interpolation may round otherwise and no more."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(count)]
    arrays = [np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def batch_of(index: list[int], epoch: int = 0, attributes: int = 5) -> Batch:
    """Samples whose pictures and labels follow from their numbers."""
    images = smooth(64)[index]
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand((64, attributes), generator=generator)[index]
    known = (torch.rand((64, attributes), generator=generator) < 0.5)[index]
    return Batch(images, torch.where(known, labels, 0.0), known, torch.tensor(index), epoch, int(known.sum()))


def seen(settings: Augmentation, index: list[int], epoch: int = 0, step: int = 0) -> torch.Tensor:
    return augmented(batch_of(index, epoch), settings, step, lambda tensor: tensor).images


BY_SAMPLE = {
    "flip": Augmentation(flip=0.5),
    "rotate": Augmentation(rotate=30.0),
    "trivial": Augmentation(policy="trivial"),
    "randaugment": Augmentation(policy="randaugment"),
    "erase": Augmentation(erase=0.7),
    "all": Augmentation(flip=0.5, rotate=10.0, policy="trivial", erase=0.5),
}


@pytest.mark.parametrize("settings", BY_SAMPLE.values(), ids=BY_SAMPLE)
def test_a_sample_that_comes_up_again_in_an_epoch_is_augmented_anew(settings: Augmentation) -> None:
    def shown(repeat: list[int] | None) -> torch.Tensor:
        batch = batch_of([7] * 24, epoch=3)
        told = replace(batch, repeat=None if repeat is None else torch.tensor(repeat))
        return augmented(told, settings, 0, lambda tensor: tensor).images

    plain = batch_of([7] * 24).image
    first = shown(None)
    assert torch.equal(shown([0] * 24), first)
    again = shown(list(range(24)))
    assert torch.equal(again[0], first[0]) and len({picture.numpy().tobytes() for picture in again}) > 1
    for row in range(24):
        assert torch.equal(shown([row] * 24)[0], again[row])
    if settings == BY_SAMPLE["flip"]:
        flipped = [torch.equal(picture, plain[0].flip(-1)) for picture in again]
        assert 4 < sum(flipped) < 20


def test_a_sample_that_comes_up_again_is_mixed_by_another_share() -> None:
    told = replace(batch_of([7, 7, 8]), repeat=torch.tensor([0, 1, 0]))
    shares = augmented(told, Augmentation(mixup=0.5), 0, lambda tensor: tensor).own_share
    alone = draw_mixing(0, 0, np.array([7, 8]), 0.5, 0.0, SIDE).own_share
    assert torch.equal(shares[[0, 2]], alone) and shares[0] != shares[1]


@pytest.mark.parametrize("settings", BY_SAMPLE.values(), ids=BY_SAMPLE)
def test_a_sample_is_augmented_alike_whatever_batch_it_is_in(settings: Augmentation) -> None:
    together = seen(settings, list(range(40)), epoch=3)
    order = np.random.default_rng(0).permutation(40).tolist()
    assert torch.equal(seen(settings, order, epoch=3), together[order])
    for sample in range(40):
        assert torch.equal(seen(settings, [sample], epoch=3)[0], together[sample])
    other_epoch, other_step = seen(settings, list(range(40)), epoch=4), seen(settings, list(range(40)), 3, step=9)
    other_seed = seen(replace(settings, seed=1), list(range(40)), epoch=3)
    for other in (other_epoch, other_seed):
        assert (other != together).flatten(1).any(dim=1).float().mean() > 0.2
    assert torch.equal(other_step, together)


def test_by_default_batches_are_handed_on_as_they_are() -> None:
    batch = batch_of([3, 1, 2])
    same = augmented(batch, Augmentation(), 0, lambda tensor: tensor)
    assert torch.equal(same.images, batch.image) and same.own_share is None
    assert same.target is batch.target and same.known is batch.known


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (31, 33)])
def test_rotation_is_torchvision_s_and_pillow_s_of_each_picture(size: tuple[int, int]) -> None:
    images = smooth(12, *size)
    angles = torch.tensor([0.0, 5, -5, 17.5, 45, -45, 90, -90, 120, 180, -180, 0.1])
    ours = rotated(images, angles, mean_colour())
    fill = [float(level) for level in MEAN_COLOUR]
    for image, angle, found in zip(images, angles.tolist(), ours, strict=True):
        expected = transforms.rotate(image, angle, InterpolationMode.BILINEAR, fill=fill)
        # Pixels that are mixed of picture and fill torchvision blends twice; they are left out.
        covered = transforms.rotate(torch.full_like(image, 255), angle, InterpolationMode.BILINEAR, fill=0.0)
        difference = (found.int() - expected.int()).abs()
        assert difference[covered == 255].max() <= 1 and (covered == 255).float().mean() > 0.4, angle
        assert (covered == 0).sum() == 0 or difference[covered == 0].max() <= 16, (
            angle
        )  # mixed in by less than half a level
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        by_pillow = np.asarray(picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=MEAN_COLOUR)).transpose(
            2, 0, 1
        )
        inner = (slice(None), slice(size[0] // 3, -(size[0] // 3)), slice(size[1] // 3, -(size[1] // 3)))
        assert np.abs(found.numpy().astype(int) - by_pillow)[inner].max() <= 2, angle
    assert torch.equal(ours[0], images[0])


def test_corners_are_filled_with_the_mean_colour() -> None:
    (turned,) = rotated(torch.zeros((1, 3, 64, 64), dtype=torch.uint8), torch.tensor([45.0]), mean_colour())
    assert turned[:, 0, 0].tolist() == turned[:, -1, -1].tolist() == list(MEAN_COLOUR)
    assert turned[:, 32, 32].tolist() == [0, 0, 0]


def test_crops_of_a_batch_are_turned_by_their_angles_and_their_corners_have_the_mean_colour() -> None:
    batch = batch_of(list(range(12)), epoch=2)
    found = augmented(batch, Augmentation(seed=4, rotate=45.0), 0, lambda tensor: tensor).images
    fill = [float(level) for level in MEAN_COLOUR]
    corners = 0
    for image, angle, ours in zip(batch.image, draw_angles(4, 2, np.arange(12), 45.0).tolist(), found, strict=True):
        expected = transforms.rotate(image, angle, InterpolationMode.BILINEAR, fill=fill)
        covered = transforms.rotate(torch.full_like(image, 255), angle, InterpolationMode.BILINEAR, fill=0.0)
        whole = (covered == 255) | (covered == 0)  # torchvision blends the others twice
        assert (ours.int() - expected.int()).abs()[whole].float().mean() < 0.5, angle
        corners += (covered == 0).sum().item()
    assert corners > 1000


@pytest.mark.parametrize("policy", ["trivial", "randaugment"])
def test_operations_of_a_policy_are_drawn_for_the_side_of_the_crops_and_fill_with_the_mean_colour(policy) -> None:
    batch = batch_of(list(range(40)), epoch=2)
    expected = batch.image
    for operation, amount in zip(*draw_operations(4, 2, np.arange(40), policy, SIDE), strict=True):
        expected = operated(expected, operation, amount, mean_colour(), lambda tensor: tensor)
    found = augmented(batch, Augmentation(seed=4, policy=policy), 0, lambda tensor: tensor).images
    assert torch.equal(found, expected) and not torch.equal(found, batch.image)


def test_angles_are_uniform_on_either_side() -> None:
    angles = draw_angles(2, 1, np.arange(20_000), 15.0)
    assert angles.min() >= -15 and angles.max() <= 15 and abs(angles.mean()) < 0.2
    assert angles.std().item() == pytest.approx(30 / 12**0.5, rel=0.02)


def test_all_of_a_step_has_one_size_and_all_sizes_come_up() -> None:
    scales = (0.75, 1.0, 1.5)
    drawn = [draw_scale(0, 0, step, scales) for step in range(3000)]
    assert all(drawn.count(scale) == pytest.approx(1000, abs=120) for scale in scales)
    assert drawn != [draw_scale(1, 0, step, scales) for step in range(3000)]
    settings = Augmentation(scales=scales)
    for step in range(12):
        # Two micro-batches, or two ranks, of one step.
        first, second = (seen(settings, index, step=step) for index in ([0, 1, 2], [9, 4]))
        assert first.shape[2:] == second.shape[2:] == (round(drawn[step] * SIDE),) * 2
        for position, image in zip([0, 1, 2], first, strict=True):
            picture = Image.fromarray(smooth(64)[position].permute(1, 2, 0).numpy())
            expected = np.asarray(picture.resize(image.shape[1:], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
            assert np.abs(image.numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.6])
def test_crops_without_smooth_places_are_resized_as_pillow_does(scale: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    found = resized(torch.from_numpy(noise).permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1)
    for pixels, ours in zip(noise, found, strict=True):
        expected = np.asarray(Image.fromarray(pixels).resize((round(scale * SIDE),) * 2, Image.Resampling.BILINEAR))
        assert np.abs(ours.numpy().astype(int) - expected).max() <= 1


def test_policies_leave_torch_s_generator_where_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    seen(Augmentation(policy="trivial"), [1, 2, 3])
    assert torch.equal(torch.rand(3), expected)


def test_a_rectangle_is_erased_in_a_share_of_crops_and_filled_with_the_mean_colour() -> None:
    index, side = np.arange(20_000), 200
    rectangles = draw_erased(0, 0, index, 0.25, side).numpy()
    width, height = rectangles[:, 2] - rectangles[:, 0], rectangles[:, 3] - rectangles[:, 1]
    some = width > 0
    assert some.mean() == pytest.approx(0.25, abs=0.01) and (rectangles[~some] == 0).all()
    assert (rectangles >= 0).all() and (rectangles <= side).all()
    area, ratio = (width * height)[some] / side**2, np.log(height[some] / width[some])
    assert area.min() == pytest.approx(0.02, abs=0.002) and area.max() == pytest.approx(0.4, abs=0.01)
    assert area.mean() == pytest.approx(0.2, abs=0.015) and abs(ratio.mean()) < 0.03
    assert np.abs(ratio).max() == pytest.approx(-np.log(0.3), abs=0.05)
    room = np.stack([side - width, side - height], axis=1)[some]
    assert (rectangles[some, :2] / np.maximum(room, 1)).mean(axis=0) == pytest.approx(0.5, abs=0.015)

    everywhere, few = Augmentation(erase=1.0), list(range(8))
    for image, whole, (left, top, right, bottom) in zip(
        seen(everywhere, few), smooth(64), draw_erased(0, 0, np.array(few), 1.0, SIDE).tolist(), strict=False
    ):
        expected = whole.clone()
        expected[:, top:bottom, left:right] = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None]
        assert torch.equal(image, expected) and right > left


def test_pixels_inside_rectangles_are_those_between_their_edges() -> None:
    rectangles = torch.tensor([[1, 2, 4, 3], [0, 0, 0, 0], [0, 0, 6, 6]])
    expected = torch.zeros((3, 1, 6, 6), dtype=torch.bool)
    expected[0, 0, 2:3, 1:4] = True
    expected[2] = True
    assert torch.equal(inside(rectangles, 6), expected)


MIXTURES = {"mixup": (0.4, 0.0), "cutmix": (0.0, 1.0), "both": (0.4, 1.0)}


@pytest.mark.parametrize(("mixup", "cutmix"), MIXTURES.values(), ids=MIXTURES)
def test_images_are_mixed_as_a_plain_loop_does_and_labels_weigh_what_is_seen(mixup: float, cutmix: float) -> None:
    images, index = smooth(40), np.arange(40)
    mix = draw_mixing(0, 2, index, mixup, cutmix, SIDE)
    found = mixed(images, mix.blend, mix.rectangles)
    kinds = set()
    for sample in range(40):
        own, other = images[sample].float(), images[sample - 1].float()
        left, top, right, bottom = mix.rectangles[sample].tolist()
        share = mix.blend[sample].item()
        if right > left and bottom > top:
            kinds.add("cutmix")
            expected = own.clone()
            expected[:, top:bottom, left:right] = other[:, top:bottom, left:right]
            seen_of_it = 1 - (right - left) * (bottom - top) / SIDE**2
        else:
            kinds.add("mixup")
            expected, seen_of_it = (own * share + other * (1 - share)).round(), share
        assert torch.equal(found[sample].float(), expected), sample
        assert mix.own_share[sample].item() == pytest.approx(seen_of_it, abs=1e-6)
    assert kinds >= ({"mixup"} if mixup else set()) | ({"cutmix"} if cutmix else set())


def test_shares_are_beta_distributed_and_a_function_of_the_sample() -> None:
    index = np.arange(20_000)
    reference = np.random.default_rng(0)
    for alpha in (0.2, 1.0, 3.0):
        mix = draw_mixing(0, 0, index, alpha, 0.0, SIDE)
        expected = np.sort(reference.beta(alpha, alpha, 20_000))
        assert np.abs(np.sort(mix.own_share[:, 0].numpy()) - expected).mean() < 0.01
    cut = draw_mixing(0, 0, index, 0.0, 1.0, 224)
    assert cut.own_share.min() >= 0 and (cut.rectangles >= 0).all() and (cut.rectangles <= 224).all()
    some = np.array([7, 19_000, 3])
    for name in ("blend", "rectangles", "own_share"):
        assert torch.equal(getattr(draw_mixing(0, 0, some, 0.0, 1.0, 224), name), getattr(cut, name)[some])


DECILES = np.arange(0.1, 1, 0.1)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_rectangles_are_as_torchvision_draws_them(alpha: float) -> None:
    mix = draw_mixing(0, 0, np.arange(20_000), 0.0, alpha, 224)
    torch.manual_seed(0)
    theirs = CutMix(alpha=alpha, num_classes=2)
    drawn = [theirs.make_params([torch.zeros(1, 3, 224, 224)]) for _ in range(4000)]
    for edge in range(4):
        expected = np.quantile([one["box"][edge] for one in drawn], DECILES)
        assert np.quantile(mix.rectangles[:, edge], DECILES) == pytest.approx(expected, abs=8), edge
    expected = np.quantile([one["lam_adjusted"] for one in drawn], DECILES)
    assert np.quantile(mix.own_share, DECILES) == pytest.approx(expected, abs=0.03)
    left, top, right, bottom = mix.rectangles.double().numpy().T
    assert abs(np.corrcoef(left + right, top + bottom)[0, 1]) < 0.03


def test_of_mixup_and_cutmix_each_treats_half_of_the_crops_by_its_own_distribution() -> None:
    index, reference = np.arange(20_000), np.random.default_rng(0)
    mix, cutmix = draw_mixing(0, 0, index, 3.0, 0.5, 224), draw_mixing(1, 0, index, 0.0, 0.5, 224)
    is_cut = mix.blend.flatten() == 1
    assert is_cut.float().mean().item() == pytest.approx(0.5, abs=0.02)
    for found, expected in (
        (mix.own_share[~is_cut], reference.beta(3, 3, 20_000)),
        (mix.own_share[is_cut], cutmix.own_share),
    ):
        assert np.quantile(found, DECILES) == pytest.approx(np.quantile(expected, DECILES), abs=0.03)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0), (0.5, 1.0)])
def test_samples_are_mixed_otherwise_in_another_epoch_and_in_a_run_of_another_seed(mixup: float, cutmix: float) -> None:
    def shares(seed: int, epoch: int) -> torch.Tensor:
        settings = Augmentation(seed=seed, mixup=mixup, cutmix=cutmix)
        return augmented(batch_of(list(range(64)), epoch), settings, 0, lambda tensor: tensor).own_share[:, 0]

    first = shares(0, 0)
    assert torch.equal(shares(0, 0), first)
    for other in (shares(0, 1), shares(1, 0), shares(1, 1)):
        assert (other != first).float().mean() > 0.9


def test_the_loss_is_that_of_either_label_by_its_share_and_unknown_cells_of_one_count_for_the_other() -> None:
    settings, batch = Augmentation(seed=1, mixup=1.0), batch_of(list(range(6)))
    result = augmented(batch, settings, 0, lambda tensor: tensor)
    logits = torch.randn((6, 5), generator=torch.Generator().manual_seed(0))

    def loss_of(labels_of, weight):
        target, known = labels_of(result.target), labels_of(result.known)
        cells = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return torch.where(known, cells * weight, 0.0).sum()

    expected = 0.0
    for row in range(6):
        share = result.own_share[row].item()
        for sample, weight in ((row, share), (row - 1, 1 - share)):
            for cell in range(5):
                if batch.known[sample, cell]:
                    label, score = batch.target[sample, cell].item(), torch.sigmoid(logits[row, cell]).item()
                    expected -= weight * (label * np.log(score) + (1 - label) * np.log(1 - score))
    assert result.loss(loss_of).item() == pytest.approx(expected, rel=1e-5)
    assert (batch.known != batch.known.roll(1, 0)).any()


def test_labels_of_sides_are_swapped_on_mirrored_crops_alone() -> None:
    batch = batch_of(list(range(40)), epoch=1)
    swaps = (1, 0, 2, 4, 3)
    result = augmented(batch, Augmentation(flip=0.5, swaps=swaps), 0, lambda tensor: tensor)
    mirrored = 0
    for row in range(40):
        if is_mirrored := not torch.equal(result.images[row], batch.image[row]):
            mirrored += 1
            assert torch.equal(result.images[row], batch.image[row].flip(-1))
        order = list(swaps) if is_mirrored else list(range(5))
        assert result.target[row].tolist() == batch.target[row, order].tolist()
        assert result.known[row].tolist() == batch.known[row, order].tolist()
    assert 10 < mirrored < 30

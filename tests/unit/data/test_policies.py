"""TrivialAugment and RandAugment of a whole batch: each operation beside torchvision's on single pictures, and how they
are drawn.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from attrtrain.data.policies import OPERATIONS, SPACES, STRONGEST, draw_operations, operated

SIDE = 40
FILL = [120.0, 110.0, 100.0]
THEIRS = {"trivial": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}
NAMES = ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize",
         "AutoContrast", "Equalize", "Identity"]  # fmt: skip


def apply(images, operation, amount):
    """All pictures by one operation, with an amount each."""
    places = np.full(len(images), OPERATIONS.index(operation))
    fill = torch.tensor(FILL).view(1, 3, 1, 1)
    return operated(images, places, np.asarray(amount, dtype=float), fill, lambda tensor: tensor)


def pictures(count):
    """(count, 3, SIDE, SIDE) uint8 without edges, so that interpolation may round otherwise and no more, and with some
    contrast to gain.
    """
    rng = np.random.default_rng(0)
    drawn = [Image.fromarray(rng.integers(20, 220, (4, 4, 3), dtype=np.uint8)) for _ in range(count)]
    arrays = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in drawn]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("policy", THEIRS)
@pytest.mark.parametrize(("operation", "name"), list(zip(OPERATIONS, NAMES, strict=True)))
def test_an_operation_does_to_each_picture_what_torchvision_s_does_at_every_strength(operation, name, policy) -> None:
    strengths = np.arange(STRONGEST + 1)
    amounts = SPACES[policy].amounts(SIDE)[OPERATIONS.index(operation)]
    theirs, (magnitudes_of, signed) = THEIRS[policy](), THEIRS[policy]._AUGMENTATION_SPACE[name]
    magnitudes = magnitudes_of(STRONGEST + 1, SIDE, SIDE)
    noise = torch.from_numpy(np.random.default_rng(0).integers(20, 220, (31, 3, SIDE, SIDE), dtype=np.uint8))
    images, moved = pictures(31) if NAMES.index(name) < 5 else noise, []
    for sign in (1, -1) if signed else (1,):
        found = apply(images, operation, sign * amounts).int()
        for image, ours, strength in zip(images, found, strengths, strict=True):
            magnitude = 0.0 if magnitudes is None else sign * float(magnitudes[strength])
            if operation in ("translate_x", "translate_y", "solarize"):
                # Half of 32 pixels are 15.999998 there, which are cut to 15, and level 119 is 119.00001.
                magnitude = round(magnitude * STRONGEST, 3) / STRONGEST
            expected, dark, light = (
                theirs._apply_image_or_video_transform(
                    image, name, magnitude, interpolation=InterpolationMode.BILINEAR, fill={torch.Tensor: fill}
                ).int()
                for fill in (FILL, [0.0] * 3, [255.0] * 3)
            )
            inner = dark == light  # pixels that are mixed of picture and fill torchvision blends twice
            assert inner.float().mean() > 0.15
            is_exact = name in ("Posterize", "Solarize", "Equalize", "Identity")
            assert (ours - expected)[inner].abs().max() <= (0 if is_exact else 1), strength
            assert (ours - expected).abs().float().mean() < 1.5, strength
            moved.append((ours - image.int()).abs().max() > 3)
    assert np.mean(moved) > (0.3 if operation != "identity" else -1)


@pytest.mark.parametrize("side", [32, 224, 384])
@pytest.mark.parametrize("policy", THEIRS)
def test_strengths_mean_what_they_mean_to_torchvision_whatever_the_side_of_a_picture(policy, side) -> None:
    for found, name in zip(SPACES[policy].amounts(side), NAMES, strict=True):
        magnitudes_of, _ = THEIRS[policy]._AUGMENTATION_SPACE[name]
        theirs = magnitudes_of(STRONGEST + 1, side, side)
        expected = np.zeros(31) if theirs is None else theirs.double().numpy()
        if name.startswith("Translate"):
            expected = np.trunc(expected.round(4))  # half of 32 pixels are 15.999998 there
        np.testing.assert_allclose(found, expected * (255 if name == "Solarize" else 1), atol=1e-4, err_msg=name)


@pytest.mark.parametrize(("policy", "rounds"), [("trivial", 1), ("randaugment", 2)])
def test_operations_are_as_frequent_as_each_other_and_drawn_for_each_sample(policy, rounds) -> None:
    operation, amount = draw_operations(0, 3, np.arange(28_000), policy, SIDE)
    assert operation.shape == amount.shape == (rounds, 28_000)
    for drawn in operation:
        assert np.bincount(drawn, minlength=len(OPERATIONS)) == pytest.approx(np.full(14, 2000), rel=0.1)
    for place, name in enumerate(OPERATIONS):
        amounts = amount[operation == place]
        if NAMES[place] in ("AutoContrast", "Equalize", "Identity"):
            assert (amounts == 0).all()
            continue
        magnitudes_of, signed = THEIRS[policy]._AUGMENTATION_SPACE[NAMES[place]]
        magnitudes = magnitudes_of(31, SIDE, SIDE).numpy().astype(float).round(5)
        magnitudes = magnitudes if policy == "trivial" else magnitudes[9:10]
        magnitudes = {"translate_x": np.trunc, "translate_y": np.trunc}.get(name, np.asarray)(magnitudes)
        magnitudes = magnitudes * (255 if name == "solarize" else 1)
        expected = np.concatenate([magnitudes, -magnitudes]) if signed else magnitudes
        assert amounts.mean() == pytest.approx(expected.mean(), abs=6 * expected.std() / 40 + 1e-5), name
        np.testing.assert_allclose(np.unique(amounts.round(3)), np.unique((expected + 0.0).round(3)), atol=2e-3)
    if rounds == 2:
        together = np.bincount(operation[0] * 14 + operation[1], minlength=196)
        assert together.min() > 80  # 143 expected: the second does not follow from the first
    one, same = draw_operations(0, 3, np.array([27_123]), policy, SIDE)
    assert (one[:, 0] == operation[:, 27_123]).all() and (same[:, 0] == amount[:, 27_123]).all()
    assert (draw_operations(0, 4, np.arange(28_000), policy, SIDE)[0] != operation).mean() > 0.8


def test_pictures_are_treated_each_by_its_own_operation_and_amount() -> None:
    images = pictures(60)
    operation, amount = draw_operations(0, 0, np.arange(60), "trivial", SIDE)
    fill = torch.tensor(FILL).view(1, 3, 1, 1)
    together = operated(images, operation[0], amount[0], fill, lambda tensor: tensor)
    for row, image in enumerate(images):
        alone = operated(
            image[None], operation[0, row : row + 1], amount[0, row : row + 1], fill, lambda tensor: tensor
        )
        assert torch.equal(together[row], alone[0])
    assert len(set(operation[0])) == 14 and (together != images).flatten(1).any(1).float().mean() > 0.7

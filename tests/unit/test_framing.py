"""What of a stored crop is seen: beside cutting with less context in the first place, and beside Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from attrtrain.data.decode import decode, decode_crop, framed_crop
from attrtrain.errors import ConfigError
from attrtrain.framing import MEAN_COLOUR, Framing
from attrtrain.shards.crop import cut, whole_picture
from attrtrain.shards.manifest import CropSettings

WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope="module")
def photograph():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def boxes(whole_pixels: bool):
    """Boxes inside the photograph, some of them at its border."""
    rng = np.random.default_rng(1)
    corners = np.sort(rng.uniform(0, 1, (200, 2, 2)), axis=1) * [WIDTH, HEIGHT]
    corners = np.round(corners) if whole_pixels else corners
    corners[::10, 0] = 0
    sides = np.maximum(corners[:, 1] - corners[:, 0], 1)
    return np.c_[np.minimum(corners[:, 0], [WIDTH - 1, HEIGHT - 1]), sides].tolist()


def settings(context: float, store_px: int = 1000) -> CropSettings:
    return CropSettings(store_px=store_px, quality=95, context=context)


@pytest.mark.parametrize("whole_pixels", [True, False])
@pytest.mark.parametrize("context", [0.0, 0.1, 0.25, 0.3])
def test_a_smaller_context_of_a_stored_crop_is_the_crop_that_is_cut_with_that_context(
    photograph, context, whole_pixels
) -> None:
    framing = Framing(context=context)
    for box in boxes(whole_pixels):
        stored, direct = cut(photograph, box, False, settings(0.5)), cut(photograph, box, False, settings(context))
        left, top, right, bottom = framing.windows([stored.box], [stored.size])[0]
        assert (right - left, bottom - top) == direct.size, box
        assert direct.box == pytest.approx(np.subtract(stored.box, (left, top, 0, 0)), abs=1e-4), box


def test_its_pixels_are_those_of_the_crop_that_is_cut_with_that_context(photograph) -> None:
    box = (40.3, 30.7, 60.0, 41.0)
    expected = decode(cut(photograph, box, False, settings(0.1)).jpeg).astype(int)
    stored = cut(photograph, box, False, settings(0.5))
    seen = Framing(context=0.1).shown(decode(stored.jpeg), Framing(context=0.1).windows([stored.box], [stored.size])[0])
    assert seen.shape == expected.shape and np.abs(seen - expected).mean() < 1.5  # JPEG's loss differs
    assert np.abs(np.roll(seen, 2, axis=1) - expected).mean() > 3


def test_a_crop_that_was_made_smaller_is_cut_where_the_box_came_to_lie(photograph) -> None:
    stored = cut(photograph, (40.0, 20.0, 80.0, 80.0), False, settings(0.25, store_px=60))
    assert stored.size == (60, 60)
    assert Framing(context=0.0).windows([stored.box], [stored.size]).tolist() == [[10, 10, 50, 50]]
    assert Framing(context=0.125).windows([stored.box], [stored.size]).tolist() == [[5, 5, 55, 55]]


def test_a_box_that_reaches_over_the_border_counts_as_far_as_it_lies_inside(photograph) -> None:
    stored = cut(photograph, (-40.0, 20.0, 80.0, 40.0), False, settings(0.5))
    assert stored.size == (80, 80)  # 40 of the object, and half of all its 80 on the right
    assert Framing(context=0.5).windows([stored.box], [stored.size]).tolist() == [[0, 0, 60, 80]]


def test_windows_do_not_depend_on_what_else_is_asked_for_and_never_are_empty() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 40, (300, 2))
    places = rng.uniform(0, 1, (300, 2)) * sizes
    places[:20] = sizes[:20]  # as far as rounding may push a box
    drawn = np.c_[places, rng.uniform(0, 1, (300, 2)) * (sizes - places)].astype(np.float32)
    drawn[20:40] = np.floor(drawn[20:40]) * [1, 1, 0, 0]  # without a size, between two pixels
    for framing in (Framing(), Framing(context=0.0), Framing(context=0.7)):
        found = framing.windows(drawn, sizes)
        alone = [framing.windows([box], [size])[0] for box, size in zip(drawn, sizes, strict=True)]
        np.testing.assert_array_equal(found, alone)
        assert (found[:, 2:] > found[:, :2]).all() and (found >= 0).all() and (found[:, 2:] <= sizes).all()


def test_a_box_that_the_index_has_rounded_shows_the_same() -> None:
    """The index holds single precision; what was just cut has the box as it was given."""
    rng = np.random.default_rng(3)
    places, sides = rng.integers(1, 1000, (2, 4000, 2))
    near = rng.uniform(-1e-5, 1e-5, (2, 4000, 2))
    given = np.c_[places - 1e-4 + near[0], sides + near[1]]  # about where another pixel counts as touched
    for framing in (Framing(context=0.0), Framing(context=0.5)):
        found = framing.windows(given, np.full((4000, 2), 3000))
        np.testing.assert_array_equal(found, framing.windows(given.astype(np.float32), np.full((4000, 2), 3000)))


@pytest.mark.parametrize("size", [(50, 20), (20, 51), (33, 33), (1, 7)])
def test_padding_is_pillow_s(size) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    side = max(size)
    ours = Framing(fit="pad").fitted(pixels)
    left, top = (side - size[1]) // 2, (side - size[0]) // 2
    border = (left, top, side - size[1] - left, side - size[0] - top)
    np.testing.assert_array_equal(ours, np.asarray(ImageOps.expand(Image.fromarray(pixels), border, MEAN_COLOUR)))


def test_a_plain_framing_changes_no_pixel(photograph) -> None:
    crop = cut(photograph, whole_picture(photograph), False, settings(0.0))
    assert framed_crop(crop, 48, Framing()).equal(decode_crop(crop.jpeg, 48))


def test_what_is_stored_and_no_more_can_be_seen() -> None:
    stored = settings(0.1)
    assert Framing.within(stored, None, "squash") == Framing.within(stored, 0.1, "squash") == Framing()
    assert Framing.within(stored, 0.05, "pad") == Framing(context=0.05, fit="pad")
    with pytest.raises(
        ConfigError, match=r"data\.context: 0\.2 is more than the 0\.1 that the shards store; lower it, or"
    ):
        Framing.within(stored, 0.2, "squash")

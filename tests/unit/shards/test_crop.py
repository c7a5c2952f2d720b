"""Pixels and boxes → crops, each beside a plain reference."""

import io
import math

import numpy as np
import pytest
import simplejpeg
from drawn_pictures import RED, drawn_jpeg, jpeg_bytes, pixels, upright
from PIL import Image, ImageDraw, JpegImagePlugin

from attrtrain.errors import LeftOutError
from attrtrain.shards import crop as crop_module
from attrtrain.shards.image_decode import load_image
from attrtrain.shards.manifest import CropSettings

NAN, INF = math.nan, math.inf


def cut(picture, *others):
    return crop_module.cut(np.asarray(picture), *others)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 10, 0, 20), "box_empty"),
        ((10, 10, 20, 0), "box_empty"),
        ((10, 10, -5, 20), "box_empty"),
        ((30, 10, 1e-20, 20), "box_empty"),
        ((NAN, 10, 5, 5), "box_not_finite"),
        ((10, 10, 5, NAN), "box_not_finite"),
        ((10, -INF, 5, 5), "box_not_finite"),
        ((10, 10, INF, 5), "box_not_finite"),
        ((100, 10, 5, 5), "box_outside_image"),
        ((10, 80, 5, 5), "box_outside_image"),
        ((-5, 10, 5, 5), "box_outside_image"),
        ((10, -50, 5, 49), "box_outside_image"),
        ((1e300, 1e300, 1e300, 1e300), "box_outside_image"),
    ],
)
@pytest.mark.parametrize("context", [0.0, 4.0])
def test_boxes_without_an_object_are_left_out(box, reason, context):
    with pytest.raises(LeftOutError) as caught:
        cut(Image.new("RGB", (100, 80)), box, False, CropSettings(context=context))
    assert caught.value.reason == reason


def test_a_crowd_is_left_out():
    with pytest.raises(LeftOutError) as caught:
        cut(Image.new("RGB", (100, 80)), (10, 10, 20, 20), True, CropSettings())
    assert caught.value.reason == "crowd"


@pytest.mark.parametrize(
    "box",
    [(0, 0, 1e308, 1e308), (-1e308, -1e308, 1.5e308, 1.5e308), (-1e9, -1e9, 2e9, 2e9)],
)
@pytest.mark.parametrize("context", [0.0, 4.0])
def test_a_box_as_huge_as_numbers_go_is_the_whole_picture(box, context):
    crop = cut(Image.new("RGB", (100, 80)), box, False, CropSettings(context=context))
    assert crop.size == (100, 80)
    assert crop.box == (0, 0, 100, 80)


@pytest.mark.parametrize("size", [(100, 80), (80, 100)], ids=["wide", "tall"])
def test_without_a_box_all_of_a_photograph_is_the_object(size):
    picture = Image.new("RGB", size)
    crop = cut(picture, crop_module.whole_picture(np.asarray(picture)), False, CropSettings())
    assert crop.size == size
    assert crop.box == (0, 0, *size)


@pytest.mark.parametrize("box", [(10.3, 20.6, 0.2, 0.1), (99.999, 79.999, 5, 5), (-0.5, -0.5, 0.6, 0.6)])
def test_a_box_smaller_than_a_pixel_gives_the_pixel_it_lies_in(box):
    crop = cut(Image.new("RGB", (100, 80)), box, False, CropSettings())
    assert crop.size == (1, 1)
    assert Image.open(io.BytesIO(crop.jpeg)).size == (1, 1)


def find_white(jpeg):
    """x, y, width, height of the white area in a JPEG, to about a pixel."""
    ys, xs = np.nonzero(pixels(Image.open(io.BytesIO(jpeg)).convert("L")) > 127)
    return np.array([xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1])


@pytest.mark.parametrize("context", [0.0, 0.08, 0.5, 4.0])
@pytest.mark.parametrize("store_px", [24, 40, 1000])
@pytest.mark.parametrize(
    "box",
    [(100, 80, 60, 40), (0, 0, 50, 50), (250, 10, 50, 60), (200, 190, 70, 50), (-30, 100, 60, 60), (280, 210, 90, 90)],
    ids=["inside", "corner", "right", "bottom", "over the left", "over the corner"],
)
def test_the_recorded_box_is_where_the_object_is_to_be_seen(box, store_px, context):
    picture = Image.new("RGB", (300, 240))
    x, y, width, height = box
    ImageDraw.Draw(picture).rectangle((x, y, x + width - 1, y + height - 1), fill="white")
    crop = cut(picture, box, False, CropSettings(store_px=store_px, context=context, quality=100))
    assert crop.size == Image.open(io.BytesIO(crop.jpeg)).size
    assert crop.source_size == (300, 240)
    assert np.abs(find_white(crop.jpeg) - crop.box).max() <= 1
    assert min(crop.size) <= max(store_px, 1)


def test_context_is_a_share_of_the_box_on_each_side_and_cut_at_the_border():
    picture = Image.new("RGB", (300, 240))
    inside = cut(picture, (100, 100, 40, 20), False, CropSettings(context=0.5))
    assert (inside.size, inside.box) == ((80, 40), (20, 10, 40, 20))
    at_corner = cut(picture, (10, 0, 40, 20), False, CropSettings(context=0.5))
    assert (at_corner.size, at_corner.box) == ((70, 30), (10, 0, 40, 20))


def test_fractions_of_pixels_at_the_edge_are_kept():
    crop = cut(Image.new("RGB", (300, 240)), (10.4, 20.6, 5.2, 5.2), False, CropSettings())
    assert crop.size == (6, 6)  # pixels 10 to 15 and 20 to 25
    assert crop.box == pytest.approx((0.4, 0.6, 5.2, 5.2))


@pytest.mark.parametrize("store_px", [8, 31, 64, 100, 256])
@pytest.mark.parametrize("size", [(31, 64), (64, 31), (33, 33), (1, 90), (200, 100)])
def test_the_short_side_is_at_most_store_px_and_never_enlarged(size, store_px):
    crop = cut(Image.new("RGB", (300, 300)), (3, 5, *size), False, CropSettings(store_px=store_px))
    assert min(crop.size) == min(store_px, *size)
    assert crop.box == pytest.approx((0, 0, *crop.size))  # to the last bit, although the long side was rounded
    if min(size) <= store_px:
        assert crop.size == size
    else:
        assert crop.size[0] / crop.size[1] == pytest.approx(size[0] / size[1], rel=0.5 / min(crop.size) + 0.01)


@pytest.mark.parametrize("upright", [True, False])
def test_the_box_in_a_crop_that_was_shrunk_follows_the_scale_of_each_side(upright):
    """20 x 40 with 27.5 % around it are the pixels 94 to 126 and 89 to 151: 32 x 62, stored as 8 x 16, of which the
    long side was 15.5.
    """
    box, size, inside = (100, 100, 20, 40), (8, 16), (6 / 4, 11 * 16 / 62, 20 / 4, 40 * 16 / 62)
    if not upright:
        box, size, inside = (100, 100, 40, 20), size[::-1], (*inside[1::-1], *inside[:1:-1])
    crop = cut(Image.new("RGB", (300, 300)), box, False, CropSettings(store_px=8, context=0.275))
    assert crop.size == size
    assert crop.box == pytest.approx(inside, rel=1e-9)


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000)])
def test_a_line_one_pixel_thin_is_a_crop(size):
    crop = cut(Image.new("RGB", (1000, 1000), RED), (0, 0, *size), False, CropSettings(store_px=32))
    assert crop.size == size
    assert np.abs(pixels(Image.open(io.BytesIO(crop.jpeg))) - RED).max() <= 6


def test_a_side_longer_than_jpeg_allows_is_shrunk_to_fit():
    crop = cut(Image.new("RGB", (70_000, 2)), (0, 0, 70_000, 2), False, CropSettings())
    assert crop.size == (65_500, 2)
    assert crop.box == pytest.approx((0, 0, 65_500, 2))


def test_a_reduced_crop_is_smoothed_and_not_picked_from_every_nth_pixel():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = cut(Image.fromarray(stripes), (0, 0, 64, 64), False, CropSettings(store_px=8))
    assert np.abs(pixels(Image.open(io.BytesIO(crop.jpeg))) - 127).max() <= 20


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 40, 30), (7, 3, 20, 26), (11, 9, 29, 21), (0, 29, 40, 1), (39, 0, 1, 30)])
@pytest.mark.parametrize("store_px", [8, 1000])
def test_what_is_stored_are_the_pixels_that_pillow_cuts_out_and_makes_smaller(box, store_px, turned):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    x, y, width, height = box
    part = picture.crop((x, y, x + width, y + height))
    scale = min(1, store_px / min(part.size))
    part = part.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    expected = simplejpeg.encode_jpeg(np.array(part), quality=90, colorsubsampling="420")
    given = np.asarray(picture)
    given = np.rot90(np.rot90(given).copy(), -1) if turned else given  # the same pixels, rows not in one piece
    assert given.flags.c_contiguous != turned
    assert crop_module.cut(given, box, False, CropSettings(store_px=store_px, quality=90)).jpeg == expected


@pytest.mark.parametrize("quality", [30, 75, 90, 96])
def test_a_stored_crop_is_as_near_to_the_photograph_as_pillow_would_store_it(tmp_path, quality):
    (tmp_path / "x.jpg").write_bytes(drawn_jpeg("RGB", (83, 61), quality=100, subsampling="4:2:0"))
    photograph = load_image(tmp_path / "x.jpg")
    stored = cut(photograph, (3, 5, 70, 50), False, CropSettings(quality=quality)).jpeg
    buffer = io.BytesIO()
    Image.fromarray(photograph[5:55, 3:73]).save(buffer, "JPEG", quality=quality)
    errors, tables = [], []
    for jpeg in (stored, buffer.getvalue()):
        with Image.open(io.BytesIO(jpeg)) as image:
            errors.append(np.square(pixels(image) - pixels(photograph)[5:55, 3:73]).mean())
            tables.append((image.quantization, JpegImagePlugin.get_sampling(image)))
    assert tables[0] == tables[1]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
    assert len(stored) == pytest.approx(len(buffer.getvalue()), rel=0.02)


def test_quality_decides_the_size():
    picture = Image.open(io.BytesIO(jpeg_bytes()))
    low, high = (len(cut(picture, (0, 0, 64, 48), False, CropSettings(quality=q)).jpeg) for q in (30, 95))
    assert low < high / 2


def test_nothing_of_the_photograph_but_its_pixels_gets_into_a_crop(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "SECRET description"
    Image.fromarray(upright()).save(
        tmp_path / "x.jpg", exif=exif, comment=b"SECRET comment", icc_profile=b"SECRET" * 20
    )
    assert (tmp_path / "x.jpg").read_bytes().count(b"SECRET") == 22
    assert b"SECRET" not in cut(load_image(tmp_path / "x.jpg"), (0, 0, 9, 9), False, CropSettings()).jpeg


def test_a_comment_too_long_for_a_jpeg_is_no_obstacle(tmp_path):
    Image.fromarray(upright()).save(tmp_path / "x.gif", comment=b"x" * 70_000)
    image = load_image(tmp_path / "x.gif")
    assert cut(image, (0, 0, 9, 9), False, CropSettings()).size == (9, 9)

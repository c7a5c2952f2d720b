"""Pictures as people have them → crops, each beside a plain reference."""

import functools
import http.server
import io
import math
import os
import random
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageDraw, ImageOps, JpegImagePlugin

from attrtrain.shards import crop as crop_module
from attrtrain.shards.crop import LeftOutError, find_image, load_image
from attrtrain.shards.manifest import CropSettings

ORIENTATION = 0x0112
RED = (200, 30, 40)


def pixels(image):
    return np.asarray(image).astype(int)


def cut(picture, *others):
    return crop_module.cut(np.asarray(picture), *others)


def upright():
    """24 x 16 pixels, no two of them equal."""
    y, x = np.mgrid[:16, :24]
    return np.stack([x * 10, y * 15, (x * 7 + y * 3) % 251], axis=2).astype(np.uint8)


def stored_as(orientation, u):
    """How a camera stores the upright picture `u`; after the EXIF 2.32 table: where row 0 and column 0 of the file are
    to be seen.
    """
    height, width = u.shape[:2]
    rows, columns = (width, height) if orientation >= 5 else (height, width)
    source = {
        1: lambda r, c: (r, c),  # row 0 is the top, column 0 the left
        2: lambda r, c: (r, width - 1 - c),  # top, right
        3: lambda r, c: (height - 1 - r, width - 1 - c),  # bottom, right
        4: lambda r, c: (height - 1 - r, c),  # bottom, left
        5: lambda r, c: (c, r),  # left, top
        6: lambda r, c: (c, width - 1 - r),  # right, top
        7: lambda r, c: (height - 1 - c, width - 1 - r),  # right, bottom
        8: lambda r, c: (height - 1 - c, r),  # left, bottom
    }[orientation]
    return np.array([[u[source(r, c)] for c in range(columns)] for r in range(rows)], dtype=np.uint8)


def save_turned(path, orientation, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored_as(orientation, upright())).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".webp", {"lossless": True}), (".tif", {})])
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation, suffix, options):
    path = save_turned(tmp_path / f"turned{suffix}", orientation, **options)
    assert np.array_equal(pixels(load_image(path)), upright())


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_declared_size_tells_whether_boxes_mean_the_stored_or_the_upright_picture(tmp_path, orientation):
    path = save_turned(tmp_path / "turned.png", orientation)
    assert np.array_equal(pixels(load_image(path, (24, 16))), upright())
    assert np.array_equal(pixels(load_image(path, (16, 24))), stored_as(orientation, upright()))


@pytest.mark.parametrize("declared", [(25, 16), (24, 17), (240, 160)])
def test_a_picture_of_another_size_than_declared_is_left_out(tmp_path, declared):
    path = save_turned(tmp_path / "turned.png", 6)
    with pytest.raises(LeftOutError, match="its annotation says") as caught:
        load_image(path, declared)
    assert caught.value.reason == "image_size_differs"


@pytest.mark.parametrize("declared", [(0, 0), (640, 0), (0, 480)])
def test_a_size_that_is_not_wholly_declared_is_not_compared(tmp_path, declared):
    assert load_image(save_turned(tmp_path / "turned.png", 1), declared).shape == (16, 24, 3)


def _palette(transparency):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED, 9, 9, 9])
    image.info["transparency"] = transparency
    return image


KINDS = {
    "grayscale.jpg": (Image.new("L", (8, 8), 90), (90, 90, 90)),
    "black-and-white.png": (Image.new("1", (8, 8), 1), (255, 255, 255)),
    "cmyk.jpg": (Image.new("RGB", (8, 8), RED).convert("CMYK"), RED),
    "cmyk.tif": (Image.new("RGB", (8, 8), RED).convert("CMYK"), RED),
    "rgba-opaque.png": (Image.new("RGBA", (8, 8), (*RED, 255)), RED),
    "rgba-transparent.png": (Image.new("RGBA", (8, 8), (*RED, 0)), (255, 255, 255)),
    "rgba-half.webp": (Image.new("RGBA", (8, 8), (0, 0, 0, 128)), (127, 127, 127)),
    "la-transparent.png": (Image.new("LA", (8, 8), (10, 0)), (255, 255, 255)),
    "palette.png": (_palette(0), RED),
    "palette-transparent.png": (_palette(1), (255, 255, 255)),
    "palette-half.png": (_palette(bytes([255, 0, 255])), (255, 255, 255)),
    "palette.gif": (_palette(0), RED),
    "sixteen-bit.png": (Image.fromarray(np.full((8, 8), 128 * 257, np.uint16)), (128, 128, 128)),
    "float-to-one.tif": (Image.fromarray(np.full((8, 8), 0.5, np.float32)), (127, 127, 127)),
    "float-to-255.tif": (Image.fromarray(np.full((8, 8), 90.0, np.float32)), (90, 90, 90)),
    "sixteen-bit-dark.png": (Image.fromarray(np.full((8, 8), 200, np.uint16)), (0, 0, 0)),
    "thirty-two-bit.tif": (Image.fromarray(np.full((8, 8), 128 * 257, np.int32)), (128, 128, 128)),
    "float.tif": (Image.fromarray(np.full((8, 8), 77, np.float32)), (77, 77, 77)),
    "colour.webp": (Image.new("RGB", (8, 8), RED), RED),
    "colour.bmp": (Image.new("RGB", (8, 8), RED), RED),
}


@pytest.mark.parametrize("name", KINDS)
def test_pictures_of_every_kind_become_rgb(tmp_path, name):
    image, colour = KINDS[name]
    image.save(tmp_path / name)
    loaded = load_image(tmp_path / name)
    assert (loaded.dtype, loaded.shape) == (np.uint8, (8, 8, 3))
    assert np.abs(pixels(loaded)[4, 4] - colour).max() <= 6
    assert cut(loaded, (1, 1, 6, 6), False, CropSettings()).size == (6, 6)


def test_cmyk_jpegs_tested_here_are_inverted_as_adobe_writes_them(tmp_path):
    image, _ = KINDS["cmyk.jpg"]
    image.save(tmp_path / "cmyk.jpg")
    assert b"Adobe" in (tmp_path / "cmyk.jpg").read_bytes()


def test_the_content_counts_and_not_the_suffix(tmp_path):
    Image.fromarray(upright()).save(tmp_path / "picture.jpg", "PNG")
    assert np.array_equal(pixels(load_image(tmp_path / "picture.jpg")), upright())


def test_a_picture_with_damaged_exif_is_used_as_stored(tmp_path):
    Image.fromarray(upright()).save(tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x07")
    Image.fromarray(upright()).save(tmp_path / "plain.jpg")
    assert np.array_equal(pixels(load_image(tmp_path / "odd.jpg")), pixels(load_image(tmp_path / "plain.jpg")))


def jpeg_bytes(size=(64, 48)):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def drawn_pixels(size):
    """Edges, gradients and noise in all colours."""
    y, x = np.mgrid[: size[1], : size[0]]
    noise = np.random.default_rng(7).integers(0, 40, (size[1], size[0], 3))
    gradients = np.stack([x * 200 // size[0], y * 200 // size[1], (x // 9 + y // 7) % 2 * 200], axis=2)
    return (gradients + noise).astype(np.uint8)


def drawn_jpeg(mode, size, **options):
    buffer = io.BytesIO()
    Image.fromarray(drawn_pixels(size)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def with_segments(content, *segments):
    """A JPEG with more behind its first two bytes, as cameras and editors put it there."""
    return content[:2] + b"".join(segments) + content[2:]


def segment(marker, content):
    return b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2) + content


TURNED_BY_XMP = segment(
    0xE1, b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
)
TURNED_BY_EXIF = segment(0xE1, turned(8).tobytes())
LIKE_A_SCAN = segment(0xE2, b"ICC_PROFILE\0\1\1" + b"\xff\xda" * 200)


JPEGS = {
    **{
        f"{subsampling} {kind}": drawn_jpeg("RGB", (83, 61), subsampling=subsampling, quality=80, **options)
        for subsampling in ("4:4:4", "4:2:2", "4:2:0")
        for kind, options in {
            "baseline": {},
            "progressive": {"progressive": True},
            "optimized, restarts": {"optimize": True, "restart_marker_blocks": 3},
        }.items()
    },
    **{f"orientation {number}": drawn_jpeg("RGB", (50, 33), exif=turned(number)) for number in range(1, 10)},
    **{
        f"subsampling {kind}": simplejpeg.encode_jpeg(drawn_pixels((83, 61)), colorsubsampling=kind)
        for kind in ("440", "411")
    },
    "gray": drawn_jpeg("L", (83, 61)),
    "gray, progressive, turned": drawn_jpeg("L", (83, 61), progressive=True, exif=turned(6)),
    "stored as RGB": drawn_jpeg("RGB", (83, 61), keep_rgb=True),
    "CMYK": drawn_jpeg("CMYK", (83, 61)),
    "turned by XMP": with_segments(drawn_jpeg("RGB", (50, 33)), TURNED_BY_XMP),
    "turned, behind what looks like a scan": with_segments(drawn_jpeg("RGB", (50, 33)), LIKE_A_SCAN, TURNED_BY_EXIF),
    "turned, behind fill bytes": with_segments(drawn_jpeg("RGB", (50, 33)), b"\xff\xff", TURNED_BY_EXIF),
    "of one pixel": drawn_jpeg("RGB", (1, 1)),
    "of one row": drawn_jpeg("RGB", (301, 1)),
    "quality 1": drawn_jpeg("RGB", (83, 61), quality=1),
    "quality 100": drawn_jpeg("RGB", (83, 61), quality=100, subsampling="4:2:0"),
    "with profile and comment": drawn_jpeg("RGB", (83, 61), icc_profile=b"p" * 70_000, comment=b"c" * 999, dpi=(7, 9)),
}


def opened_by_pillow(content):
    """Upright pixels (H, W, 3) as Pillow alone has them; None where it cannot read them."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # noqa: BLE001  Pillow raises nearly anything
        return None


def opened_by_us(path, content):
    path.write_bytes(content)
    try:
        return load_image(path)
    except LeftOutError as error:
        assert error.reason == "image_broken"
        return None


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_of_every_kind_have_the_pixels_that_pillow_gives_them(tmp_path, name):
    assert np.array_equal(opened_by_us(tmp_path / "x.jpg", JPEGS[name]), opened_by_pillow(JPEGS[name]))


def test_plain_jpegs_are_decoded_without_pillow(tmp_path, monkeypatch):
    """Else the test above compares Pillow with itself."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded by Pillow"))
    for name, content in JPEGS.items():
        if name != "CMYK":
            (tmp_path / "x.jpg").write_bytes(content)
            assert load_image(tmp_path / "x.jpg").shape[2] == 3


@pytest.mark.parametrize("name", ["4:2:0 baseline", "4:4:4 progressive", "4:2:2 optimized, restarts", "gray", "CMYK"])
def test_damaged_jpegs_are_read_or_left_out_as_pillow_does(tmp_path, name):
    whole, rng = JPEGS[name], random.Random(name)
    read = 0
    for number in range(150):
        damaged = bytearray(whole)
        if number % 3 == 0:
            del damaged[rng.randrange(len(whole)) :]
        elif number % 3 == 1:
            damaged += rng.randbytes(rng.randrange(1, 50))
        for _ in range(number % 3 * rng.randrange(3)):
            damaged[rng.randrange(2, len(damaged))] = rng.randrange(256)
        ours, theirs = opened_by_us(tmp_path / "x.jpg", bytes(damaged)), opened_by_pillow(bytes(damaged))
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            read += 1
            assert np.array_equal(ours, theirs)
    assert 20 < read < 140


@pytest.mark.shared_data
def test_real_photographs_have_the_pixels_that_pillow_gives_them(shared_data):
    for path in sorted(shared_data.glob("coco_tiny/*2017/*.jpg"))[::4]:
        assert np.array_equal(load_image(path), opened_by_pillow(path.read_bytes()))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8", b"<html>404 Not Found</html>", jpeg_bytes()[:100], jpeg_bytes()[:-2000], b"\x89PNG\r\n\x1a\n"],
    ids=["empty", "two bytes", "html", "only a header", "cut off", "only a signature"],
)
def test_a_damaged_picture_is_left_out_as_broken(tmp_path, content):
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(LeftOutError, match=r"broken\.jpg") as caught:
        load_image(tmp_path / "broken.jpg")
    assert caught.value.reason == "image_broken"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "TGA", "ICO", "PCX"])
def test_no_damage_gets_past_as_another_error(tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(upright()).resize((32, 32)).save(buffer, kind)
    whole, rng = buffer.getvalue(), random.Random(kind)
    path = tmp_path / "fuzzed"
    for _ in range(60):
        damaged = bytearray(whole[: rng.randrange(1, len(whole) + 1)])
        for _ in range(rng.randrange(1, 12)):
            damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            assert load_image(path).shape[2] == 3
        except LeftOutError as error:
            assert error.reason in ("image_broken", "image_too_large")


def test_a_decompression_bomb_is_left_out_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (60, 60)).save(tmp_path / "bomb.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")  # Pillow warns of it only
    with pytest.raises(LeftOutError, match=r"bomb\.png") as caught:
        load_image(tmp_path / "bomb.png")
    assert caught.value.reason == "image_too_large"
    assert load_image(tmp_path / "large.png").shape == (40, 40, 3)


def test_a_bomb_that_is_a_jpeg_is_left_out_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name, side in (("bomb", 60), ("large", 40), ("small", 20)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.jpg")
    assert load_image(tmp_path / "large.jpg").shape == (40, 40, 3)
    assert load_image(tmp_path / "small.jpg").shape == (20, 20, 3)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("unpacked"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("unpacked"))
    with pytest.raises(LeftOutError, match=r"bomb\.jpg") as caught:
        load_image(tmp_path / "bomb.jpg")
    assert caught.value.reason == "image_too_large"


@pytest.mark.parametrize(("side", "reason"), [(20_000, "image_too_large"), (100, "image_broken")])
def test_400_million_pixels_are_too_many_wherever_this_runs(tmp_path, side, reason):
    """Of a picture that says how large it is and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + end)
    with pytest.raises(LeftOutError) as caught:
        load_image(tmp_path / "x.png")
    assert caught.value.reason == reason


def test_a_line_wider_than_pillow_can_count_is_too_large_and_no_lack_of_memory(tmp_path):
    Image.new("1", (2**26 + 1, 1)).save(tmp_path / "wide.png")
    with pytest.raises(LeftOutError, match=r"wide\.png") as caught:
        load_image(tmp_path / "wide.png")
    assert caught.value.reason == "image_too_large"


def test_only_the_formats_that_are_asked_for_are_read(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tga")
    assert load_image(tmp_path / "a.tga").shape == (8, 8, 3)
    with pytest.raises(LeftOutError, match="known format"):
        load_image(tmp_path / "a.tga", formats=("JPEG", "PNG"))


def test_a_drawing_program_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("the program was run"))
    Image.new("RGB", (8, 8)).save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "drawing.jpg")
    with pytest.raises(LeftOutError, match="not a photograph") as caught:
        load_image(tmp_path / "drawing.jpg")
    assert caught.value.reason == "image_broken"


def test_a_file_that_cannot_be_read_is_not_called_broken():
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs a file whose reading fails: Linux's /proc/self/mem")
    with pytest.raises(LeftOutError) as caught:
        load_image(find_image("mem", [Path("/proc/self")]))
    assert caught.value.reason == "image_unreadable"


def test_running_out_of_memory_is_not_blamed_on_the_picture(tmp_path, monkeypatch):
    def out_of_memory(_):
        raise MemoryError

    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    monkeypatch.setattr("attrtrain.shards.crop._rgb", out_of_memory)
    with pytest.raises(MemoryError):
        load_image(tmp_path / "good.png")


# --- find_image


@pytest.mark.parametrize(
    "stored", ["000000000042.jpg", "COCO_val2014_000000000042.jpg", "COCO_train2014_000000000042.jpg"]
)
@pytest.mark.parametrize(
    "asked", ["000000000042.jpg", "COCO_val2014_000000000042.jpg", "COCO_train2014_000000000042.jpg"]
)
def test_names_of_2014_and_2017_find_each_other(tmp_path, stored, asked):
    (tmp_path / "empty").mkdir()
    (tmp_path / stored).touch()
    assert find_image(asked, [tmp_path / "empty", tmp_path]) == tmp_path / stored


def test_the_given_name_goes_before_other_years_and_the_first_folder_before_the_second(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "x.jpg").touch()
    (tmp_path / "a" / "sub" / "COCO_val2014_x.jpg").touch()
    folders = [tmp_path / "a", tmp_path / "b"]
    assert find_image("sub/x.jpg", folders) == tmp_path / "a" / "sub" / "x.jpg"
    assert find_image("sub/x.jpg", folders[::-1]) == tmp_path / "b" / "sub" / "x.jpg"


def test_different_photographs_of_one_name_are_left_out(tmp_path):
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(content)
    a, b, c = (tmp_path / folder for folder in "abc")
    assert find_image("x.jpg", [a, b]) == a / "x.jpg"
    with pytest.raises(
        LeftOutError, match=rf"{a}/x\.jpg and {c}/x\.jpg are different photographs of one name"
    ) as caught:
        find_image("x.jpg", [a, b, c])
    assert caught.value.reason == "image_ambiguous"


def test_photographs_of_one_name_size_and_time_are_told_apart_by_what_they_hold(tmp_path):
    """Archives that are unpacked, and files that are copied, keep times."""
    for folder, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(content)
        os.utime(tmp_path / folder / "x.jpg", ns=(10**18, 10**18))
    a, b, c = (tmp_path / folder for folder in "abc")
    assert find_image("x.jpg", [a, c]) == a / "x.jpg"
    with pytest.raises(LeftOutError) as caught:
        find_image("x.jpg", [a, b])
    assert caught.value.reason == "image_ambiguous"


def test_a_web_server_is_asked_for_names_with_signs_of_its_own(tmp_path):
    names = ["a#b.jpg", "100%.jpg", "what?.jpg", "c d.jpg", "plain.jpg", "sub/é.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        found = [find_image(name, [url]).content.decode() for name in names]
        server.shutdown()
    assert found == names


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    "name", ["nowhere.jpg", "", ".", "..", "/", "folder.jpg", "x" * 5000, "a\0b.jpg", "file.jpg/x.jpg"]
)
def test_what_names_no_file_is_missing(tmp_path, name):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "file.jpg").touch()
    with pytest.raises(LeftOutError) as caught:
        find_image(name, [tmp_path])
    assert caught.value.reason == ("image_outside" if name in ("..", "/") else "image_missing")


@pytest.mark.parametrize("name", ["../photos/a.jpg", "x/../../photos/a.jpg", "../secret.jpg", "ABSOLUTE/secret.jpg"])
def test_a_name_that_leads_out_of_the_folders_is_refused(tmp_path, name):
    """Under another spelling, a photograph would have another id, and be trained on and judged at once."""
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "photos" / "a.jpg", tmp_path / "secret.jpg"):
        path.touch()
    with pytest.raises(LeftOutError, match=r"not below .*photos") as caught:
        find_image(name.replace("ABSOLUTE", str(tmp_path)), [tmp_path / "photos"])
    assert caught.value.reason == "image_outside"
    assert find_image(str(tmp_path / "photos" / "a.jpg"), [tmp_path / "photos"]) == tmp_path / "photos" / "a.jpg"


# --- cut

NAN, INF = math.nan, math.inf


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
    (tmp_path / "x.jpg").write_bytes(JPEGS["quality 100"])
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

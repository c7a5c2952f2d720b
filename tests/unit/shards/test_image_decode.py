"""Files of pictures as people have them → pixels, beside what Pillow makes of them."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from drawn_pictures import RED, drawn_jpeg, drawn_pixels, jpeg_bytes, pixels, upright
from PIL import Image, ImageOps

from attrtrain.errors import LeftOutError
from attrtrain.shards.crop import cut
from attrtrain.shards.image_decode import load_image
from attrtrain.shards.image_lookup import FetchedImage, find_image
from attrtrain.shards.manifest import CropSettings

ORIENTATION = 0x0112


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
    assert str(caught.value).endswith(
        "bomb.png: more than 2,000 pixels; make it smaller, and its boxes with it, or cut it into several"
    )
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
    with pytest.raises(LeftOutError, match=r"wide\.png: 67,108,865 pixels are more than a line may have") as caught:
        load_image(tmp_path / "wide.png")
    assert caught.value.reason == "image_too_large"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS's pointer to the file"),
        (b"\n<!DOCTYPE html><html><body>403</body></html>", "a web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "a HEIC picture"),
        (b"plain text", "no picture of a known format"),
    ],
)
def test_what_is_there_in_place_of_a_picture_is_told(tmp_path, content, told):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for source in (path, FetchedImage("s3://bucket/photo.jpg", content)):
        with pytest.raises(LeftOutError, match=f"photo.jpg: {told}") as caught:
            load_image(source)
        assert caught.value.reason == "image_broken"


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
    monkeypatch.setattr("attrtrain.shards.image_decode._rgb", out_of_memory)
    with pytest.raises(MemoryError):
        load_image(tmp_path / "good.png")

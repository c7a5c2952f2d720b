"""Pictures drawn for the tests of how files become pixels, and pixels crops."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RED = (200, 30, 40)


def pixels(image: Any) -> NDArray[np.int64]:
    return np.asarray(image).astype(int)


def upright() -> NDArray[np.uint8]:
    """24 x 16 pixels, no two of them equal."""
    y, x = np.mgrid[:16, :24]
    return np.stack([x * 10, y * 15, (x * 7 + y * 3) % 251], axis=2).astype(np.uint8)


def jpeg_bytes(size: tuple[int, int] = (64, 48)) -> bytes:
    """Noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def drawn_pixels(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Edges, gradients and noise in all colours."""
    y, x = np.mgrid[: size[1], : size[0]]
    noise = np.random.default_rng(7).integers(0, 40, (size[1], size[0], 3))
    gradients = np.stack([x * 200 // size[0], y * 200 // size[1], (x // 9 + y // 7) % 2 * 200], axis=2)
    return (gradients + noise).astype(np.uint8)


def drawn_jpeg(mode: str, size: tuple[int, int], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawn_pixels(size)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()

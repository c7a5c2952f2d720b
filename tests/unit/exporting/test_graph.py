"""Resizing as it is exported, beside Pillow's and beside training's."""

import numpy as np
import pytest
import torch
from PIL import Image

from attrtrain.data.decode import squashed
from attrtrain.exporting.graph import ExportedNetwork, squash_as_floats
from attrtrain.framing import Framing


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "share"),
    [((90, 70), 0.02), ((20, 75), 0.02), ((7, 9), 0.02), ((1, 1), 0), ((32, 32), 0), ((401, 333), 0.05)],
)
def test_nearly_every_pixel_is_pillow_s_and_within_a_level_of_training_s(size, share, interpolation):
    image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    resampling = Image.Resampling[interpolation.upper()]
    by_pillow = np.asarray(Image.fromarray(image).resize((32, 32), resampling)).transpose(2, 0, 1)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    ours = squash_as_floats(pixels[None], 32, interpolation)[0]
    assert ours.dtype == torch.uint8
    apart = np.abs(ours.numpy().astype(int) - by_pillow)
    assert apart.max() <= 1 and (apart > 0).mean() <= share
    # OpenCV, with which training enlarges, rounds otherwise than Pillow: by one level, at more of the pixels.
    assert np.abs(ours.numpy().astype(int) - squashed(image, 32, interpolation).numpy()).max() <= 1


@pytest.mark.parametrize("size", [(90, 70), (20, 75), (7, 9), (1, 6), (32, 32)])
def test_padding_inside_is_training_s_padding(size):
    image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    inside = ExportedNetwork(torch.nn.Identity(), 32, True, "pad").resized(
        torch.from_numpy(image).permute(2, 0, 1)[None]
    )
    usual = squashed(Framing(fit="pad").fitted(image), 32)
    assert (inside[0].int() - usual.int()).abs().max() <= 1

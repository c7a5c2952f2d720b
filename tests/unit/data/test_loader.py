"""Batches: the pixels torchvision's reference transform gives, in the order asked for, whatever the workers."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from attrtrain.data.augment import apply_flips, draw_flips
from attrtrain.data.decode import decode_crop
from attrtrain.data.loader import CropDataset, load_batches
from attrtrain.data.order import TrainOrder, evaluation_requests
from attrtrain.data.reader import ShardSet

CPU = torch.device("cpu")


def test_pixels_are_the_reference_transforms_within_rounding(toy_shards: Path) -> None:
    shards = ShardSet([toy_shards], "val")
    reference = v2.Compose([v2.PILToTensor(), v2.Resize((48, 48), antialias=True)])
    for position in range(10):
        jpeg = shards.jpeg(position)
        expected = reference(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        difference = (decode_crop(jpeg, 48).int() - expected.int()).abs()
        assert difference.float().mean() < 0.5 and difference.max() <= 8, position


def test_a_batch_holds_what_was_asked_for(toy_shards: Path) -> None:
    shards = ShardSet([toy_shards], "train")
    order = TrainOrder(len(shards), 0, 8, 4, 0, 1)
    requests = list(order.requests(1, 0, 0))
    batches = list(load_batches(CropDataset(shards, 32), requests, CPU, workers=0))
    assert len(batches) == len(requests)
    for request, batch in zip(requests, batches, strict=True):
        assert batch.image.dtype == torch.uint8 and batch.image.shape == (4, 3, 32, 32)
        labels = shards.labels(request.index)
        assert batch.index.tolist() == request.index.tolist()
        assert np.array_equal(batch.known.numpy(), ~np.isnan(labels))
        assert np.array_equal(batch.target.numpy(), np.nan_to_num(labels))
        assert batch.step_known == (~np.isnan(shards.labels(request.step_index))).sum()
        for row, position in enumerate(request.index):
            assert torch.equal(batch.image[row], decode_crop(shards.jpeg(int(position)), 32))


@pytest.mark.slow
def test_workers_change_nothing(toy_shards: Path) -> None:
    dataset = CropDataset(ShardSet([toy_shards], "val"), 32)
    requests = list(evaluation_requests(len(dataset.shards), 5, 0, 1))
    alone = list(load_batches(dataset, requests, CPU, workers=0))
    helped = list(load_batches(dataset, requests, CPU, workers=2))
    assert len(alone) == len(helped) == len(requests)
    for one, other in zip(alone, helped, strict=True):
        assert (
            torch.equal(one.image, other.image)
            and torch.equal(one.index, other.index)
            and torch.equal(one.target, other.target)
        )


def test_flips_follow_from_seed_epoch_and_sample_alone() -> None:
    index = np.arange(4000)
    flips = draw_flips(3, 1, index, 0.25)
    assert flips.float().mean().item() == pytest.approx(0.25, abs=0.03)
    shuffled = np.random.default_rng(0).permutation(index)
    assert torch.equal(draw_flips(3, 1, shuffled, 0.25), flips[torch.from_numpy(shuffled)])
    assert not torch.equal(draw_flips(3, 2, index, 0.25), flips)
    assert not draw_flips(3, 1, index, 0.0).any() and draw_flips(3, 1, index, 1.0).all()


def test_a_flip_mirrors_left_and_right_of_the_chosen_images_only() -> None:
    images = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).view(2, 3, 2, 4)
    flipped = apply_flips(images, torch.tensor([False, True]))
    assert torch.equal(flipped[0], images[0])
    assert flipped[1].tolist() == [[row[::-1] for row in channel] for channel in images[1].tolist()]

"""Batches: the pixels torchvision's reference transform gives, in the order asked for, whatever the workers."""

import io
import math
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.cuda._utils import _get_device_index
from torchvision.transforms import v2

from attrtrain.config.schema import Interpolation, ResizeOn
from attrtrain.data import loader, shard_files
from attrtrain.data.augment import apply_flips, draw_flips
from attrtrain.data.decode import decode_crop, squash
from attrtrain.data.device_resize import resize_packed
from attrtrain.data.loader import Batch, CropDataset, load_batches
from attrtrain.data.order import BatchRequest, TrainOrder, evaluation_requests
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError
from attrtrain.framing import MEAN_COLOUR, Framing
from tests.damage import damage_crop

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


def test_a_crop_that_shrinks_is_antialiased_as_the_reference_does() -> None:
    stripes = np.zeros((150, 260, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing they stay stripes
    square = np.empty((64, 64, 3), np.uint8)
    squash(stripes, square)
    assert square.min() > 100 and square.max() < 155


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 5), (1, 1), (64, 64), (63, 64), (65, 20), (100, 300), (250, 31), (17, 1)])
def test_every_way_of_resizing_gives_the_reference_pixels_within_rounding(
    size: tuple[int, int], interpolation: Interpolation
) -> None:
    rng = np.random.default_rng(sum(size))
    others = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(9, 120), (128, 2)]]
    crops = [others[0], rng.integers(0, 256, (*size, 3), dtype=np.uint8), others[1]]
    packed = resize_packed(
        torch.from_numpy(np.concatenate([c.ravel() for c in crops])), [c.shape[:2] for c in crops], 64, interpolation
    )
    assert packed.is_contiguous(memory_format=torch.channels_last)
    for crop, resized in zip(crops, packed, strict=True):
        expected = v2.functional.resize(
            torch.from_numpy(crop).permute(2, 0, 1), [64, 64], v2.InterpolationMode(interpolation), antialias=True
        ).int()
        square = np.empty((64, 64, 3), np.uint8)
        squash(crop, square, interpolation)
        assert (torch.from_numpy(square).permute(2, 0, 1).int() - expected).abs().max() <= 1
        apart = (resized.int() - expected).abs()
        # torch weighs in 16-bit fixed point: a level between the two passes rounded otherwise may count more than once
        # where a filter overshoots.
        assert apart.max() <= (1 if interpolation == "bilinear" else 2) and (apart > 1).float().mean() < 0.002


@pytest.mark.parametrize("image_px", [32, 160])  # at 32 most crops are too long to be packed
def test_resizing_on_the_device_gives_the_same_batches_within_rounding(toy_shards: Path, image_px: int) -> None:
    shards = ShardSet([toy_shards], "val")
    requests = list(evaluation_requests(len(shards), 40, 0, 1))  # more than are padded at once
    usual = load_batches(CropDataset(shards, image_px), requests, CPU, workers=0)
    packed = load_batches(CropDataset(shards, image_px, "device"), requests, CPU, workers=0)
    longest = max(shards.column("width").max(), shards.column("height").max())
    assert (longest > 3 * image_px) == (image_px == 32)
    for one, other in zip(usual, packed, strict=True):
        assert torch.equal(one.target, other.target) and torch.equal(one.index, other.index)
        assert one.image.shape == other.image.shape
        assert (one.image.int() - other.image.int()).abs().max() <= 1


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize_on", ["worker", "device"])
@pytest.mark.parametrize("image_px", [32, 160])  # at 32 most crops are too long to be packed
def test_crops_are_resized_by_the_interpolation_that_was_asked_for(
    toy_shards: Path, image_px: int, resize_on: ResizeOn, interpolation: Interpolation, workers: int
) -> None:
    shards = ShardSet([toy_shards], "val")
    dataset = CropDataset(shards, image_px, resize_on, Framing(interpolation=interpolation))
    size, apart = [image_px, image_px], []
    long = shards.column("width").clip(min=shards.column("height")) > 3 * image_px
    assert long.any() == (image_px == 32) and not long.all()
    for batch in load_batches(dataset, list(evaluation_requests(len(shards), 40, 0, 1)), CPU, workers):
        for position, image in zip(batch.index.tolist(), batch.image, strict=True):
            crop = v2.functional.pil_to_tensor(Image.open(io.BytesIO(shards.jpeg(position))))
            expected, other = (
                v2.functional.resize(crop, size, v2.InterpolationMode(name), antialias=True).int()
                for name in (interpolation, {"bilinear": "bicubic", "bicubic": "bilinear"}[interpolation])
            )
            assert (image.int() - expected).abs().max() <= 2, position
            apart.append((image.int() - other).abs().max().item())
    assert min(apart) > 2  # else either would do


@pytest.mark.parametrize("resize_on", ["worker", "device"])
@pytest.mark.parametrize(
    "framing", [Framing(context=0.1), Framing(context=0.0, fit="pad"), Framing(fit="pad")], ids=str
)
def test_less_context_and_padding_are_cut_and_padded_by_hand(
    wide_shards: Path, framing: Framing, resize_on: ResizeOn
) -> None:
    """Beside Pillow, with the box from the sample's JSON."""
    shards = ShardSet([wide_shards], "val")
    requests = list(evaluation_requests(len(shards), 40, 0, 1))
    cut_down = 0
    for batch in load_batches(CropDataset(shards, 48, resize_on, framing), requests, CPU, workers=0):
        for position, image in zip(batch.index.tolist(), batch.image, strict=True):
            crop = Image.open(io.BytesIO(shards.jpeg(position)))
            x, y, width, height = shards.details(position)["box"]
            if framing.context is not None:
                beside, above = framing.context * width, framing.context * height
                near = max(0, math.floor(x - beside + 0.001)), max(0, math.floor(y - above + 0.001))
                far = math.ceil(x + width + beside - 0.001), math.ceil(y + height + above - 0.001)
                whole, crop = crop.size, crop.crop((*near, min(far[0], crop.width), min(far[1], crop.height)))
                cut_down += crop.size != whole
            if framing.fit == "pad":
                square = Image.new("RGB", (max(crop.size),) * 2, MEAN_COLOUR)
                square.paste(crop, ((square.width - crop.width) // 2, (square.height - crop.height) // 2))
                crop = square
            expected = v2.functional.resize(v2.functional.pil_to_tensor(crop), [48, 48], antialias=True)
            difference = (image.int() - expected.int()).abs()  # of the decoders, too
            assert difference.float().mean() < 0.5 and difference.max() <= 8, position
    assert framing.context is None or cut_down > len(shards) / 2


@pytest.mark.parametrize("resize_on", ["worker", "device"])
def test_less_context_and_padding_depend_on_nothing_but_the_sample(wide_shards: Path, resize_on: ResizeOn) -> None:
    dataset = CropDataset(ShardSet([wide_shards], "val"), 32, resize_on, Framing(context=0.1, fit="pad"))
    requests = list(evaluation_requests(len(dataset.shards), 7, 0, 1))
    together = torch.cat([batch.image for batch in load_batches(dataset, requests, CPU, workers=2)])
    singly = (BatchRequest(0, np.array([row]), np.array([row])) for row in range(len(dataset.shards)))
    for row, batch in enumerate(load_batches(dataset, singly, CPU, workers=0)):
        assert (batch.image[0].int() - together[row].int()).abs().max() <= (resize_on == "device"), row


def test_more_context_than_is_stored_is_refused(toy_shards: Path) -> None:
    with pytest.raises(
        ShardError, match=r"stores a context of 0, the network is to see 0\.1; shard with --context 0\.1"
    ):
        CropDataset(ShardSet([toy_shards], "val"), 32, framing=Framing(context=0.1))


@pytest.mark.parametrize("folders_before", [0, 1])
@pytest.mark.parametrize("resize_on", ["worker", "device"])
def test_a_damaged_crop_is_named(toy_shards: Path, tmp_path: Path, resize_on: ResizeOn, folders_before: int) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(toy_shards, copy)
    object_id, shard = damage_crop(ShardSet([copy], "val"), 3)
    shards = ShardSet([toy_shards] * folders_before + [copy], "val")
    request = BatchRequest(0, np.arange(5) + len(shards) - len(ShardSet([copy], "val")), np.arange(5))
    with pytest.raises(
        ShardError, match=rf"^object {object_id} in {shard}: .*; check it with `attrtrain verify {copy}`$"
    ):
        CropDataset(shards, 32, resize_on)[request]


@pytest.mark.parametrize(
    ("resize_on", "framing"),
    [
        ("device", Framing()),
        ("device", Framing(fit="pad")),
        ("worker", Framing(fit="pad")),
        ("worker", Framing(context=0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [-1, 1])
def test_a_crop_that_is_larger_or_smaller_than_the_index_says_is_named(
    toy_shards: Path, tmp_path: Path, more: int, resize_on: ResizeOn, framing: Framing
) -> None:
    """It is decoded into memory for what the index says, or cut where the index says."""
    copy = tmp_path / "shards"
    shutil.copytree(toy_shards, copy)
    index = np.load(copy / "index.npy")
    index["height"] += more
    np.save(copy / "index.npy", index)
    with pytest.raises(ShardError, match=r"object \d+ in .*: .*attrtrain verify"):
        CropDataset(ShardSet([copy], "val"), 160, resize_on, framing)[BatchRequest(0, np.arange(5), np.arange(5))]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("resize_on", ["worker", "device"])
@pytest.mark.parametrize("image_px", [32, 160])  # other kernels shrink than enlarge
def test_workers_change_nothing(toy_shards: Path, resize_on: ResizeOn, workers: int, image_px: int) -> None:
    dataset = CropDataset(ShardSet([toy_shards], "val"), image_px, resize_on)
    requests = list(evaluation_requests(len(dataset.shards), 5, 0, 1))
    alone = list(load_batches(dataset, requests, CPU, workers=0))
    helped = list(load_batches(dataset, requests, CPU, workers))
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


def test_a_loader_that_is_left_early_ends_its_threads(toy_shards: Path) -> None:
    dataset = CropDataset(ShardSet([toy_shards], "train"), 32)
    batches = load_batches(dataset, TrainOrder(len(dataset.shards), 0, 4, 4, 0, 1).requests(1000, 0, 0), CPU, workers=2)
    next(batches)
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_threads_pin_for_the_gpu_that_is_meant(toy_shards: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Accelerate names the GPU of a single process without its number, which torch takes nearly everywhere, and not
    here.
    """
    pinned_for: list[int] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pinned_for.append(_get_device_index(device)))
    monkeypatch.setattr(Batch, "pin_memory", lambda batch: batch)
    monkeypatch.setattr(loader, "_copied_beside_the_work", lambda batches, device: batches)
    dataset = CropDataset(ShardSet([toy_shards], "val"), 16)
    requests = [BatchRequest(0, part, part) for part in np.arange(24).reshape(6, 4)]
    batches = list(load_batches(dataset, requests, torch.device(name), workers=2))
    assert np.concatenate([batch.index for batch in batches]).tolist() == list(range(24))
    assert set(pinned_for) == {1}


@pytest.mark.parametrize("resize_on", ["worker", "device"])
def test_all_that_a_gpu_works_on_is_pinned(
    toy_shards: Path, monkeypatch: pytest.MonkeyPatch, resize_on: ResizeOn
) -> None:
    pinned: list[torch.Size] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    monkeypatch.setattr(loader, "_copied_beside_the_work", lambda batches, device: batches)
    shards = ShardSet([toy_shards], "val")
    dataset, rows = CropDataset(shards, 160, resize_on), np.arange(4)
    (found,) = load_batches(dataset, [BatchRequest(0, rows, rows)], torch.device("cuda:0"), workers=0)
    batch = found if isinstance(found, Batch) else found.batch
    attributes = len(shards.vocabulary)
    assert pinned == [batch.image.shape, (4, attributes), (4, attributes)]


class Streams:
    """Stands in for what torch.cuda has of streams, and writes down what is asked of them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, ...]] = []
        self.current = "working"
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.stream("copying"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.stream(self.current))
        monkeypatch.setattr(torch.cuda, "stream", self.within)
        monkeypatch.setattr(
            torch.Tensor, "record_stream", lambda tensor, stream: self.told.append(("uses", stream.name))
        )

    def stream(self, name: str) -> SimpleNamespace:
        def record_event() -> str:
            self.told.append(("copied", name))
            return f"event {len([entry for entry in self.told if entry[0] == 'copied']) - 1}"

        return SimpleNamespace(
            name=name, record_event=record_event, wait_event=lambda event: self.told.append((name, "waits for", event))
        )

    @contextmanager
    def within(self, stream: SimpleNamespace) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before


def test_each_batch_is_copied_beside_the_work_on_the_one_before_and_waited_for(
    toy_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = Streams(monkeypatch)
    monkeypatch.setattr(Batch, "pin_memory", lambda batch: batch)
    monkeypatch.setattr(Batch, "to", lambda batch, device: streams.told.append(("copy on", streams.current)) or batch)
    dataset = CropDataset(ShardSet([toy_shards], "val"), 16)
    requests = [BatchRequest(0, part, part) for part in np.arange(12).reshape(3, 4)]
    for number, _ in enumerate(load_batches(dataset, requests, torch.device("cuda:0"), workers=0)):
        streams.told.append(("step", str(number)))
        assert streams.current == "working"

    def arrives(number: int) -> list[tuple[str, ...]]:
        return [("working", "waits for", f"event {number}"), *[("uses", "working")] * 3, ("step", str(number))]

    copy = [("copy on", "copying"), ("copied", "copying")]
    assert streams.told == [*copy, *copy, *arrives(0), *copy, *arrives(1), *arrives(2)]


def test_what_goes_wrong_in_a_thread_is_told_as_it_is(toy_shards: Path) -> None:
    dataset = CropDataset(ShardSet([toy_shards], "val"), 32)
    far = BatchRequest(0, np.array([10**9]), np.array([10**9]))
    with pytest.raises(IndexError):
        list(load_batches(dataset, [far], CPU, workers=2))


def test_decoding_threads_share_the_files_that_may_be_open(toy_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = ShardSet([toy_shards], "train")
    assert len(shards.shard_samples) > 4
    monkeypatch.setattr(shard_files, "_open_files_allowed", lambda: 2)
    open_files = Path("/proc/self/fd")
    before, most = len(list(open_files.iterdir())), 0
    order = TrainOrder(len(shards), 0, 8, 8, rank=0, world_size=1)
    for _ in load_batches(CropDataset(shards, 32), order.requests(3, 0, 0), torch.device("cpu"), 6):
        most = max(most, len(list(open_files.iterdir())) - before)
    assert 0 < most <= 2 + 6  # those that stay open, and what each thread reads from

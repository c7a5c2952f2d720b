"""Windows that are moved about: beside a plain loop, inside the crop, and a function of the sample alone."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from attrtrain.config.schema import ResizeOn
from attrtrain.data.decode import decode, squashed
from attrtrain.data.jitter import Jitter
from attrtrain.data.loader import CropDataset, load_batches
from attrtrain.data.order import BatchRequest, evaluation_requests
from attrtrain.data.reader import ShardSet
from attrtrain.data.streams import Stream
from attrtrain.framing import Framing
from attrtrain.keyed_random import uniform

CPU = torch.device("cpu")


def drawn_windows(count: int, smallest: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw = random.Random(0)
    windows, sizes = [], []
    for _ in range(count):
        width, height = draw.randint(smallest, 300), draw.randint(smallest, 300)
        left, top = draw.randint(0, width - smallest), draw.randint(0, height - smallest)
        windows.append((left, top, draw.randint(left + 1, width), draw.randint(top + 1, height)))
        sizes.append((width, height))
    return np.array(windows), np.array(sizes)


def test_every_window_is_moved_as_a_plain_loop_does() -> None:
    windows, sizes = drawn_windows(200)
    moved = Jitter(3, 0.25).moved(windows, sizes, 5, np.arange(200))
    for sample in range(200):
        for axis in (0, 1):
            shift, scale = (
                float(0.25 * (2 * uniform(3, 5, sample, Stream.JITTER, axis + more) - 1)) for more in (0, 2)
            )
            near, far, most = windows[sample, axis], windows[sample, axis + 2], sizes[sample, axis]
            side = min((far - near) * (1 + scale), most)
            middle = (near + far) / 2 + shift * (far - near)
            begin = max(0.0, min(middle - side / 2, most - side))
            found = moved[sample, axis], moved[sample, axis + 2]
            assert found[0] == pytest.approx(min(begin, most - 1), abs=0.501), sample
            assert found[1] == pytest.approx(max(begin + side, found[0] + 1), abs=0.501), sample


def test_windows_stay_inside_and_are_never_empty() -> None:
    windows, sizes = drawn_windows(2000)
    for share in (0.1, 0.5):
        moved = Jitter(0, share).moved(windows, sizes, 0, np.arange(2000))
        assert (moved[:, :2] >= 0).all() and (moved[:, 2:] <= sizes).all() and (moved[:, 2:] > moved[:, :2]).all()


def test_shifts_and_scales_are_spread_over_the_whole_range_where_there_is_room() -> None:
    count = 4000
    window, size = np.tile([4000, 4000, 6000, 6000], (count, 1)), np.tile([10000, 10000], (count, 1))
    moved = Jitter(1, 0.2).moved(window, size, 0, np.arange(count))
    for axis in (0, 1):
        shift = (moved[:, axis] + moved[:, axis + 2]) / 2 / 2000 - 2.5
        scale = (moved[:, axis + 2] - moved[:, axis]) / 2000 - 1
        for values in (shift, scale):
            assert values.min() == pytest.approx(-0.2, abs=0.002) and values.max() == pytest.approx(0.2, abs=0.002)
            assert values.mean() == pytest.approx(0, abs=0.006) and values.std() == pytest.approx(
                0.4 / 12**0.5, abs=0.004
            )
        assert abs(np.corrcoef(shift, scale)[0, 1]) < 0.05


def test_a_window_depends_on_seed_epoch_and_sample_alone() -> None:
    windows, sizes = drawn_windows(50, smallest=100)
    jitter, index = Jitter(0, 0.3), np.arange(50) * 7
    moved = jitter.moved(windows, sizes, 2, index)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(jitter.moved(windows[order], sizes[order], 2, index[order]), moved[order])
    for other in (Jitter(1, 0.3).moved(windows, sizes, 2, index), jitter.moved(windows, sizes, 3, index)):
        assert (other != moved).any(axis=1).mean() > 0.8


@pytest.mark.parametrize("resize_on", ["worker", "device"])
@pytest.mark.parametrize("framing", [Framing(), Framing(context=0.1, fit="pad")], ids=str)
def test_batches_hold_what_was_cut_by_hand_whatever_the_workers(
    wide_shards: Path, framing: Framing, resize_on: ResizeOn
) -> None:
    shards, jitter = ShardSet([wide_shards], "train"), Jitter(0, 0.2)
    dataset = CropDataset(shards, 32, resize_on, framing, jitter)
    requests = [BatchRequest(4, request.index, request.index) for request in evaluation_requests(len(shards), 9, 0, 1)]
    batches = list(load_batches(dataset, requests, CPU, workers=2))
    images = torch.cat([batch.image for batch in batches])
    for alone, helped in zip(load_batches(dataset, requests, CPU, workers=0), batches, strict=True):
        assert torch.equal(alone.image, helped.image)
    moved_at_all = 0
    for row in range(len(shards)):
        one = np.array([row])
        size = [[int(shards.column(name, one)[0]) for name in ("width", "height")]]
        still = framing.windows(shards.column("box", one), size)
        window = jitter.moved(still, np.array(size), 4, one)[0]
        moved_at_all += (window != still[0]).any()
        expected = squashed(framing.shown(decode(shards.jpeg(row)), window), 32)
        assert (images[row].int() - expected.int()).abs().max() <= (resize_on == "device")
    twice = BatchRequest(4, np.array([3, 3, 3]), np.array([3, 3, 3]), np.array([0, 1, 2]))
    (batch,) = load_batches(dataset, [twice], CPU, workers=0)
    assert torch.equal(batch.image[0], images[3]) and batch.repeat.tolist() == [0, 1, 2]
    assert not torch.equal(batch.image[1], batch.image[0]) and not torch.equal(batch.image[1], batch.image[2])
    assert moved_at_all > 0.6 * len(shards)  # of what is shown whole already, nothing larger is shown

"""Data that many tests share: a toy COCO, the shards made from it, and real photographs where there are some."""

import os
import signal
from pathlib import Path

import pytest
import torch

from attrtrain.cli import main
from tools.make_toy_coco import draw_toy_coco

# Where several test processes share the cores, each training starts with one thread: more would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Whatever a script starts in the background has SIGINT ignored, and hands that on to the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a machine with a GPU, too, tests compare with what a CPU computes, here and in processes that they start; those of
# tests/gpu take this back.
if torch.cuda.is_available():
    os.environ["ACCELERATE_USE_CPU"] = "true"


@pytest.fixture(scope="session")
def toy_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy COCO of 40 photographs, about 200 labelled objects and 30 attributes. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("toy") / "coco"
    draw_toy_coco(folder, photographs=40, seed=0)
    return folder


@pytest.fixture(scope="session")
def toy_shards(toy_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy COCO as shards of about 25 objects: several in train and in val. Read them, never write into them."""
    return _shard(toy_coco, tmp_path_factory.mktemp("toy") / "shards")


@pytest.fixture(scope="session")
def wide_shards(toy_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with half a box's sides of context around each object, the larger of them made smaller."""
    return _shard(toy_coco, tmp_path_factory.mktemp("toy") / "wide", "--context", "0.5", "--store-px", "64")


def _shard(toy_coco: Path, folder: Path, *more: str) -> Path:
    annotations = toy_coco / "annotations"
    sources = {
        "--labels": (toy_coco / "cocottributes.pkl",),
        "--instances": (annotations / "instances_train2017.json", annotations / "instances_val2017.json"),
        "--images": (toy_coco / "train2017", toy_coco / "val2017"),
        "--out": (folder,),
    }
    given = [str(word) for flag, paths in sources.items() for word in (flag, *paths)]
    code = main(["shard", *given, *more, "--workers", "1", "--shard-objects", "25"])
    assert code == 0
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs and labels named by ATTRTRAIN_SHARED_DATA; skips the test where there is none."""
    folder = os.environ.get("ATTRTRAIN_SHARED_DATA")
    if not folder:
        pytest.skip("needs real photographs and labels: set ATTRTRAIN_SHARED_DATA to their folder")
    return Path(folder)

"""What a batch frees is there for the next one: pages that the system maps anew are counted, beside a process that
leaves the C library as it is.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import draw_bundle

# What the layers of a network do to memory: blocks of some sizes at once, all of them freed.
PASSES = """
import resource, threading, torch

def one_pass():
    return [torch.ones(size, dtype=torch.uint8) for size in (90_000_000, 40_000_000, 20_000_000, 20_000_000)]

def pages_mapped():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def count():
    for _ in range(40):  # until blocks lie where they will lie
        one_pass()
    before = pages_mapped()
    for _ in range(5):
        one_pass()
    print((pages_mapped() - before) // 5)
"""
HERE = "count()"
IN_A_THREAD = "thread = threading.Thread(target=count); thread.start(); thread.join()"
PAGES = 170_000_000 // 4096  # in one pass


def pages_of_a_pass(before: str, where: str) -> int:
    """Pages that a pass maps in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{PASSES}\n{where}"],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


@pytest.mark.parametrize(
    ("before", "where"),
    [
        ("from attrtrain.runtime import build_runtime; build_runtime('no')", HERE),  # training and evaluation
        ("from attrtrain.inference.predictor import Predictor; Predictor({bundle!r}, 'cpu')", HERE),
        # A server that finds no model, but has imported all it needs and set what it sets.
        ("from attrtrain.cli import main; assert main(['serve', '--model', 'none', '--port', '0'])", IN_A_THREAD),
    ],
)
def test_what_a_batch_frees_stays_for_the_next_one(tmp_path: Path, before: str, where: str):
    require_kept(before.format(bundle=str(draw_bundle(tmp_path / "bundle"))), where)


def test_what_sharding_a_photograph_frees_stays_for_the_next_one(toy_coco: Path, tmp_path: Path):
    words = ["--labels", toy_coco / "cocottributes.pkl", "--images", toy_coco / "val2017", "--out", tmp_path / "shards"]
    words += ["--instances", toy_coco / "annotations" / "instances_val2017.json", "--workers", "1"]
    call = f"main({['shard', *map(str, words)]})"
    require_kept(
        f"import contextlib, sys; from attrtrain.cli import main\nwith contextlib.redirect_stdout(sys.stderr): assert {call} == 0",
        HERE,
    )


def require_kept(before: str, where: str) -> None:
    if pages_of_a_pass("", where) < PAGES / 4:
        pytest.skip("pages here are so large that few are mapped")
    assert pages_of_a_pass(before, where) < PAGES / 20

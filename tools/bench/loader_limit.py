"""The limit of reading: pread and the fastest JPEG decoder over the same crops, and nothing else, on every core at
once.
"""

import multiprocessing
import os
import time
from itertools import cycle
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from attrtrain.shards.manifest import INDEX, read_manifest
from tools.bench.data import SPLIT

_MOST = 50_000  # crops whose places are held in a list


def turn(shards: str, seconds: float, cores: list[int]) -> dict[str, Any]:
    """Decodes on every core for so many seconds; `value` is crops per second per core."""
    context = multiprocessing.get_context("fork")
    barrier, rates = context.Barrier(len(cores)), context.SimpleQueue()
    processes = [context.Process(target=_decode, args=(shards, seconds, core, barrier, rates)) for core in cores]
    for process in processes:
        process.start()
    found = [rates.get() for _ in processes]
    for process in processes:
        process.join()
    return {"value": sum(found) / len(cores)}


def _decode(shards: str, seconds: float, core: int, barrier: Barrier, rates: Any) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [core])
    folder = Path(shards)
    manifest = read_manifest(folder)
    index = np.load(folder / INDEX, mmap_mode="r", allow_pickle=False)
    own = [number for number, shard in enumerate(manifest.shards) if shard.split == SPLIT]
    rows = np.random.default_rng(core).permutation(np.flatnonzero(np.isin(index["shard"], own)))
    files = {number: os.open(folder / manifest.shards[number].name, os.O_RDONLY) for number in own}
    places = [
        (files[int(row["shard"])], int(row["jpeg_bytes"]), int(row["jpeg_offset"])) for row in index[rows[:_MOST]]
    ]
    barrier.wait()
    begun, crops = time.perf_counter(), 0
    for handle, size, offset in cycle(places):
        simplejpeg.decode_jpeg(os.pread(handle, size, offset), "RGB", fastdct=True, fastupsample=True)
        crops += 1
        if (elapsed := time.perf_counter() - begun) >= seconds:
            break
    rates.put(crops / elapsed)

"""Who cuts crops: each gets a folder with photos/ and boxes.csv, and an output folder that is gone before and after."""

import csv
import io
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from inspect import signature
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from attrtrain.allocator import keep_freed_memory
from attrtrain.shards.manifest import CropSettings

_CROP = CropSettings()
_Frame = tuple[int, int, int, int]
_Object = tuple[Path, _Frame]


def limit(folder: str, out: str, cores: list[int]) -> dict[str, Any]:
    """Each photograph decoded once, each crop encoded once."""
    return _shared(folder, out, cores, _decode_and_encode)


def loop(folder: str, out: str, cores: list[int]) -> dict[str, Any]:
    """The loop people write: for every object open the photograph, crop, save."""
    return _shared(folder, out, cores, _loop)


def img2dataset_writer(folder: str, out: str, cores: list[int]) -> dict[str, Any]:
    """The same loop into tars, by img2dataset's writer. Its downloader has no part in this: it takes whole pictures
    from URLs.
    """
    import img2dataset.writer  # noqa: F401  (missing here, not in a process of its own)

    return _shared(folder, out, cores, _loop_into_tars)


def ours(folder: str, out: str, cores: list[int]) -> dict[str, Any]:
    """The command, with a worker a core."""
    from attrtrain.cli import main

    shutil.rmtree(out, ignore_errors=True)
    words = [
        "--labels",
        f"{folder}/boxes.csv",
        "--images",
        f"{folder}/photos",
        "--out",
        out,
        "--workers",
        str(len(cores)),
    ]
    begun = time.perf_counter()
    code = main(["shard", *words, "--max-failure-rate", "0"])
    seconds = time.perf_counter() - begun
    if code != 0:
        raise RuntimeError("attrtrain shard left objects out")
    shutil.rmtree(out)
    with Path(folder, "boxes.csv").open(newline="") as file:
        objects = sum(1 for _ in csv.reader(file)) - 1  # counted row by row: a list of them would be most of our peak
    return {"value": objects / seconds / len(cores)}


def _shared(folder: str, out: str, cores: list[int], work: Callable[[Sequence[_Object], Path], None]) -> dict[str, Any]:
    """Lets one process a core do its share of the photographs."""
    shutil.rmtree(out, ignore_errors=True)
    Path(out).mkdir(parents=True)
    objects = _objects(folder)
    photographs = [list(group) for _, group in groupby(objects, key=itemgetter(0))]
    shares = [[one for group in photographs[part :: len(cores)] for one in group] for part in range(len(cores))]
    context = multiprocessing.get_context("fork")
    folders = [Path(out) / str(core) for core in cores]
    begun = time.perf_counter()
    with ProcessPoolExecutor(len(cores), context) as executor:
        list(executor.map(_bound, cores, [work] * len(cores), shares, folders))
    seconds = time.perf_counter() - begun
    shutil.rmtree(out)
    return {"value": len(objects) / seconds / len(cores)}


def _bound(core: int, work: Callable[[Sequence[_Object], Path], None], share: Sequence[_Object], out: Path) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [core])
    out.mkdir()
    work(share, out)


def _objects(folder: str) -> list[_Object]:
    with Path(folder, "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(Path(folder, "photos", row["file_name"]), _frame(*(float(row[side]) for side in "xywh"))) for row in rows]


def _frame(x: float, y: float, width: float, height: float) -> _Frame:
    """Whole pixels that hold the box, left and top not below 0."""
    return math.floor(max(x, 0)), math.floor(max(y, 0)), math.ceil(x + width), math.ceil(y + height)


def _decode_and_encode(share: Sequence[_Object], out: Path) -> None:
    keep_freed_memory()  # else the system clears and maps each photograph's memory anew: a twentieth of all
    for path, group in groupby(share, key=itemgetter(0)):
        photograph = simplejpeg.decode_jpeg(path.read_bytes(), "RGB")  # (H, W, 3)
        for _, (left, top, right, bottom) in group:
            crop = photograph[top:bottom, left:right]
            if min(crop.shape[:2]) > _CROP.store_px:
                crop = np.asarray(_stored(Image.fromarray(crop)))
            simplejpeg.encode_jpeg(crop, quality=_CROP.quality, colorspace="RGB", colorsubsampling="420")


def _loop(share: Sequence[_Object], out: Path) -> None:
    for number, one in enumerate(share):
        _cut(one).save(out / f"{number:09d}.jpg", quality=_CROP.quality)


def _loop_into_tars(share: Sequence[_Object], out: Path) -> None:
    import pyarrow
    from img2dataset.writer import WebDatasetSampleWriter

    schema = pyarrow.schema([pyarrow.field("key", pyarrow.string())])
    per_tar = 500
    newer = {"encode_format": "jpg"} if "encode_format" in signature(WebDatasetSampleWriter.__init__).parameters else {}
    for first in range(0, len(share), per_tar):
        writer = WebDatasetSampleWriter(first // per_tar, str(out), False, 5, schema, **newer)
        for number, one in enumerate(share[first : first + per_tar], first):
            buffer = io.BytesIO()
            _cut(one).save(buffer, "JPEG", quality=_CROP.quality)
            writer.write(buffer.getvalue(), f"{number:09d}", None, {"key": f"{number:09d}"})
        writer.close()


def _cut(one: _Object) -> Image.Image:
    path, (left, top, right, bottom) = one
    with Image.open(path) as photograph:
        frame = (left, top, min(right, photograph.width), min(bottom, photograph.height))
        return _stored(photograph.convert("RGB").crop(frame))


def _stored(crop: Image.Image) -> Image.Image:
    scale = min(1.0, _CROP.store_px / min(crop.size))
    if scale == 1:
        return crop
    return crop.resize((round(crop.width * scale), round(crop.height * scale)), Image.Resampling.BICUBIC)

"""`loader`: crops per second and core, from local shards to a batch that is ready on its device.

The limit reads the same bytes with pread and decodes them with the fastest JPEG decoder there is, and does nothing
else. Every contender goes on through one long epoch for some seconds, after a few batches to get under way; in all of
them a sample is a crop squashed to a square.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.bench import child
from tools.bench.contest import Contender, Role, run_fresh, take_turns
from tools.bench.data import Source, read_once, repeat_shards
from tools.bench.install import environments_apart
from tools.bench.result import Case, Result

Batches = Iterator[tuple[Any, NDArray[np.int64]]]
"""Of B images, a tensor (B, 3, H, W) of uint8 or float32, and object ids (B,)."""

OURS = "tools.bench.loader_ours:batches"
WORKERS_SHARE = "tools.bench.loader_ours:workers_share"
PEERS = {
    "webdataset + PIL + torchvision v2": "tools.bench.loader_torch:webdataset_pil",
    "webdataset + torchvision decode": "tools.bench.loader_torch:webdataset_torchvision",
    "Dataset over photographs": "tools.bench.loader_torch:photographs",
    "litdata": "tools.bench.loader_formats:litdata",
    "mosaicml-streaming": "tools.bench.loader_formats:mosaic",
    "ffcv": "tools.bench.loader_native:ffcv",
    "dali": "tools.bench.loader_native:dali",
}
CONVERTERS = {
    "litdata": "tools.bench.loader_formats:write_litdata",
    "mosaicml-streaming": "tools.bench.loader_formats:write_mosaic",
    "ffcv": "tools.bench.loader_native:write_ffcv",
}
_ENDLESS = 1_000_000  # epochs
_FEW = 1000  # samples


@dataclass(frozen=True)
class Spec:
    """What a contender is asked to load.

    Attributes:
        shards: shard folder; its split "train" is read.
        images: folders of the photographs that the crops were cut from.
        converted: a folder for the crops in the contender's own format.
        workers: decoding processes; 0 decodes in the process that takes the batches.
        batch: samples a batch.
        image_px: side of the square.
        epochs: passes over the data.
        seed: of the order.
        pinned: whether DataLoaders are to hand on memory that a GPU copies from beside its work.
    """

    shards: str
    images: tuple[str, ...]
    converted: str
    workers: int
    batch: int
    image_px: int
    epochs: int = 1
    seed: int = 0
    pinned: bool = False


def run(arguments: argparse.Namespace, source: Source, work: Path) -> Result:
    """Compares in one process on one core, and with 1 and 2 workers; then looks at how cost grows with the number of
    samples.
    """
    samples = repeat_shards(source.shards, work / "repeated", max(arguments.samples_compared, arguments.batch))
    read_once(work / "repeated")
    cores: list[int] = arguments.cores
    cases = [
        _case("one process, one core", 0, cores[:1], arguments, source, work),
        _case("1 worker, one core", 1, cores[:1], arguments, source, work),
    ]
    if len(cores) > 1:
        cases.append(_case("2 workers, two cores", 2, cores[:2], arguments, source, work))
    cases.append(_share_case(cores[:1], arguments, work))
    settings = {
        "samples": samples,
        "batch": arguments.batch,
        "image_px": arguments.image_px,
        "seconds": arguments.seconds,
    }
    return Result("loader", cases, settings, {"growth": _growth(arguments, source, work)})


def _share_case(cores: list[int], arguments: argparse.Namespace, work: Path) -> Case:
    """Decoding alone, as workers do it for a device that resizes; no peer hands out crops of all sizes in one batch."""
    spec = Spec(str(work / "repeated"), (), "", 0, arguments.batch, arguments.image_px, epochs=_ENDLESS)
    settings = {"spec": asdict(spec), "seconds": arguments.seconds, "cores": cores, "function": WORKERS_SHARE}
    contenders = [
        _limit(cores, arguments, work),
        Contender("attrtrain", "attrtrain", "tools.bench.loader:turn", settings),
    ]
    rows = take_turns(contenders, arguments.repeats, cores, arguments.limit_seconds)
    return Case("a worker's share where the device resizes, one core", rows, "crops per second per core")


def _limit(cores: list[int], arguments: argparse.Namespace, work: Path) -> Contender:
    settings = {"shards": str(work / "repeated"), "seconds": arguments.seconds, "cores": cores}
    return Contender("pread + simplejpeg", "limit", "tools.bench.loader_limit:turn", settings)


def _case(name: str, workers: int, cores: list[int], arguments: argparse.Namespace, source: Source, work: Path) -> Case:
    def contender(title: str, role: Role, function: str) -> Contender:
        converted = work / title.replace(" ", "-")
        spec = Spec(
            shards=str(work / "repeated"),
            images=tuple(map(str, source.images)),
            converted=str(converted),
            workers=workers,
            batch=arguments.batch,
            image_px=arguments.image_px,
            epochs=_ENDLESS,
        )
        return Contender(
            title, role, "tools.bench.loader:turn",
            {"spec": asdict(spec), "seconds": arguments.seconds, "cores": cores, "function": function},
            prepare=None if converted.exists() else CONVERTERS.get(title),
            environment=environments_apart().get(title),
        )  # fmt: skip

    contenders = [
        _limit(cores, arguments, work),
        contender("attrtrain", "attrtrain", OURS),
        *(contender(title, "peer", function) for title, function in PEERS.items()),
    ]
    rows = take_turns(contenders, arguments.repeats, cores, arguments.limit_seconds)
    return Case(name, rows, "crops per second per core")


def turn(spec: dict[str, Any], seconds: float, cores: list[int], function: str) -> dict[str, Any]:
    """One turn of one contender, in its fresh process: so many seconds of batches, after the first few."""
    wanted = Spec(**spec)
    stream = open_batches(function, wanted)
    images, _ = next(stream)
    first = time.monotonic() - child.started
    for _ in range(2 * wanted.workers + 1):  # what workers had time to prepare before anybody looked at the clock
        next(stream)
    begun, crops = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds or crops == 0:
        crops += len(next(stream)[1])
    return {
        "value": crops / elapsed / len(cores),
        "first_batch_seconds": first,
        "crops": crops,
        "shape": list(images.shape),
        "dtype": str(images.dtype).removeprefix("torch."),
    }


def open_batches(function: str, spec: Spec) -> Batches:
    """The batches of one contender, "module:function"."""
    module, _, name = function.partition(":")
    batches: Batches = iter(getattr(importlib.import_module(module), name)(spec))
    return batches


def _growth(arguments: argparse.Namespace, source: Source, work: Path) -> dict[str, Any]:
    """Measures attrtrain alone, in one process, on 1,000 and on `--samples` samples: rate, seconds from nothing to the
    first batch, memory.
    """
    sizes: dict[str, Any] = {}
    rates: dict[str, list[dict[str, Any]]] = {}
    for wanted in sorted({_FEW, max(arguments.samples, _FEW)}):
        folder = work / f"growth-{wanted}"
        samples = repeat_shards(source.shards, folder, wanted)
        read_once(folder)
        rates[str(samples)] = []
        spec = Spec(str(folder), (), "", 0, arguments.batch, arguments.image_px, epochs=_ENDLESS)
        sizes[str(samples)] = {
            "spec": asdict(spec), "seconds": arguments.seconds, "cores": arguments.cores[:1], "function": OURS,
        }  # fmt: skip
    for _ in range(arguments.repeats):
        for samples_name, settings in sizes.items():
            outcome = run_fresh("tools.bench.loader:turn", settings, arguments.cores[:1], arguments.limit_seconds)
            if "missing" in outcome:  # what was compared before is worth keeping
                return {"failed": f"attrtrain with {samples_name} samples: {outcome['missing']}"}
            rates[samples_name].append(outcome)
    measured = {
        samples_name: {
            key: statistics.median(outcome[key] for outcome in outcomes)
            for key in ("value", "first_batch_seconds", "peak_mb")
        }
        for samples_name, outcomes in rates.items()
    }
    few, *more = measured.values()
    ratios = {f"ratio_of_{key}": more[-1][key] / few[key] for key in few} if more else {}
    return {"unit": "crops per second per core", "samples": measured, **ratios}

"""`step`: training images per second of the whole trainer, data and all.

The limit makes the same step (same network, loss, optimizer, precision, layout) over and over on one batch that is already on the device. Rates are taken after some steps to get
under way, inside one epoch. On a GPU there is a second case in which networks are compiled.
"""

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from attrtrain.config.schema import TrainSection
from tools.bench.contest import Contender, take_turns
from tools.bench.data import Source, read_once, repeat_shards
from tools.bench.loader import Spec
from tools.bench.result import Case, Result

_WARM_UP = 3  # steps; the first are slower
_MOST_WORKERS = 8


def run(arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    """Compares without and, on a GPU, with compilation."""
    assert source is not None
    repeat_shards(source.shards, work / "repeated", (arguments.steps + _WARM_UP + 4 * _MOST_WORKERS) * arguments.batch)
    read_once(work / "repeated")
    on_gpu = arguments.device == "cuda"
    spec = Spec(
        shards=str(work / "repeated"),
        images=(),
        converted="",
        workers=min(_MOST_WORKERS, len(arguments.cores)) if on_gpu else 0,
        batch=arguments.batch,
        image_px=arguments.image_px,
    )
    task = {
        "spec": asdict(spec),
        "backbone": arguments.backbone,
        "steps": arguments.steps,
        "warm_up": _WARM_UP,
        "device": arguments.device,
        "work": str(work),
    }
    cases = [_case(compiled, task, arguments) for compiled in ((False, True) if on_gpu else (False,))]
    settings = {key: task[key] for key in ("backbone", "steps", "device")}
    return Result("step", cases, {**settings, "batch": spec.batch, "image_px": spec.image_px, "workers": spec.workers})


def _case(compiled: bool, task: dict[str, Any], arguments: argparse.Namespace) -> Case:
    settings = {"task": {**task, "compiled": compiled}}
    contenders = [
        Contender("bare step", "limit", "tools.bench.step_contenders:bare", settings),
        Contender("attrtrain", "attrtrain", "tools.bench.step_contenders:ours", settings),
        Contender("plain PyTorch loop", "peer", "tools.bench.step_peers:plain_loop", settings),
        Contender("timm", "peer", "tools.bench.step_peers:timm_script", settings),
        Contender("Lightning", "peer", "tools.bench.step_peers:lightning_trainer", settings),
    ]
    rows = take_turns(contenders, arguments.repeats, arguments.cores, arguments.limit_seconds)
    note = "" if not compiled or can_compile() else "attrtrain cannot compile yet: its step here is not compiled"
    return Case(f"{arguments.device}{', compiled' if compiled else ''}", rows, "images per second", note=note)


def can_compile() -> bool:
    """Whether attrtrain has the setting train.compile."""
    return any(field.name == "compile" for field in fields(TrainSection))

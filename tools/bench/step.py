"""`step`: training images per second of the whole trainer, data and all.

The limit makes the same step (same network, loss, optimizer, precision, layout) over and over on one batch that is
already on the device. Rates are taken after some steps to get under way, inside one epoch. On a GPU there is a second
case in which networks are compiled.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.bench.contest import BenchError, Contender, run_fresh, take_turns
from tools.bench.data import Source, read_once, repeat_shards
from tools.bench.loader import Spec
from tools.bench.result import Case, Result

# Steps; the first are slower. A step of ResNet50 on a few processor cores takes seconds, on a GPU a tenth of one.
# There, dozens of batches may lie ready when the first timed step begins, so many more are timed.
_WARM_UP = {"cpu": 2, "cuda": 10}
_STEPS = {"cpu": 4, "cuda": 200}
_MOST_WORKERS = 8


def run(arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    """Compares without and, on a GPU, with compilation."""
    assert source is not None
    steps, warm_up = arguments.steps or _STEPS[arguments.device], _WARM_UP[arguments.device]
    repeat_shards(source.shards, work / "repeated", (steps + warm_up + 4 * _MOST_WORKERS) * arguments.batch)
    read_once(work / "repeated")
    on_gpu = arguments.device == "cuda"
    spec = Spec(
        shards=str(work / "repeated"),
        images=(),
        converted="",
        workers=min(_MOST_WORKERS, len(arguments.cores)) if on_gpu else 0,
        batch=arguments.batch,
        image_px=arguments.image_px,
        pinned=on_gpu,
    )
    task = {
        "spec": asdict(spec),
        "backbone": arguments.backbone,
        "steps": steps,
        "warm_up": warm_up,
        "device": arguments.device,
        "work": str(work),
    }
    cases = [_case(compiled, task, arguments) for compiled in ((False, True) if on_gpu else (False,))]
    settings = {key: task[key] for key in ("backbone", "steps", "device")}
    settings |= {"batch": spec.batch, "image_px": spec.image_px, "workers": spec.workers}
    return Result("step", cases, settings, {"bare step, one turn by precision": _by_precision(task, arguments)})


def _by_precision(task: dict[str, Any], arguments: argparse.Namespace) -> dict[str, float]:
    """Whether what `auto` chose pays: images per second of the bare step in it and in full precision, one turn each."""
    found: dict[str, float] = {}
    for function in ("bare", "bare_in_full_precision"):
        settings = {"task": {**task, "compiled": False}}
        outcome = run_fresh(
            f"tools.bench.step_contenders:{function}", settings, arguments.cores, arguments.limit_seconds
        )
        if (reason := outcome.get("missing")) is not None:
            raise BenchError(f"{function}: {reason}")
        found.setdefault(outcome["precision"], outcome["value"])
    return found


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
    return Case(f"{arguments.device}{', compiled' if compiled else ''}", rows, "images per second")

"""`start`: how long until something happens: `--help`, the first training step, and the first step after going on from a checkpoint.

Seconds from starting the process. The limit of help is an interpreter that does nothing; that of a step, a program that imports the same libraries and makes the same step on
a batch it has in memory.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bench.contest import BenchError, Contender, Row, run_fresh, take_turns
from tools.bench.data import Source, read_once, repeat_shards
from tools.bench.result import Case, Result

_FEW = 1000
_PLACE = "tools.bench.start_contenders"


def run(arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    """Compares help with the bare interpreter, and starting and resuming at `--samples` with the same at 1,000."""
    assert source is not None
    cores = arguments.cores
    cases = [_help(arguments, words) for words in (["--help"], ["train", "--help"])]
    sizes = sorted({_FEW, max(_FEW, arguments.samples)})
    runs: dict[int, dict[str, Any]] = {}
    for size in sizes:
        shards = work / f"samples-{size}"
        repeat_shards(source.shards, shards, size)
        read_once(shards)
        runs[size] = _settings(arguments, shards, work / f"run-{size}")
        made = run_fresh(f"{_PLACE}:make_checkpoint", runs[size], cores, arguments.limit_seconds)
        if "missing" in made:
            raise BenchError(f"no run to go on with: {made['missing']}")
    for task in ("first step", "resume"):
        function = f"{_PLACE}:{task.replace(' ', '_')}"
        contenders = [
            Contender("bare step", "limit", f"{_PLACE}:bare_step", runs[_FEW]),
            *(Contender(f"attrtrain, {size:,} samples", "attrtrain", function, runs[size]) for size in sizes),
        ]
        rows = take_turns(contenders, arguments.repeats, cores, arguments.limit_seconds)
        cases.append(Case(task, rows, "seconds", "lower"))
    growth = {case.name: _growth(case.rows) for case in cases[2:]}
    for size in sizes:
        shutil.rmtree(work / f"samples-{size}")
    settings = {
        "backbone": arguments.backbone,
        "image_px": arguments.image_px,
        "batch": arguments.batch,
        "samples": sizes,
    }
    return Result("start", cases, settings, {"many_by_few": growth})


def _help(arguments: argparse.Namespace, words: list[str]) -> Case:
    contenders = [
        Contender("python -c pass", "limit", f"{_PLACE}:command", {"words": ["-c", "pass"]}),
        Contender("attrtrain", "attrtrain", f"{_PLACE}:command", {"words": ["-m", "attrtrain", *words]}),
    ]
    rows = take_turns(contenders, arguments.repeats, arguments.cores[:1], arguments.limit_seconds)
    return Case(
        f"attrtrain {' '.join(words)}", rows, "seconds", "lower", note="of a child process, found in the page cache"
    )


def _settings(arguments: argparse.Namespace, shards: Path, run_folder: Path) -> dict[str, Any]:
    return {
        "shards": str(shards),
        "run_folder": str(run_folder),
        "backbone": arguments.backbone,
        "image_px": arguments.image_px,
        "batch": arguments.batch,
    }


def _growth(rows: Sequence[Row]) -> float | None:
    """Median at most samples by median at fewest."""
    ours = [sorted(row.values)[len(row.values) // 2] for row in rows if row.role == "attrtrain"]
    return ours[-1] / ours[0] if len(ours) > 1 else None

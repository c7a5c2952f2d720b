"""`start`: how long until something happens: `--help`, the first training step, and the first step after going on from
a checkpoint.

Seconds from starting the process. The limit of help is an interpreter that does nothing; that of a step, a program that
imports the same libraries and makes the same step on a batch it has in memory. That step is small, whatever
`--backbone` and `--batch` say: it is the same for few samples and for many, and a long one would hide what grows.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrtrain.cli import COMMANDS
from tools.bench.contest import BenchError, Contender, Row, run_fresh, take_turns
from tools.bench.data import Source, read_once, repeat_shards
from tools.bench.result import Case, Result

_FEW = 1000
_STEP = {"backbone": "resnet18", "image_px": 64, "batch": 8}
_PLACE = "tools.bench.start_contenders"


def run(arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    """Compares help with the bare interpreter, and starting and resuming at `--samples` with the same at 1,000."""
    assert source is not None
    cores = arguments.cores
    modules = [["-m", "attrtrain"], *(["-m", "attrtrain", command] for command in COMMANDS), ["-m", "attrtrain.train"]]
    helps = [_help(arguments, [*words, "--help"]) for words in modules]
    steps = []
    sizes = sorted({_FEW, max(_FEW, arguments.samples)})
    runs: dict[int, dict[str, Any]] = {}
    for size in sizes:
        shards = work / f"samples-{size}"
        repeat_shards(source.shards, shards, size)
        read_once(shards)
        runs[size] = {"shards": str(shards), "run_folder": str(work / f"run-{size}"), **_STEP}
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
        steps.append(Case(task, rows, "seconds", "lower"))
    growth = {case.name: _growth(case.rows) for case in steps}
    for size in sizes:
        shutil.rmtree(work / f"samples-{size}")
    return Result("start", [*helps, *steps], {**_STEP, "samples": sizes}, {"many_by_few": growth})


def _help(arguments: argparse.Namespace, words: list[str]) -> Case:
    contenders = [
        Contender("python -c pass", "limit", f"{_PLACE}:command", {"words": ["-c", "pass"]}),
        Contender("attrtrain", "attrtrain", f"{_PLACE}:command", {"words": words}),
    ]
    rows = take_turns(contenders, arguments.repeats, arguments.cores[:1], arguments.limit_seconds)
    return Case(" ".join(words[1:]), rows, "seconds", "lower", note="of a child process, found in the page cache")


def _growth(rows: Sequence[Row]) -> float | None:
    """Median at most samples by median at fewest."""
    ours = [sorted(row.values)[len(row.values) // 2] for row in rows if row.role == "attrtrain"]
    return ours[-1] / ours[0] if len(ours) > 1 else None

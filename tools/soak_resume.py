#!/usr/bin/env python
"""Kills training again and again, and checks that nothing shows in the end: the evidence behind "exact resume".

    python -m tools.soak_resume SHARDS WORK_FOLDER [--kills 200] [--seed 0] [train flags ...]

Trains once undisturbed, then once more with SIGKILL at random moments (one time in three in the middle of saving a
checkpoint, one in the middle of writing a bundle), starting again after each; a run that ends before so many kills
begins anew. All must end with the same weights bit for bit, in the newest checkpoint and in the bundle, the same
objects in every step, and the same metrics.jsonl apart from times.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrtrain import checkpoint
from attrtrain.bundle import WEIGHTS
from attrtrain.engine import window
from attrtrain.files import PARTIAL_SUFFIX
from attrtrain.run_layout import BUNDLE, CHECKPOINTS, HISTORY, RESULT
from attrtrain.train import main as train_main

CLOCKED = ("seconds", *window.CLOCKED)
TRACE = "trained_objects.jsonl"
_HALF_WRITTEN = (None, f"{CHECKPOINTS}/.step-*{PARTIAL_SUFFIX}", f".{BUNDLE}{PARTIAL_SUFFIX}")  # what a kill waits for


def soak(shards: Path, work: Path, kills: int, seed: int, flags: Sequence[str]) -> list[str]:
    """Runs the comparison and returns a line for everything that differs.

    Processes are forked from this one, which has imported everything and computed nothing: a start costs no seconds of
    importing.
    """
    import attrtrain.wiring  # noqa: F401 (imported here for all the children)

    whole, killed = work / "whole", work / "killed"
    command = ["demo", "--data.shards", str(shards), *flags]
    _require_success(_wait(_start(command, whole)), whole)
    within = 0.5 * _seconds_of_training(whole)
    chance = random.Random(seed)  # noqa: S311 (no secret depends on it)
    made, found = 0, []
    while made < kills:
        child = _start(command, killed)
        code = _killed_or_ended(child, killed, _HALF_WRITTEN[made % 3], after=chance.uniform(0.0, within))
        if code is None:
            made += 1
        else:
            _require_success(code, killed)
            found += differences(whole, killed)
            _begin_anew(killed)
            within *= 0.7  # it was done before: what is left of a run takes less time than all of it
    _require_success(_wait(_start(command, killed)), killed)
    return found + differences(whole, killed)


def differences(whole: Path, other: Path) -> list[str]:
    """What an undisturbed run and another one ended with that is not the same."""
    found = []
    newest = [checkpoint.those_in(run / CHECKPOINTS)[-1] for run in (whole, other)]
    files = [[folder / name for folder in newest] for name in ("model.safetensors", "average.safetensors")]
    files.append([run / BUNDLE / WEIGHTS for run in (whole, other)])
    for pair in files:
        contents = [path.read_bytes() if path.exists() else None for path in pair]
        if contents[0] != contents[1]:
            found.append(f"{pair[0]} and {pair[1]} differ")
    if metrics(whole) != metrics(other):
        found.append(f"metrics.jsonl differs between {whole} and {other}")
    traces = [trained_objects(run) for run in (whole, other)]
    if traces[0] != traces[1]:
        found.append(f"the objects of some step differ between {whole} and {other}")
    return found


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (run / HISTORY).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKED} for line in lines]


def trained_objects(run: Path) -> dict[tuple[int, int], list[int]]:
    """(step, rank) → samples trained on. A step trained again after a restart must have had the same ones.

    Raises:
        AssertionError: it had others.
    """
    seen: dict[tuple[int, int], list[int]] = {}
    for line in (run / TRACE).read_text().splitlines():
        try:
            step, rank, samples = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        if seen.setdefault((step, rank), samples) != samples:
            raise AssertionError(f"step {step} of rank {rank} was trained on other objects after a restart")
    return seen


def traced_training(arguments: list[str], run: Path) -> int:
    """Trains as `python -m attrtrain.train` does, writing down which samples each step trains on."""
    from attrtrain.engine import fit
    from attrtrain.engine.step import optimizer_step

    def traced(runtime: Any, model: Any, optimizer: Any, batches: Any, step: int, settings: Any) -> Any:
        samples = [int(sample) for batch in batches for sample in batch.index]
        line = json.dumps([step, runtime.accelerator.process_index, samples]) + "\n"
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(run / TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)
        return optimizer_step(runtime, model, optimizer, batches, step, settings)

    vars(fit)["optimizer_step"] = traced
    return train_main([*arguments, "--run.dir", str(run)])


def _start(arguments: list[str], run: Path) -> int:
    """Forks a training process; its output goes to `<run>.log`."""
    run.parent.mkdir(parents=True, exist_ok=True)
    if child := os.fork():
        return child
    log = os.open(f"{run}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 70
    try:
        code = traced_training(arguments, run)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _killed_or_ended(child: int, run: Path, half_written: str | None, after: float) -> int | None:
    """Kills a process after some seconds, or as soon as there are such half-written files after that. Returns None, or
    the exit code of a process that was done before.
    """
    begun = time.monotonic()
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() - begun > after and (half_written is None or any(run.glob(half_written))):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(ended[1])


def _require_success(code: int, run: Path) -> None:
    if code != 0:
        raise SystemExit(f"a start failed with exit code {code}; {run}.log says why")


def _begin_anew(run: Path) -> None:
    """Removes all of a run but what its steps were trained on, which another beginning must not change."""
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != TRACE:
            path.unlink()


def _seconds_of_training(run: Path) -> float:
    return float(json.loads((run / RESULT).read_text())["seconds"])


def main() -> int:
    """Parses the command line and prints what was found; returns 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments, flags = parser.parse_known_args()
    found = soak(arguments.shards, arguments.work, arguments.kills, arguments.seed, [*SMALL, *flags])
    print("\n".join(found) or f"{arguments.kills} kills: same weights, same objects in every step, same metrics")
    return 1 if found else 0


SMALL = [
    *("--model.backbone", "resnet18", "--model.head", "mlp", "--model.weights", "none", "--data.image_px", "32"),
    *("--train.global_batch", "16", "--train.epochs", "3", "--train.ema", "0.9"),
    *("--track.wandb", "disabled", "--track.every_steps", "3"),
    *("--checkpoint.every_steps", "2", "--checkpoint.keep_last", "3"),
]

if __name__ == "__main__":
    sys.exit(main())

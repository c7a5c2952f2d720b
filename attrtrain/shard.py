"""`attrtrain shard`: label files and photographs → WebDataset shards of object crops."""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from attrtrain.annotations import read_labels
from attrtrain.annotations.split import apply_split
from attrtrain.errors import ConfigError, LabelError, ShardError
from attrtrain.shards import write
from attrtrain.shards.manifest import MANIFEST, CropSettings, read_manifest
from attrtrain.shards.plan import make_plan

HELP = "cut labelled objects out of photographs and pack them into shards"
EXAMPLES = """examples:
  attrtrain shard --labels cocottributes.jbl --instances instances_train2017.json instances_val2017.json \\
                  --images train2017 val2017 --out shards/coco
  attrtrain shard --labels boxes.csv --images photos/ --out shards/mine

A run that was stopped goes on where it was when the same command is given again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    paths = {"type": Path, "nargs": "+", "metavar": "PATH"}
    defaults = CropSettings()
    parser.add_argument(
        "--labels",
        required=True,
        **paths,
        help="COCO Attributes (.pkl, .jbl), a table of boxes (.csv, .tsv, .jsonl), or VAW (.json)",
    )
    parser.add_argument(
        "--instances",
        default=[],
        **paths,
        help="COCO instances JSON files the labels point into; 2014 or 2017, train and val together",
    )
    parser.add_argument("--images", required=True, **paths, help="folders that hold the photographs")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the shard folder to write")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes; any number gives the same bytes (default: %(default)s)",
    )
    parser.add_argument(
        "--store-px",
        type=int,
        default=defaults.store_px,
        metavar="PX",
        help="short side of a stored crop at most, never enlarged (default: %(default)s)",
    )
    parser.add_argument(
        "--quality", type=int, default=defaults.quality, metavar="1-100", help="JPEG quality (default: %(default)s)"
    )
    parser.add_argument(
        "--context",
        type=float,
        default=defaults.context,
        metavar="SHARE",
        help="picture kept around a box on each side, as a share of its size (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=("auto", "official", "image"),
        default="auto",
        help="the label file's own split, or one drawn by photograph (default: auto, the file's own where it has one)",
    )
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of objects a drawn split validates on (default: %(default)s)",
    )
    parser.add_argument(
        "--split-seed", type=int, default=0, metavar="N", help="chooses the drawn split (default: %(default)s)"
    )
    parser.add_argument(
        "--shard-objects", type=int, default=500, metavar="N", help="objects a shard (default: %(default)s)"
    )
    parser.add_argument(
        "--max-failure-rate",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of objects that may be left out before the exit code is 1 (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Shards, prints the summary, and returns the exit code: 1 when more was left out than `--max-failure-rate` allows."""
    crop = _checked(arguments)
    table, note = read_labels(arguments.labels, arguments.instances)
    if note:
        print(note, file=sys.stderr)
    if (coverage := len(table) / (len(table) + len(table.unmatched))) < 0.9:
        print(
            f"warning: only {coverage:.0%} of the labelled objects are in the instances files; are both train and val given?",
            file=sys.stderr,
        )
    table, split_note = apply_split(table, arguments.split, arguments.val_share, arguments.split_seed)
    print(split_note, file=sys.stderr)

    plan = make_plan(table, crop, arguments.shard_objects)
    try:
        write.prepare(arguments.out, plan)
    except OSError as error:
        raise ShardError(f"{arguments.out}: {error.strerror or error}") from None
    jobs = write.pending_jobs(arguments.out, plan, table, arguments.images, crop)
    if len(jobs) < len(plan.shards):
        print(f"{len(plan.shards) - len(jobs)} of {len(plan.shards)} shards are already written", file=sys.stderr)
    if jobs:
        (arguments.out / MANIFEST).unlink(missing_ok=True)  # what is being written again does not count as complete
        _write(jobs, arguments.workers)
    summary = write.finish(arguments.out, plan, table, crop, split_note)
    print(_summary_table(summary, arguments.out))
    return _judge(summary, arguments)


def _checked(arguments: argparse.Namespace) -> CropSettings:
    """Raises ConfigError for the first argument that is out of range."""
    for name, is_good, rule in (
        ("workers", arguments.workers >= 1, "at least 1"),
        ("shard_objects", arguments.shard_objects >= 1, "at least 1"),
        ("val_share", 0 < arguments.val_share < 1, "between 0 and 1"),
        ("max_failure_rate", 0 <= arguments.max_failure_rate <= 1, "from 0 to 1"),
    ):
        if not is_good:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be {rule}")
    for folder in arguments.images:
        if not folder.is_dir():
            raise LabelError(f"--images {folder}: no such folder")
    try:
        return CropSettings(store_px=arguments.store_px, quality=arguments.quality, context=arguments.context)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"--{str(first['loc'][0]).replace('_', '-')} {first['input']}: {first['msg'].lower()}"
        ) from None


def _write(jobs: list[write.ShardJob], workers: int) -> None:
    total = sum(len(job.table) for job in jobs)
    with tqdm(total=total, desc="sharding", unit=" objects", file=sys.stderr, dynamic_ncols=True) as bar:
        if workers == 1 or len(jobs) == 1:
            for job in jobs:
                write.write_shard(job, bar.update)
            return
        context = multiprocessing.get_context("spawn")
        done: Synchronized[int] = context.Value("q", 0)
        with (
            ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (done, os.getpid())) as executor,
            _follow(bar, done),
            _stopped_at_once(executor),
        ):
            for _ in write.write_shards(jobs, executor, _write_and_count):
                pass


# Each worker process counts the objects it has done into one number that the parent's progress bar follows.
_done: "Synchronized[int] | None" = None
_parent = 0


def _start_worker(done: "Synchronized[int]", parent: int) -> None:
    global _done, _parent
    _done, _parent = done, parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


def _count_object() -> None:
    write.exit_if_orphaned(_parent)
    if _done is not None:
        with _done.get_lock():
            _done.value += 1


def _write_and_count(job: write.ShardJob) -> write.ShardInfo:
    return write.write_shard(job, _count_object)


@contextmanager
def _follow(bar: "tqdm[Any]", done: "Synchronized[int]") -> Iterator[None]:
    """Moves the bar to the workers' count, several times a second, while the block runs."""
    finished = threading.Event()

    def update() -> None:
        while not finished.wait(0.2):
            bar.update(done.value - bar.n)

    thread = threading.Thread(target=update, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        bar.update(done.value - bar.n)


@contextmanager
def _stopped_at_once(executor: ProcessPoolExecutor) -> Iterator[None]:
    """Ends the workers when the block is left by an exception, Ctrl-C among them, rather than waiting for their shards."""
    try:
        yield
    except BaseException:
        for process in list((executor._processes or {}).values()):
            process.terminate()
        raise


def _judge(summary: write.Summary, arguments: argparse.Namespace) -> int:
    left_out = sum(summary.left_out.values())
    rate = left_out / summary.matched
    if summary.written == 0:
        raise ShardError(f"not one crop was written; {arguments.out / write.FAILURES} says why for each object")
    if rate > arguments.max_failure_rate:
        print(
            f"error: {left_out} of {summary.matched} objects ({rate:.1%}) were left out, more than --max-failure-rate {arguments.max_failure_rate:.1%}; "
            f"{arguments.out / write.FAILURES} lists them. The shards are complete without them: mend and run again, or allow a higher rate",
            file=sys.stderr,
        )
        return 1
    return 0


def _summary_table(summary: write.Summary, folder: Path) -> str:
    manifest = read_manifest(folder)
    size = sum(shard.bytes for shard in manifest.shards)
    rows = [
        ("labelled objects", summary.label_objects),
        ("without annotation", summary.no_annotation),
        ("matched", summary.matched),
        *((f"left out: {reason.replace('_', ' ')}", count) for reason, count in summary.left_out.items()),
        ("written", summary.written),
        *(
            (f"  {split}: {counts['images']} photographs", counts["objects"])
            for split, counts in summary.splits.items()
        ),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:<{width}}  {count:>9,}" for label, count in rows]
    return "\n".join(
        [
            *lines,
            f"{len(manifest.shards)} shards, {size / 1e6:,.1f} MB, {len(manifest.vocabulary.names)} attributes in {folder}",
        ]
    )

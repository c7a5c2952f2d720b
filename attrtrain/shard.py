"""`attrtrain shard`: label files and photographs → WebDataset shards of object crops."""

import argparse
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from attrtrain.annotations import read_labels
from attrtrain.annotations.split import apply_split
from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import ConfigError, LabelError, ShardError
from attrtrain.shards import write
from attrtrain.shards.manifest import MANIFEST, CropSettings, ShardInfo, read_manifest
from attrtrain.shards.plan import make_plan

HELP = "cut labelled objects out of photographs and pack them into shards"
EXAMPLES = """examples:
  attrtrain shard --labels cocottributes.jbl --instances instances_train2017.json instances_val2017.json \\
                  --images train2017 val2017 --out shards/coco
  attrtrain shard --labels boxes.csv --images photos/ --out shards/mine

A run that was stopped goes on where it was when the same command is given again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    crop = CropSettings()

    def paths(flag: str, what: str, **options: Any) -> None:
        parser.add_argument(flag, type=Path, nargs="+", metavar="PATH", help=what, **options)

    def value(flag: str, default: float, metavar: str, what: str) -> None:
        parser.add_argument(
            flag, type=type(default), default=default, metavar=metavar, help=f"{what} (default: %(default)s)"
        )

    paths(
        "--labels", "COCO Attributes (.pkl, .jbl), a table of boxes (.csv, .tsv, .jsonl), or VAW (.json)", required=True
    )
    paths("--instances", "COCO instances files the labels point into; 2014 or 2017, train and val together", default=[])
    paths("--images", "folders that hold the photographs", required=True)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the shard folder to write")
    value("--workers", _usable_cpus(), "N", "processes; any number gives the same bytes")
    value("--store-px", crop.store_px, "PX", "short side of a stored crop at most; smaller crops are never enlarged")
    value("--quality", crop.quality, "1-100", "JPEG quality")
    value("--context", crop.context, "SHARE", "picture kept around a box on each side, as a share of its size")
    parser.add_argument(
        "--split",
        choices=("auto", "official", "image"),
        default="auto",
        help="the label file's own split, or one drawn by photograph (default: auto, the file's own where it has one)",
    )
    value("--val-share", 0.2, "SHARE", "share of objects a drawn split validates on")
    value("--split-seed", 0, "N", "chooses the drawn split")
    value("--shard-objects", 500, "N", "objects in a shard")
    value("--max-failure-rate", 0.05, "SHARE", "share of objects that may be left out before the exit code is 1")


def _usable_cpus() -> int:
    """CPUs this process may run on: under SLURM those of the job, not those of the node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(arguments: argparse.Namespace) -> int:
    """Shards, prints the summary, and returns 1 when more was left out than `--max-failure-rate` allows, else 0."""
    crop = _checked(arguments)
    with _terminated_like_interrupted():
        table, split_note = _read(arguments)
        plan = make_plan(table, crop, arguments.shard_objects)
        try:
            write.prepare(arguments.out, plan)
            jobs = write.pending_jobs(arguments.out, plan, table, arguments.images, crop)
            if len(jobs) < len(plan.shards):
                kept = len(plan.shards) - len(jobs)
                print(f"{kept} of {len(plan.shards)} shards are already written, and are kept", file=sys.stderr)
            if jobs:
                # Nothing counts as complete while it is being written.
                (arguments.out / MANIFEST).unlink(missing_ok=True)
                _write(jobs, arguments.workers)
        except OSError as error:
            raise ShardError(f"{error.filename or arguments.out}: {error.strerror or error}") from None
        summary = write.finish(arguments.out, plan, table, crop, split_note)
    print(_summary_table(summary, arguments.out))
    return _judge(summary, arguments)


def _read(arguments: argparse.Namespace) -> tuple[ObjectTable, str]:
    """The labelled objects, and a line that says where their split comes from. What is odd goes to stderr."""
    table, note = read_labels(arguments.labels, arguments.instances)
    if note:
        print(note, file=sys.stderr)
    if (coverage := len(table) / (len(table) + len(table.unmatched))) < 0.9:
        print(
            f"warning: only {coverage:.0%} of the labelled objects are in the instances files; "
            "are both train and val given?",
            file=sys.stderr,
        )
    table, split_note = apply_split(table, arguments.split, arguments.val_share, arguments.split_seed)
    print(split_note, file=sys.stderr)
    return table, split_note


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, as `kill` and job schedulers send it, leaves the block the way Ctrl-C does."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    objects = sum(len(job.table) for job in jobs)
    if workers == 1 or len(jobs) == 1:
        with _progress_bar(objects) as bar, _interrupts_held_back() as stop_if_interrupted:

            def after_object() -> None:
                bar.update()
                stop_if_interrupted()

            for job in jobs:
                write.write_shard(job, after_object)
        return
    context = multiprocessing.get_context("spawn")
    done: Synchronized[int] = context.Value("q", 0)
    try:
        with (
            ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (done,)) as executor,
            _stopped_at_once(executor),
        ):
            with _interrupts_held_back(), _children_deaf_to_interrupts():
                futures = [executor.submit(_write_and_count, job) for job in jobs]
            with _progress_bar(objects) as bar, _follow(bar, done):
                for future in as_completed(futures):
                    future.result()
    except BrokenProcessPool:
        raise ShardError(
            "a worker process died (out of memory?); finished shards are kept: "
            "run the same command again, with fewer --workers"
        ) from None
    finally:
        write.clean(jobs[0].folder)  # after workers that were stopped within a shard


def _progress_bar(objects: int) -> "tqdm[Any]":
    # In a log file each update stays to be read: one in half a minute is enough there.
    seconds = 0.1 if sys.stderr.isatty() else 30
    return tqdm(
        total=objects,
        desc="sharding",
        unit=" objects",
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=seconds,
        maxinterval=10 * seconds,
    )


# Each worker process counts the objects it has done into one number that the parent's progress bar follows.
_done: "Synchronized[int] | None" = None


def _start_worker(done: "Synchronized[int]") -> None:
    global _done
    _done = done
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker at once when its parent was killed, before it can write beside the run that takes over."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _count_object() -> None:
    if _done is not None:
        with _done.get_lock():
            _done.value += 1


def _write_and_count(job: write.ShardJob) -> ShardInfo:
    return write.write_shard(job, _count_object)


@contextmanager
def _follow(bar: "tqdm[Any]", done: "Synchronized[int]") -> Iterator[None]:
    """Moves the bar to the workers' count, several times a second, while the block runs."""
    finished = threading.Event()
    count = done.get_obj()  # read without its lock, which a worker that was killed may hold for ever

    def update() -> None:
        while not finished.wait(0.2):
            bar.update(count.value - bar.n)

    thread = threading.Thread(target=update, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        bar.update(count.value - bar.n)


@contextmanager
def _interrupts_held_back() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C and SIGTERM back to where the block calls what it is given, or to the block's end, so that nothing
    is left half done.
    """
    held: list[int] = []

    def stop_if_interrupted() -> None:
        if held:
            raise KeyboardInterrupt(held[0])

    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, _: held.append(number)) for number in numbers}
    try:
        yield stop_if_interrupted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    stop_if_interrupted()


@contextmanager
def _children_deaf_to_interrupts() -> Iterator[None]:
    """Makes processes started in the block deaf to the Ctrl-C a terminal sends them, from their first instruction."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what a thread blocks, the processes it starts block
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _stopped_at_once(executor: ProcessPoolExecutor) -> Iterator[None]:
    """Ends the workers when the block is left by an exception, Ctrl-C among them, without waiting for their shards."""
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C need not hurry what takes no time
        for process in list((executor._processes or {}).values()):
            process.kill()
        raise


def _judge(summary: write.Summary, arguments: argparse.Namespace) -> int:
    left_out = sum(summary.left_out.values())
    rate = left_out / summary.matched
    if summary.written == 0:
        raise ShardError(f"not one crop was written; {arguments.out / write.FAILURES} says why for each object")
    if rate > arguments.max_failure_rate:
        print(
            f"error: {left_out} of {summary.matched} objects ({rate:.1%}) were left out, more than "
            f"--max-failure-rate {arguments.max_failure_rate:g}; {arguments.out / write.FAILURES} lists them. "
            "The shards are complete without them: mend and run again, or allow a higher rate",
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
            f"{len(manifest.shards)} shards, {size / 1e6:,.1f} MB, "
            f"{len(manifest.vocabulary.names)} attributes in {folder}",
        ]
    )

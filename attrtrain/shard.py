"""`attrtrain shard`: label files and photographs → WebDataset shards of object crops."""

import argparse
import posixpath
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrtrain.cores import core_count
from attrtrain.errors import AttrtrainError, ConfigError, ShardError
from attrtrain.shards.crop_defaults import CONTEXT, QUALITY, STORE_PX
from attrtrain.signals import interrupts_held_back, terminated_like_interrupted
from attrtrain.urls import as_place, is_url, require_folders
from attrtrain.wording import by_reason, counted, some_of

if TYPE_CHECKING:  # imported where they are used: `--help` need not wait for NumPy, Pillow and pydantic
    from attrtrain.annotations.table import ObjectTable
    from attrtrain.shards.finish import Summary
    from attrtrain.shards.manifest import CropSettings
    from attrtrain.shards.plan import PlannedShard, ShardPlan

EXAMPLES = """examples:
  attrtrain shard --labels cocottributes.jbl --instances instances_train2017.json instances_val2017.json \\
                  --images train2017 val2017 --out shards/coco
  attrtrain shard --labels boxes.csv --images photos/ --out shards/mine
  on several machines: `--part 0/8` to `--part 7/8` of one command, at once or not, and then the same with `--merge`

A run that was stopped goes on where it was when the same command is given again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""

    def paths(flag: str, what: str, **options: Any) -> None:
        parser.add_argument(flag, **{"type": as_place, "nargs": "+", "metavar": "PATH", "help": what, **options})

    def value(flag: str, default: float, metavar: str, what: str) -> None:
        parser.add_argument(
            flag, type=type(default), default=default, metavar=metavar, help=f"{what} (default: %(default)s)"
        )

    paths(
        "--labels", "COCO Attributes (.pkl, .jbl), a table of boxes (.csv, .tsv, .jsonl), or VAW (.json)", required=True
    )
    paths("--instances", "COCO instances files the labels point into; 2014 or 2017, train and val together", default=[])
    paths(
        "--images",
        "folders that hold the photographs; these and the files above may be URLs (s3://, gs://, …)",
        required=True,
    )
    parser.add_argument("--out", required=True, type=_local, metavar="DIR", help="the shard folder to write")
    value("--workers", core_count(), "N", "processes; any number gives the same bytes")
    value("--store-px", STORE_PX, "PX", "short side of a stored crop at most; smaller crops are never enlarged")
    value("--quality", QUALITY, "1-100", "JPEG quality")
    value("--context", CONTEXT, "SHARE", "picture kept around a box on each side, as a share of its size")
    parser.add_argument(
        "--split",
        choices=("auto", "official", "image"),
        default="auto",
        help="the label file's own split, or one drawn by photograph (default: auto, the file's own where it has one)",
    )
    value("--val-share", 0.2, "SHARE", "share of objects a drawn split validates on")
    value("--dev-share", 0.0, "SHARE", "share of train set aside as split 'dev', to choose epochs and thresholds on")
    value("--split-seed", 0, "N", "chooses what is drawn of these")
    value("--shard-objects", 500, "N", "objects in a shard")
    value("--max-failure-rate", 0.05, "SHARE", "share of objects that may be left out before the exit code is 1")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="write on the workers of this Dask scheduler, such as tcp://node1:8786"
    )
    share = parser.add_mutually_exclusive_group()
    share.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="write every N-th shard from the I-th on, counted from 0, and nothing else; parts may run at the same time",
    )
    share.add_argument("--merge", action="store_true", help="write no shard: complete a folder whose parts are written")


def _local(text: str) -> Path:
    if is_url(text):
        raise argparse.ArgumentTypeError(
            f"{text}: shards are written to a folder; copy that to a URL when it is finished"
        )
    return Path(text)


def _part(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"(\d+)/(\d+)", text)) or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(f"{text}: give I/N with I from 0 to N-1, such as 0/8")
    return int(match[1]), int(match[2])


def run(arguments: argparse.Namespace) -> int:
    """Shards, prints the summary, and returns 1 when more was left out than `--max-failure-rate` allows, else 0."""
    _require_in_range(arguments)
    # Ctrl-C in the middle of an import may have Python end by the signal, whatever exit code we give.
    with interrupts_held_back():
        if arguments.workers > 1 and not arguments.dask and not arguments.merge:
            from attrtrain.shards.start_workers import start_early

            start_early()  # before the imports that its process makes, too

        from attrtrain.shards import finish, write
        from attrtrain.shards.plan import make_plan

    crop = _crop_settings(arguments)
    # Parts and who merges them write into a folder that is others' too.
    shared = arguments.part is not None or arguments.merge
    with nullcontext() if shared else _nothing_left_in_vain(arguments.out), terminated_like_interrupted():
        table, split_note = _read(arguments)
        plan = make_plan(table, crop, arguments.shard_objects)
        if arguments.part is not None:
            return _write_part(arguments, plan, table, crop)
        if arguments.merge:
            _require_written(arguments, plan)
        else:
            _write(arguments, plan, plan.shards, table, crop)
        summary = finish.finish(arguments.out, plan, table, crop, split_note)
        write.clean(arguments.out)  # what killed writers left; none of them is running, for all is written
        if summary.written == 0:
            raise ShardError(_why_none(summary, arguments.out / finish.FAILURES))
    print(_summary_table(summary, arguments.out))
    return _judge(summary, arguments.max_failure_rate, arguments.out / finish.FAILURES)


@contextmanager
def _nothing_left_in_vain(out: Path) -> Iterator[None]:
    """Removes, after an error, a folder that was not there before, or was empty, where no crop has come into it:
    nothing in it is worth going on from.
    """
    from attrtrain.shards.write import TakenAwayError

    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    was_empty = bool(missing) or (out.is_dir() and not any(out.iterdir()))
    try:
        yield
    except AttrtrainError as error:
        is_anothers = isinstance(error, TakenAwayError)
        if was_empty and out.is_dir() and not is_anothers and not _holds_crops(out):
            for path in out.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # another process began to write there
                for folder in missing:
                    folder.rmdir()
        raise


def _holds_crops(out: Path) -> bool:
    """Whether a crop is on record, or somebody is writing."""
    from attrtrain.contract import read_contract
    from attrtrain.shards.write import RECORDS, ShardRecord

    if any(out.glob(".*")):
        return True
    return any(read_contract(ShardRecord, record, ShardError).info.samples for record in (out / RECORDS).glob("*.json"))


def _why_none(summary: "Summary", failures: Path) -> str:
    """A line about data of which not one crop was written."""
    from attrtrain.shards.manifest import Failure

    first = Failure.first_of(failures)
    advice = "; --images takes the folders that file names start from" if first.reason == "image_missing" else ""
    return f"not one crop was written: {', '.join(by_reason(summary.left_out))}; the first: {first}{advice}"


def _write(
    arguments: argparse.Namespace,
    plan: "ShardPlan",
    shards: "Sequence[PlannedShard]",
    table: "ObjectTable",
    crop: "CropSettings",
) -> None:
    """Writes those of the shards that are not finished yet."""
    from attrtrain.shards import write
    from attrtrain.shards.execute import write_here
    from attrtrain.shards.on_dask import write_on_dask

    try:
        write.prepare(arguments.out, plan, None if arguments.part is None else shards)
        jobs = write.pending_jobs(arguments.out, shards, table, arguments.images, crop)
        if len(jobs) < len(shards):
            of_all = f"of {counted(len(shards), 'shard')}"
            told = counted(
                len(shards) - len(jobs),
                f"{of_all} is already written, and is kept: its photographs are not looked at again",
                f"{of_all} are already written, and are kept: their photographs are not looked at again",
            )
            print(told, file=sys.stderr)
        if jobs:
            write.discard(jobs)
            if arguments.dask:
                write_on_dask(jobs, arguments.dask)
            else:
                write_here(jobs, arguments.workers)
    except OSError as error:
        raise ShardError(f"{error.filename or arguments.out}: {error.strerror or error}") from None


def _write_part(arguments: argparse.Namespace, plan: "ShardPlan", table: "ObjectTable", crop: "CropSettings") -> int:
    from attrtrain.shards import finish, write

    number, parts = arguments.part
    shards = plan.shards[number::parts]
    _write(arguments, plan, shards, table, crop)
    written, left_out = finish.count(arguments.out, shards)
    done = f"part {number}/{parts}: {len(shards):,} of {counted(len(plan.shards), 'shard')}, {counted(written, 'crop')}"
    print(", ".join([done, *by_reason(left_out)]))
    if shards and written == 0:
        raise ShardError(f"not one crop was written; {arguments.out / write.RECORDS} says why for each object")
    return 0  # whether too many are left out is judged of the whole, by the merge


def _require_written(arguments: argparse.Namespace, plan: "ShardPlan") -> None:
    from attrtrain.shards import finish, write

    if (arguments.out / write.PLAN).exists():
        write.require_plan(arguments.out, plan)
    if missing := finish.unwritten(arguments.out, plan.shards):
        of_all = f"of {counted(len(plan.shards), 'shard')}"
        raise ShardError(
            f"{arguments.out}: {counted(len(missing), f'{of_all} is', f'{of_all} are')} not written: {some_of(missing, 10)}; "
            f"write them with `{_command(arguments)}`"
        )


def _command(arguments: argparse.Namespace) -> str:
    """The command line that does the whole of what these arguments do a share of."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["attrtrain", "shard"]
    for name, value in vars(arguments).items():
        if name not in ("part", "merge") and value != parser.get_default(name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _read(arguments: argparse.Namespace) -> "tuple[ObjectTable, str]":
    """The labelled objects, and a line that says where their split comes from. What is odd goes to stderr."""
    from attrtrain.annotations import read_labels_at
    from attrtrain.annotations.split import apply_split, set_aside_dev
    from attrtrain.annotations.table import inner_folders, one_id_a_photograph, repeated_boxes

    table, note = read_labels_at(arguments.labels, arguments.instances)
    # A photograph that is named from the root, or from a folder around its own, may be named from its own folder too.
    if any(map(posixpath.isabs, table.image)) or inner_folders(arguments.images):
        table = one_id_a_photograph(table, arguments.images)
    if note:
        print(note, file=sys.stderr)
    if (coverage := len(table) / (len(table) + len(table.unmatched))) < 0.9:
        print(
            f"warning: only {coverage:.0%} of the labelled objects are in the instances files; "
            "are both train and val given?",
            file=sys.stderr,
        )
    if repeated := int(repeated_boxes(table).sum()):
        print(
            f"note: {repeated:,} objects have the same box of the same photograph as another: an object is one row, with all "
            "of its labels; `attrtrain audit` names some",
            file=sys.stderr,
        )
    table, split_note = apply_split(table, arguments.split, arguments.val_share, arguments.split_seed)
    if arguments.dev_share:
        table, dev_note = set_aside_dev(table, arguments.dev_share, arguments.split_seed)
        split_note += f"; {dev_note}"
    print(split_note, file=sys.stderr)
    return table, split_note


def _require_in_range(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for the first argument that is out of range; the crop's settings look after theirs."""
    for name, is_good, rule in (
        ("workers", arguments.workers >= 1, "at least 1"),
        ("shard_objects", arguments.shard_objects >= 1, "at least 1"),
        ("val_share", 0 < arguments.val_share < 1, "between 0 and 1"),
        ("dev_share", 0 <= arguments.dev_share < 1, "0, or between 0 and 1"),
        ("max_failure_rate", 0 <= arguments.max_failure_rate <= 1, "from 0 to 1"),
    ):
        if not is_good:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be {rule}")
    require_folders("--images", arguments.images)


def _crop_settings(arguments: argparse.Namespace) -> "CropSettings":
    """Raises ConfigError for the first setting that is out of range."""
    from pydantic import ValidationError

    from attrtrain.shards.manifest import CropSettings

    try:
        return CropSettings(store_px=arguments.store_px, quality=arguments.quality, context=arguments.context)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"--{str(first['loc'][0]).replace('_', '-')} {first['input']}: {first['msg'].lower()}"
        ) from None


def _judge(summary: "Summary", max_failure_rate: float, listed_in: Path) -> int:
    """The exit code of a folder that is complete but for what was left out."""
    from attrtrain.shards.manifest import too_many_left_out

    lost = sum(summary.left_out.values())
    if not (told := too_many_left_out(lost, summary.written + lost, max_failure_rate, listed_in)):
        return 0
    print(
        f"error: {told}. The shards are complete without them: mend and run again, or allow a higher rate",
        file=sys.stderr,
    )
    return 1


def _summary_table(summary: "Summary", folder: Path) -> str:
    from attrtrain.shards.manifest import read_manifest

    manifest = read_manifest(folder)
    size = sum(shard.bytes for shard in manifest.shards)
    rows = [
        ("labelled objects", summary.label_objects),
        ("without annotation", summary.no_annotation),
        ("matched", summary.matched),
        *((f"left out: {reason.replace('_', ' ')}", count) for reason, count in summary.left_out.items()),
        ("written", summary.written),
        *(
            (f"  {split}: {counted(counts['images'], 'photograph')}", counts["objects"])
            for split, counts in summary.splits.items()
        ),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:<{width}}  {count:>9,}" for label, count in rows]
    return "\n".join(
        [
            *lines,
            f"{counted(len(manifest.shards), 'shard')}, {size / 1e6:,.1f} MB, "
            f"{counted(len(manifest.vocabulary.names), 'attribute')} in {folder}",
        ]
    )

"""`attrtrain report`: writes the page of a run anew, or one that compares two runs."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrtrain.errors import ConfigError, ShardError
from attrtrain.run_layout import REPORT

EXAMPLES = """examples:
  attrtrain report runs/coco
  attrtrain report runs/before runs/after --out compare.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run directory, or what `attrtrain evaluate --out` wrote"
    )
    parser.add_argument(
        "other", type=Path, nargs="?", metavar="RUN_B", help="another, judged on the same objects, to compare with"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: RUN/report.html, or RUN_B/compare.html)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the page and says where it is; returns 0."""
    return _report(arguments) if arguments.other is None else _compare(arguments)


def _report(arguments: argparse.Namespace) -> int:
    from attrtrain.report.run_directory import open_shards, read_run, write_run_report

    out = _place(arguments.out, arguments.run / REPORT)
    judged = read_run(arguments.run)
    shards, no_pictures = open_shards(judged)
    with _told_of(out):
        try:
            write_run_report(out, judged, shards, no_pictures)
        except ShardError as error:  # a manifest without its shards, or damaged ones
            no_pictures = f"There are no pictures: {error}."
            write_run_report(out, judged, None, no_pictures)
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)" + (f"\n{no_pictures}" if no_pictures else ""))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from attrtrain.report.compare import as_text, compare
    from attrtrain.report.compare_report import write_comparison
    from attrtrain.report.run_directory import read_run

    out = _place(arguments.out, arguments.other / "compare.html")
    comparison = compare(read_run(arguments.run), read_run(arguments.other))
    with _told_of(out):
        write_comparison(out, comparison)
    print(f"{as_text(comparison)}\n{out} shows every attribute, the curves, and the settings that differ")
    return 0


def _place(given: Path | None, default: Path) -> Path:
    if given is None:
        return default
    if given.is_dir():
        raise ConfigError(f"--out {given}: is a folder; give the page's file name")
    if not given.parent.is_dir():
        raise ConfigError(f"--out {given}: there is no folder {given.parent}")
    return given


@contextmanager
def _told_of(out: Path) -> Iterator[None]:
    """A page that cannot be written is the user's to know of, in one line."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror or error}; name another file with --out") from None

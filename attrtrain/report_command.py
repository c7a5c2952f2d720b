"""`attrtrain report`: writes the page of a run anew, or one that compares two runs."""

import argparse
from pathlib import Path

HELP = "write a run's report anew, or compare two runs"
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
    from attrtrain.report.run_directory import open_shards, read_run
    from attrtrain.report.run_report import installed_versions, write_report

    judged = read_run(arguments.run)
    shards, no_pictures = open_shards(judged)
    out = _place(arguments.out, arguments.run / "report.html")
    write_report(
        out,
        title=arguments.run.resolve().name,
        document=judged.document,
        predictions=judged.predictions,
        shards=shards,
        settings=judged.settings,
        history=judged.history,
        audit=judged.audit,
        versions=installed_versions(),
        no_pictures=no_pictures,
    )
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)" + (f"\n{no_pictures}" if no_pictures else ""))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from attrtrain.report.compare import as_text, compare
    from attrtrain.report.compare_report import write_comparison
    from attrtrain.report.run_directory import read_run

    comparison = compare(read_run(arguments.run), read_run(arguments.other))
    out = _place(arguments.out, arguments.other / "compare.html")
    write_comparison(out, comparison)
    print(f"{as_text(comparison)}\n{out} shows every attribute, the curves, and the settings that differ")
    return 0


def _place(given: Path | None, default: Path) -> Path:
    from attrtrain.errors import ConfigError

    path = default if given is None else given
    if path.is_dir():
        raise ConfigError(f"--out {path}: is a folder; give the page's file name")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder {path.parent}")
    return path

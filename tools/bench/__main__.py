"""`python -m tools.bench NAME --out DIR`: runs a benchmark, prints its tables, and writes DIR/NAME.json."""

import argparse
import importlib
import signal
import sys
import tempfile
from pathlib import Path

from attrtrain.cores import usable_cores
from tools.bench.contest import BenchError
from tools.bench.data import Source, open_source
from tools.bench.machine import describe_machine, installed_versions
from tools.bench.result import Result

NAMES = ("loader", "shard", "step", "eval", "start", "labels")


def main(argv: list[str] | None = None) -> int:
    """Runs one benchmark or all; returns the exit code."""
    arguments = _parser().parse_args(argv)
    arguments.cores = arguments.cores or usable_cores()
    arguments.batch = arguments.batch or (256 if arguments.device == "cuda" else 64)
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = NAMES if arguments.name == "all" else (arguments.name,)
    failed = False
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="attrtrain-bench-", dir=arguments.work) as work:
        source = None
        for name in names:
            folder = Path(work) / name
            folder.mkdir()
            try:
                if source is None and name not in _WITHOUT_DATA:
                    source = _source(arguments, Path(work))
                _report(_run(name, arguments, source, folder), arguments)
            except BenchError as error:
                failed = True
                print(f"error: {name}: {error}", file=sys.stderr)
    return int(failed)


_WITHOUT_DATA = ("eval", "labels")  # they make their own


def _run(name: str, arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    module = importlib.import_module(f"tools.bench.{'evaluation' if name == 'eval' else name}")
    result: Result = module.run(arguments, source, work)
    return result


def _report(result: Result, arguments: argparse.Namespace) -> None:
    for case in result.cases:
        print(f"\n{result.name}: {case.table()}", flush=True)
    for name, value in result.extra.items():
        print(f"\n{result.name}: {name}: {value}", flush=True)
    path = result.write(arguments.out, describe_machine(arguments.cores), installed_versions(), arguments.repeats)
    print(f"\nwrote {path}", flush=True)


def _source(arguments: argparse.Namespace, work: Path) -> Source:
    return open_source(
        work, arguments.shards, arguments.images, arguments.labels, arguments.instances, arguments.toy_photographs
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description="Measures attrtrain beside the limit and beside peers, in turns, in one run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("name", choices=(*NAMES, "all"), help="which benchmark")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where NAME.json goes")
    data = parser.add_argument_group("data", "real crops; without these a toy COCO is drawn")
    data.add_argument("--shards", type=Path, metavar="DIR", help="shards as `attrtrain shard` writes them")
    for flag, what in (
        ("--images", "folders of the photographs"),
        ("--labels", "label files, to make shards of"),
        ("--instances", "COCO instances files they point into"),
    ):
        data.add_argument(flag, type=Path, nargs="+", default=[], metavar="PATH", help=what)
    data.add_argument("--toy-photographs", type=int, default=240, metavar="N", help="photographs of the toy COCO")
    data.add_argument("--work", type=Path, metavar="DIR", help="where temporary files go; on a local disk")
    how = parser.add_argument_group("measuring")
    how.add_argument("--repeats", type=int, default=5, metavar="N", help="turns of each contender")
    how.add_argument("--seconds", type=float, default=5.0, metavar="S", help="how long a turn of a rate takes")
    how.add_argument("--limit-seconds", type=float, default=1800, metavar="S", help="a turn is ended after so long")
    how.add_argument("--cores", type=int, nargs="+", metavar="CORE", help="processor cores to bind to (all)")
    size = parser.add_argument_group("sizes")
    size.add_argument("--batch", type=int, metavar="N", help="samples a batch (64, on a GPU 256)")
    size.add_argument("--image-px", type=int, default=224, metavar="PX", help="side of the square")
    size.add_argument(
        "--samples", type=int, default=1_000_000, metavar="N", help="loader, start: how far growth is followed"
    )
    size.add_argument("--samples-compared", type=int, default=20_000, metavar="N", help="loader: samples of an epoch")
    size.add_argument("--objects", type=int, metavar="N", help="eval, labels (188,426), shard (100,000)")
    size.add_argument("--attributes", type=int, default=204, metavar="N", help="eval, labels")
    step = parser.add_argument_group("step and start")
    step.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where steps are made")
    step.add_argument("--backbone", default="resnet50", help="the network")
    step.add_argument("--steps", type=int, metavar="N", help="step: steps that are timed in a turn (4, on a GPU 200)")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the process of a turn is ended too
    sys.exit(main())

"""What commands that use a trained model have in common: their arguments, and what a result is worth. Imports no
torch.
"""

import argparse
import math
import sys
from pathlib import Path

from attrtrain.errors import ConfigError
from attrtrain.urls import as_place, require_folders
from attrtrain.wording import by_reason, counted


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """--model."""
    parser.add_argument(
        "--model", required=True, type=Path, metavar="RUN_OR_BUNDLE", help="a run directory, a bundle, or hf:owner/name"
    )


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    """--model, which may be given several times, and the views that models take."""
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        type=Path,
        metavar="RUN_OR_BUNDLE",
        help="a run directory, a bundle, or hf:owner/name; given several times, their logits are averaged",
    )
    parser.add_argument(
        "--tta-flip",
        action="store_true",
        help="look at each crop mirrored too, and average",
    )
    parser.add_argument(
        "--tta-scales",
        type=float,
        nargs="+",
        default=[],
        metavar="SCALE",
        help="look at each crop in these sizes too, multiples of the model's own, such as 0.85 1.15, and average; not right before an argument without a flag",
    )


def check_scales(scales: list[float]) -> None:
    """Raises ConfigError for a scale that is out of range."""
    for scale in scales:
        if not (math.isfinite(scale) and 0.25 <= scale <= 4):
            raise ConfigError(f"--tta-scales {scale:g}: must be from 0.25 to 4")


def add_object_arguments(parser: argparse.ArgumentParser) -> None:
    """--instances or --boxes, and --images."""
    parser.add_argument(
        "--instances",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="COCO instances files that list the objects",
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="PATH",
        help="or a table of boxes (.csv, .tsv, .jsonl): file_name,x,y,w,h[,category]",
    )
    add_images_argument(parser, "folders that hold the photographs, or URLs")


def add_images_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """--images."""
    parser.add_argument("--images", nargs="+", type=as_place, default=[], metavar="DIR", help=what)


def add_work_arguments(parser: argparse.ArgumentParser) -> None:
    """--workers and --max-failure-rate."""
    parser.add_argument(
        "--workers",
        type=int,
        default=-1,
        metavar="N",
        help="processes that cut crops (default: none beside a CPU, up to 8 beside a GPU)",
    )
    parser.add_argument(
        "--max-failure-rate", type=float, default=0.05, metavar="SHARE",
        help="share of objects that may be left out before the exit code is 1 (default: %(default)s)",
    )  # fmt: skip


def check_objects(arguments: argparse.Namespace) -> None:
    """Raises ConfigError or LabelError where objects or photographs are not said, or said twice."""
    if bool(arguments.instances) == (arguments.boxes is not None):
        raise ConfigError("give the objects with --instances or with --boxes, one of them")
    if not arguments.images:
        raise ConfigError("--images: say which folders hold the photographs")
    require_folders("--images", arguments.images)


def check_work(arguments: argparse.Namespace, suffixes: tuple[str, ...]) -> None:
    """Raises ConfigError for an argument that is out of range."""
    if arguments.out.suffix not in suffixes:
        raise ConfigError(f"--out {arguments.out}: give a name that ends in {' or '.join(suffixes)}")
    if arguments.workers < -1:
        raise ConfigError(f"--workers {arguments.workers}: must be at least 0")
    if not 0 <= arguments.max_failure_rate <= 1:
        raise ConfigError(f"--max-failure-rate {arguments.max_failure_rate:g}: must be from 0 to 1")


def judge(written: int, left_out: dict[str, int], arguments: argparse.Namespace, listed_in: Path) -> int:
    """Says how many objects there are, and returns 1 when more were left out than allowed, else 0."""
    from attrtrain.shards.manifest import too_many_left_out  # not for `--help`

    print(", ".join([f"{arguments.out}: {counted(written, 'object')}", *by_reason(left_out)]))
    lost = sum(left_out.values())
    if not (told := too_many_left_out(lost, written + lost, arguments.max_failure_rate, listed_in)):
        return 0
    print(
        f"error: {told}. The result is complete without them: mend, delete it and run again, or allow a higher rate",
        file=sys.stderr,
    )
    return 1

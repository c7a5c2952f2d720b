"""`attrtrain annotate`: tells the attributes of every object of a data set."""

import argparse
import sys
from pathlib import Path

from attrtrain.errors import ConfigError
from attrtrain.garbage import no_garbage_collection
from attrtrain.inference.command import (
    add_models_arguments,
    add_object_arguments,
    add_work_arguments,
    check_objects,
    check_scales,
    check_work,
    judge,
)
from attrtrain.signals import terminated_like_interrupted
from attrtrain.urls import require_writable
from attrtrain.wording import counted

EXAMPLES = """examples:
  attrtrain annotate --model runs/coco --instances instances_val2017.json --images val2017 --out preds.parquet \\
                     --coco-out labelled.json
  attrtrain annotate --model runs/coco --boxes boxes.csv --images photos --out preds.parquet --captions

A run that was stopped goes on where it was when the same command is given again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_models_arguments(parser)
    add_object_arguments(parser)
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="PARQUET",
        help="write one row an object, one column an attribute here",
    )
    parser.add_argument(
        "--coco-out",
        type=Path,
        metavar="JSON",
        help="write the instances file here as well, with the attributes of each annotation",
    )
    parser.add_argument(
        "--captions", action="store_true", help='add a line such as "a furry, sleeping dog" to each object'
    )
    add_work_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Annotates; returns 1 when more was left out than `--max-failure-rate` allows, else 0."""
    check_objects(arguments)
    check_work(arguments, (".parquet",))
    check_scales(arguments.tta_scales)
    _check_coco_out(arguments)
    with no_garbage_collection():
        from attrtrain.inference.annotating import annotate, of_photographs
        from attrtrain.inference.coco_out import write_coco
        from attrtrain.inference.members import views_of
        from attrtrain.inference.objects import read_objects
        from attrtrain.inference.parts import failures_path
        from attrtrain.inference.predictor import Predictor

    with terminated_like_interrupted():
        objects = read_objects(arguments.instances, arguments.boxes)
        views = views_of(arguments.tta_flip, arguments.tta_scales)
        predictor = Predictor(arguments.model, views=views)
        for note in [*([predictor.threshold_note] if predictor.threshold_note else []), *predictor.mirror_notes]:
            print(f"note: {note}", file=sys.stderr)
        source = of_photographs(predictor, objects, arguments.images)
        info = annotate(predictor, source, arguments.out, arguments.workers, arguments.captions)
        if arguments.coco_out is not None:
            replaced = write_coco(arguments.instances[0], arguments.out, arguments.coco_out)
            if replaced:
                had = "`attributes` or `caption`" if arguments.captions else "`attributes`"
                print(
                    f"note: {counted(replaced, 'annotation')} of {arguments.instances[0]} had {had} of {'its' if replaced == 1 else 'their'} own, which {arguments.coco_out} does not have",
                    file=sys.stderr,
                )
    return judge(info.written, info.left_out, arguments, failures_path(arguments.out))


def _check_coco_out(arguments: argparse.Namespace) -> None:
    """Raises ConfigError, before hours of work, for a COCO file that cannot be written or would take another's
    place.
    """
    out: Path | None = arguments.coco_out
    if out is None:
        return
    if len(arguments.instances) != 1:
        raise ConfigError("--coco-out: is one instances file written once more, so give one with --instances")
    for flag, other in (("--instances", arguments.instances[0]), ("--out", arguments.out)):
        if out.resolve() == other.resolve():
            raise ConfigError(f"--coco-out {out}: would replace the file of {flag}; choose another name")
    if out.is_dir():
        raise ConfigError(f"--coco-out {out}: is a folder; give the name of a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--coco-out {out}: cannot be written there ({error.strerror}); choose another place"
        ) from None
    require_writable("--coco-out", out.parent)

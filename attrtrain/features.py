"""`attrtrain features`: describes every object of a data set by the numbers a model computes its attributes from."""

import argparse
from pathlib import Path

from attrtrain.errors import ConfigError
from attrtrain.garbage import no_garbage_collection
from attrtrain.inference.command import (
    add_model_argument,
    add_object_arguments,
    add_work_arguments,
    check_objects,
    check_work,
    judge,
)
from attrtrain.signals import terminated_like_interrupted
from attrtrain.urls import as_place

EXAMPLES = """examples:
  attrtrain features --model runs/coco --instances instances_val2017.json --images val2017 --out features.parquet
  attrtrain features --model runs/coco --shards shards/coco --split val --out features.npy

A run that was stopped goes on where it was when the same command is given again."""

_SPLIT = "val"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model_argument(parser)
    add_object_arguments(parser)
    parser.add_argument("--shards", nargs="+", type=as_place, default=[], metavar="DIR", help="or shard folders")
    parser.add_argument("--split", help=f"which split of them (default: {_SPLIT})")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE",
        help="a .parquet with one row an object, or a .npy of (N, F) with its objects in a table beside it",
    )  # fmt: skip
    add_work_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Describes; returns 1 when more was left out than `--max-failure-rate` allows, else 0."""
    check_work(arguments, (".parquet", ".npy"))
    if not arguments.shards:
        if not arguments.instances and arguments.boxes is None:
            raise ConfigError("give the objects with --instances, --boxes or --shards, one of them")
        if arguments.split is not None:
            raise ConfigError(f"--split {arguments.split} chooses among the objects of --shards; leave it out")
        check_objects(arguments)
    elif arguments.instances or arguments.boxes is not None or arguments.images:
        raise ConfigError("--shards hold crops already; leave --instances, --boxes and --images out")
    with no_garbage_collection():
        from attrtrain.data.overlap import require_each_once
        from attrtrain.data.reader import ShardSet
        from attrtrain.inference.annotating import describe, of_photographs, of_shards
        from attrtrain.inference.objects import read_objects
        from attrtrain.inference.parts import failures_path
        from attrtrain.inference.predictor import Predictor

    with terminated_like_interrupted():
        predictor = Predictor(arguments.model)
        if arguments.shards:
            shards = ShardSet(arguments.shards, arguments.split or _SPLIT)
            require_each_once(shards)
            source = of_shards(predictor, shards)
        else:
            objects = read_objects(arguments.instances, arguments.boxes)
            source = of_photographs(predictor, objects, arguments.images)
        info = describe(predictor, source, arguments.out, arguments.workers)
    return judge(info.written, info.left_out, arguments, failures_path(arguments.out))

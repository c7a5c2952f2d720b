"""`attrtrain evaluate`: measures a trained model on shards, in the same way as training did."""

import argparse
import json
from pathlib import Path

from attrtrain.urls import as_place

HELP = "measure a trained model on shards"
EXAMPLES = """examples:
  attrtrain evaluate --model runs/coco --shards shards/coco
  attrtrain evaluate --model runs/coco/bundle --shards shards/mine --split test --out results"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--model", required=True, type=Path, metavar="RUN_OR_BUNDLE", help="a run directory or a bundle"
    )
    parser.add_argument(
        "--shards",
        required=True,
        type=as_place,
        nargs="+",
        metavar="DIR",
        help="shard folders, of the model's attributes",
    )
    parser.add_argument("--split", default="val", help="which split of them (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write metrics.json and report.html here")
    parser.add_argument(
        "--workers",
        type=int,
        default=-1,
        metavar="N",
        help="decoding processes (default: as many as training would use)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates and prints; returns 0."""
    from attrtrain.bundle import read_bundle
    from attrtrain.data.reader import ShardSet
    from attrtrain.engine.evaluate import evaluate
    from attrtrain.errors import ShardError
    from attrtrain.report.page import write_report
    from attrtrain.runtime import build_runtime

    model, card = read_bundle(arguments.model)
    shards = ShardSet(arguments.shards, arguments.split)
    if shards.vocabulary.fingerprint != card.vocabulary.fingerprint:
        raise ShardError(
            f"{arguments.shards[0]} has other attributes than {arguments.model} was trained on; evaluate on shards of the same vocabulary"
        )
    runtime = build_runtime(card.precision)
    evaluation = evaluate(
        runtime,
        model.to(runtime.device),
        shards,
        image_px=card.image_px,
        positive_at=card.positive_at,
        channels_last=card.channels_last,
        workers=runtime.workers(arguments.workers),
    )
    if not runtime.is_main:
        return 0
    scores = evaluation.scores
    print(
        f"{len(shards):,} objects of split '{arguments.split}': mAP {scores.map:.4f} beside a prior of {scores.prior_map:.4f}, "
        f"over {int(scores.judged.sum())} of {len(shards.vocabulary)} attributes; loss {evaluation.loss:.4f}"
    )
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        metrics = {"model": str(arguments.model), "split": arguments.split, "data_fingerprint": shards.fingerprint}
        (arguments.out / "metrics.json").write_text(
            json.dumps({**metrics, **evaluation.as_dict(shards.vocabulary.names)}, indent=1) + "\n"
        )
        write_report(
            arguments.out / "report.html",
            str(arguments.model),
            evaluation,
            shards,
            card.model_dump_json(indent=1, exclude={"vocabulary"}),
            None,
            card.positive_at,
        )
        print(f"{arguments.out}/metrics.json has every attribute; {arguments.out}/report.html shows them")
    return 0

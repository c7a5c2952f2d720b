"""`attrtrain evaluate`: measures a trained model on shards, in the same way as training did."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attrtrain.errors import AttrtrainError, ConfigError, ShardError
from attrtrain.garbage import no_garbage_collection
from attrtrain.inference.command import add_models_arguments, check_scales
from attrtrain.protocol import DEV, NAME, REPLICATES, TITLE, Choices, deviations
from attrtrain.run_layout import REPORT
from attrtrain.urls import as_place, require_writable
from attrtrain.wording import counted

if TYPE_CHECKING:  # torch takes seconds, which `--help` need not
    from attrtrain.bundle import ModelCard
    from attrtrain.data.reader import ShardSet
    from attrtrain.inference.members import Member
    from attrtrain.metrics.document import MetricsDocument
    from attrtrain.predictions import Predictions

EXAMPLES = f"""examples:
  attrtrain evaluate --model runs/coco --shards shards/coco
  attrtrain evaluate --model runs/coco/bundle --shards shards/mine --split test --tune-on val --out results
  attrtrain evaluate --model runs/coco --shards shards/coco --protocol {NAME} --out runs/coco/protocol
  attrtrain evaluate --model runs/one --model runs/two --shards shards/coco --tta-flip --tta-scales 0.85 1.15"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_models_arguments(parser)
    parser.add_argument(
        "--shards",
        required=True,
        type=as_place,
        nargs="+",
        metavar="DIR",
        help="shard folders, of the model's attributes",
    )
    parser.add_argument("--split", default="val", help="which split of them (default: %(default)s)")
    parser.add_argument(
        "--tune-on",
        metavar="SPLIT",
        help="tune thresholds on this split (default: on the other half of the judged photographs)",
    )
    parser.add_argument(
        "--protocol", choices=(NAME,), help="follow a frozen protocol, and say what does not (docs/protocol.md)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write metrics.json, predictions.npz and report.html here"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=-1,
        metavar="N",
        help="decoding threads (default: as many as training would use)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates and prints; returns 0."""
    check_scales(arguments.tta_scales)
    if arguments.tune_on == arguments.split:
        raise ConfigError(f"--tune-on {arguments.tune_on}: that is the split to judge; thresholds are tuned on another")
    with no_garbage_collection():
        from attrtrain.bundle import locate_bundle, read_card
        from attrtrain.data.overlap import leaks
        from attrtrain.device import device_type
        from attrtrain.engine.agreement import require_same_shards
        from attrtrain.engine.judging import headline, judge_split, thresholds_from
        from attrtrain.inference.gain import describe_gain, run_passes, together
        from attrtrain.inference.members import mirror_notes, read_members, shared_card, views_of
        from attrtrain.metrics.document import SHARDS
        from attrtrain.report.run_directory import joined
        from attrtrain.runtime import (
            PATIENCE_SECONDS,
            build_runtime,
            explained_process_loss,
            leave_group,
            of_one_process,
            usable_precision,
        )

    card = read_card(locate_bundle(arguments.model[0]))
    if arguments.out is not None:
        require_writable("--out", arguments.out)
    splits = _open_splits(arguments, card)
    runtime = build_runtime(usable_precision(card.precision, device_type()))
    members = read_members(arguments.model, runtime.device)
    card = shared_card(members)
    views, workers = views_of(arguments.tta_flip, arguments.tta_scales), runtime.workers(arguments.workers)
    if runtime.is_main:
        odd = leaks(splits.training, splits.judged) if splits.training else []
        for line in [*odd, *(f"note: {note}" for note in mirror_notes(members, views))]:
            print(line, file=sys.stderr)
    with explained_process_loss(runtime, f"{PATIENCE_SECONDS:.0f} s", "to evaluate anew"):
        require_same_shards(runtime, splits.judged)  # all splits of the folders
        try:
            tuning = together(run_passes(runtime, members, views, splits.tuning, workers)) if splits.tuning else None
            passes = run_passes(runtime, members, views, splits.judged, workers)
        except AttrtrainError as error:
            raise of_one_process(runtime, error) from None
        runtime.accelerator.wait_for_everyone()  # some may still be gathering
    leave_group(runtime)
    if not runtime.is_main:
        return 0
    predictions = together(passes)
    replicates = REPLICATES if arguments.protocol else None
    followed = _protocol(arguments, splits, members, len(views)) if replicates is not None else []
    document = judge_split(
        predictions,
        splits.judged,
        splits.training,
        source={
            "model": " + ".join(map(str, arguments.model)),
            SHARDS: joined(arguments.shards),
            **({"models": f"{len(members)}, averaged"} if len(members) > 1 else {}),
            **({"views": f"{len(views)} of each crop, averaged"} if len(views) > 1 else {}),
            **({"protocol": "\n".join(followed)} if followed else {}),
        },
        positive_at=card.positive_at,
        tuned=thresholds_from(tuning, splits.tuning.split, card.positive_at) if tuning and splits.tuning else None,
        replicates=replicates,
    )
    gain = describe_gain(passes, card.positive_at)
    print("\n".join([f"split '{arguments.split}': {headline(document)}", *followed, *gain]))
    if arguments.out is not None:
        _write(arguments.out, document, predictions, splits.judged, card)
    return 0


@dataclass(frozen=True)
class _Splits:
    """The split to judge; the one to tune thresholds on, None for cross-fitting; the one that guessers learn rates
    from, None where there is no other.
    """

    judged: "ShardSet"
    tuning: "ShardSet | None"
    training: "ShardSet | None"


def _open_splits(arguments: argparse.Namespace, card: "ModelCard") -> _Splits:
    from attrtrain.data.overlap import require_each_once
    from attrtrain.data.reader import ShardSet

    judged = ShardSet(arguments.shards, arguments.split)
    require_each_once(judged)
    if judged.vocabulary.fingerprint != card.vocabulary.fingerprint:
        raise ShardError(
            f"{arguments.shards[0]} has other attributes than {arguments.model[0]} was trained on; evaluate on shards of the same vocabulary"
        )
    others = {name for manifest in judged.manifests for name in manifest.splits} - {arguments.split}
    tune_on = arguments.tune_on or (DEV if arguments.protocol and DEV in others else None)
    return _Splits(
        judged,
        ShardSet(arguments.shards, tune_on) if tune_on else None,
        ShardSet(arguments.shards, "train") if "train" in others else None,
    )


def _protocol(arguments: argparse.Namespace, splits: _Splits, members: "list[Member]", views: int) -> list[str]:
    """Lines that say how far the protocol is followed."""
    from attrtrain.engine.judging import THRESHOLD

    choices = Choices(
        split=arguments.split,
        tuned_on=splits.tuning.split if splits.tuning else None,
        selected_on=next((one.card.selected_on for one in members if one.card.selected_on != DEV), DEV),
        positive_at=members[0].card.positive_at,
        threshold=THRESHOLD,
        replicates=REPLICATES,
        models=len(members),
        views=views,
        fit="pad" if any(one.card.framing.fit == "pad" for one in members) else "squash",
    )
    differing = deviations(splits.judged.manifests[0], choices)
    if len(arguments.shards) > 1:
        differing.append(f"{len(arguments.shards)} shard folders are judged together, and only the first was checked")
    if not differing:
        return [f"follows protocol {TITLE}"]
    return [f"protocol {TITLE}, except in {counted(len(differing), 'point')}:", *(f"  - {told}" for told in differing)]


def _write(
    folder: Path, document: "MetricsDocument", predictions: "Predictions", shards: "ShardSet", card: "ModelCard"
) -> None:
    from attrtrain.engine.judging import write_judgement
    from attrtrain.metrics.document import METRICS
    from attrtrain.report.run_report import installed_versions, write_report

    try:
        write_judgement(folder, document, predictions)
        write_report(
            folder / REPORT,
            title=document.source["model"] or folder.name,
            document=document,
            predictions=predictions,
            shards=shards,
            settings=card.model_dump_json(indent=1, exclude={"vocabulary"}),
            history=None,
            audit=None,
            versions=installed_versions(),
        )
    except OSError as error:
        raise ConfigError(f"--out {error.filename or folder}: {error.strerror or error}") from None
    print(f"{folder / METRICS} has every number; {folder / REPORT} shows them")


if __name__ == "__main__":  # `-m attrtrain.train` trains, so launchers are given this too, and would do nothing
    sys.exit("error: evaluate is a command of attrtrain, also for launchers: -m attrtrain evaluate ...")

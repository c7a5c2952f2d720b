"""A whole training run: data, model and runtime are built, trained, judged, and the run directory is completed."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from attrtrain import bundle, checkpoint
from attrtrain.config.load import dump_config
from attrtrain.config.schema import TrainConfig
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import evaluate
from attrtrain.engine.fit import fit, prepare_learner, restore
from attrtrain.engine.state import RunState
from attrtrain.errors import CheckpointError
from attrtrain.files import atomic_write
from attrtrain.models.network import build_network
from attrtrain.models.weights import load_backbone_weights
from attrtrain.report.page import write_report
from attrtrain.runtime import Runtime, build_runtime, seed_everything
from attrtrain.tracking import wandb_tracker
from attrtrain.tracking.trackers import JsonlTracker, NullTracker, Tracker, Trackers


def run(config: TrainConfig) -> None:
    """Trains as configured, from the beginning or from where the run directory stands.

    Raises:
        AttrtrainError: of whichever kind says what the user can do.
    """
    folder = Path(config.run.dir)
    train_shards = ShardSet(config.data.shards, config.data.train_split)
    val_shards = ShardSet(config.data.shards, config.data.val_split)
    runtime = build_runtime(config.train.precision)
    world_size = runtime.accelerator.num_processes
    micro_batch = config.train.micro_batch or max(config.train.global_batch // world_size, 1)
    order = TrainOrder(
        len(train_shards),
        config.run.seed,
        config.train.global_batch,
        micro_batch,
        runtime.accelerator.process_index,
        world_size,
    )
    source = _checkpoint_to_resume(config, folder, runtime.is_main)

    seed_everything(config.run.seed)
    model = build_network(
        config.model.backbone,
        config.model.head,
        config.model.hidden,
        config.model.dropout,
        len(train_shards.vocabulary),
    )
    told = (
        load_backbone_weights(model, config.model.backbone, config.model.weights)
        if source is None
        else f"going on from {source}"
    )
    learner = prepare_learner(runtime, model, config)
    state = RunState()
    if source is not None:
        restore(runtime, learner, train_shards, config, state, source)

    tracker: Tracker = NullTracker()
    if runtime.is_main:
        print(_opening(config, order, train_shards, val_shards, runtime), told, sep="\n", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "config.yaml") as file:
            file.write(dump_config(config).encode())
        mode, note = wandb_tracker.resolve_mode(config.track.wandb)
        if note:
            print(note, flush=True)
        tracker = Trackers(
            [
                JsonlTracker(folder / "metrics.jsonl", state.step),
                wandb_tracker.start(mode, folder, config.track.project, asdict(config)),
            ]
        )
    fit(runtime, learner, train_shards, val_shards, config, order, state, folder, tracker)
    _finish(runtime, config, val_shards, state, folder, tracker)


def _checkpoint_to_resume(config: TrainConfig, folder: Path, is_main: bool) -> Path | None:
    match config.checkpoint.resume:
        case "auto":
            latest, complaints = checkpoint.find_latest(folder / "checkpoints")
            if is_main and complaints:
                print("\n".join(complaints), file=sys.stderr)
            return latest
        case "never":
            if (folder / "checkpoints").exists() or (folder / "result.json").exists():
                raise CheckpointError(f"{folder} holds a run and checkpoint.resume is never; choose another --run.dir")
            return None
        case path:
            return Path(path)


def _opening(
    config: TrainConfig, order: TrainOrder, train_shards: ShardSet, val_shards: ShardSet, runtime: Runtime
) -> str:
    return (
        f"{config.run.dir}: {config.model.backbone} + {config.model.head} head, {len(train_shards.vocabulary)} attributes, "
        f"{len(train_shards):,} objects to train on, {len(val_shards):,} to be judged on\n"
        f"{order.world_size} x {runtime.device.type}, precision {runtime.precision}, {config.data.image_px} px, batch {order.global_batch} = "
        f"{order.world_size} x {order.accumulation} x {order.micro_batch}, {config.train.epochs} epochs of {order.steps_per_epoch} steps"
    )


def _finish(
    runtime: Runtime, config: TrainConfig, val_shards: ShardSet, state: RunState, folder: Path, tracker: Tracker
) -> None:
    """Judges the bundle as anybody else would, and writes result.json and report.html from that. Collective."""
    model, card = bundle.read_bundle(folder)
    evaluation = evaluate(
        runtime,
        model.to(runtime.device),
        val_shards,
        image_px=card.image_px,
        positive_at=card.positive_at,
        channels_last=card.channels_last,
        workers=runtime.workers(config.data.workers),
    )
    if not runtime.is_main:
        return
    result = {
        "best_epoch": state.best_epoch,
        "val": {
            "map": evaluation.scores.map,
            "prior_map": evaluation.scores.prior_map,
            "objects": len(evaluation.labels),
        },
        "seconds": state.seconds,
    }
    write_report(
        folder / "report.html",
        folder.name,
        evaluation,
        val_shards,
        dump_config(config),
        folder / "metrics.jsonl",
        card.positive_at,
    )
    with atomic_write(folder / "result.json") as file:
        file.write(json.dumps(result, indent=1).encode() + b"\n")
    tracker.finish(
        {"best_epoch": state.best_epoch, "val/map": evaluation.scores.map, "val/prior_map": evaluation.scores.prior_map}
    )
    print(
        f"best epoch {state.best_epoch}: val mAP {evaluation.scores.map:.4f} beside a prior of {evaluation.scores.prior_map:.4f} "
        f"on {len(evaluation.labels):,} objects\n{folder}/report.html shows it; {folder}/bundle is the model"
    )

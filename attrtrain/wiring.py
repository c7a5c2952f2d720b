"""A whole training run: data, model and runtime are built, trained, judged, and the run directory is completed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate.utils.memory import should_reduce_batch_size

from attrtrain import __version__, bundle, checkpoint
from attrtrain.assembly import (
    build_configured_runtime,
    build_model,
    build_order,
    require_augmentation,
    require_batch_statistics,
)
from attrtrain.auditing.quick import QuickAudit
from attrtrain.auditing.quick_shards import audit_shards
from attrtrain.config.load import dump_config
from attrtrain.config.schema import TIMM, TrainConfig
from attrtrain.contract import write_contract
from attrtrain.data.cache import ShardCache
from attrtrain.data.meaning import contradictions
from attrtrain.data.order import TrainOrder
from attrtrain.data.overlap import leaks, require_each_once
from attrtrain.data.reader import ShardSet
from attrtrain.engine.compiling import explained_compile_failure
from attrtrain.engine.evaluate import EvaluationStoppedError, evaluate
from attrtrain.engine.fit import fit, is_finished, preempted, prepare_learner
from attrtrain.engine.going_on import checkpoint_to_resume, nothing_to_do, put_in_order
from attrtrain.engine.judging import headline, judge_split, predictions_of, write_judgement
from attrtrain.engine.objective import Objective
from attrtrain.engine.resume import changed_settings, changes_numbers, restore
from attrtrain.engine.state import RunState, Task
from attrtrain.engine.window import Window
from attrtrain.errors import (
    AttrtrainError,
    CheckpointError,
    ConfigError,
    LabelError,
    MemoryExceededError,
    PreemptedError,
)
from attrtrain.files import atomic_write, remove_partials
from attrtrain.framing import Framing
from attrtrain.metrics.document import SHARDS
from attrtrain.models.network import AttributeModel
from attrtrain.models.timm_backbone import resizing
from attrtrain.models.weights import load_backbone_weights
from attrtrain.report.for_trackers import describe_bundle, describe_shards, track_judgement
from attrtrain.report.run_directory import AUDIT, CONFIG, EVALUATION, joined, read_config, read_run, write_run_report
from attrtrain.run_lock import locked
from attrtrain.runtime import Runtime, explained_process_loss, leave_group, of_one_process, seed_everything
from attrtrain.shards.manifest import unlabelled_attributes
from attrtrain.signals import StopRequest
from attrtrain.tracking import tensorboard_tracker, wandb_tracker
from attrtrain.tracking.jsonl_tracker import JsonlTracker
from attrtrain.tracking.tensorboard_tracker import require_tensorboard
from attrtrain.tracking.trackers import NullTracker, Tracker, Trackers


def run(config: TrainConfig) -> None:
    """Trains as configured, from the beginning or from where the run directory stands.

    Raises:
        PreemptedError: the run was asked to stop, and can go on.
        AttrtrainError: of whichever kind says what the user can do.
    """
    if config.track.tensorboard:
        require_tensorboard()
    cache = ShardCache.of(config.data.cache_dir, config.data.cache_gb)
    train_shards = ShardSet(config.data.shards, config.data.train_split, cache)
    val_shards = ShardSet(config.data.shards, config.data.val_split, cache)
    for shards in (train_shards, val_shards):
        require_each_once(shards)
    _require_labels(config, train_shards)
    Framing.within(train_shards.crop, config.data.context, config.data.fit)  # refused before anything is loaded
    runtime = build_configured_runtime(config)
    # Not before: until all processes have met there is nothing to save, and one that hears a signal would wait for
    # others which it has ended.
    stop = StopRequest()
    stop.listen()
    order = build_order(config, train_shards, runtime)
    require_augmentation(config, order, train_shards.vocabulary.names)
    stopped: PreemptedError | None = None
    try:
        _train(config, runtime, train_shards, val_shards, order, stop)
    except PreemptedError as error:
        stopped = error.with_traceback(None)  # whose frames hold the model
    leave_group(runtime)
    if stopped is not None:
        raise stopped


def _train(
    config: TrainConfig,
    runtime: Runtime,
    train_shards: ShardSet,
    val_shards: ShardSet,
    order: TrainOrder,
    stop: StopRequest,
) -> None:
    """All that needs the model, which nothing holds any more when this returns. Raises as `run` does."""
    folder = Path(config.run.dir)
    again = "to go on from the last checkpoint"
    with explained_process_loss(runtime, "run.timeout_seconds", again), locked(folder, runtime):
        source = checkpoint_to_resume(config, folder, runtime)
        seed_everything(config.run.seed)
        model = build_model(config, train_shards)
        require_batch_statistics(config, model, order.micro_batch, order.world_size)
        told = _fill(config, model, source)
        with _explained_full_disk(folder):
            found = _audit(config, folder, train_shards, runtime) if source is None else None
        learner = prepare_learner(runtime, model, config)
        state, window = RunState(), Window(runtime)
        objective = Objective.of(config, train_shards, runtime.device)
        task = Task(config, runtime, train_shards, val_shards, order, objective, folder, NullTracker(), stop)
        if source is not None:
            restore(task, learner, state, window, source)
            mended = put_in_order(task, learner, state, window, source)
            told += mended
            left_to_do = not is_finished(config, state), bool(mended), not (folder / "result.json").exists()
            if not any(runtime.any_rank(*left_to_do)):
                if runtime.is_main:
                    print(*told, *nothing_to_do(config, state), sep="\n", flush=True)
                return
        if runtime.is_main:
            odd = [*contradictions(train_shards.vocabulary.names, config.data), *leaks(train_shards, val_shards)]
            print(_opening(task), *told, *([found.line] if found else []), *odd, sep="\n", flush=True)
            with _explained_full_disk(folder):
                task = replace(task, tracker=_open_folder(task, state, found, source))
        with _closing(task), _explained_lack_of_memory(config), explained_compile_failure(config.train.compile):
            fit(task, learner, state, window)
            with _explained_full_disk(folder):
                _finish(task, state)


def _audit(config: TrainConfig, folder: Path, shards: ShardSet, runtime: Runtime) -> QuickAudit | None:
    """A quick look at the labels of a new run, kept as audit.json. Returns what was found, on the main process.
    Collective.

    Raises:
        LabelError: on every rank, under audit.strict, where they look like noise.
    """
    found = None
    if runtime.is_main:
        found = audit_shards(shards, config.labels.positive_at)
        write_contract(found, folder / AUDIT)
    refused = config.audit.strict and found is not None and found.verdict == "noise"
    if runtime.any_rank(refused)[0]:
        raise LabelError(
            f"audit.strict: {found.line if found else 'the labels look like noise'}; `attrtrain audit` says more"
        )
    return found


def _fill(config: TrainConfig, model: AttributeModel, source: Path | None) -> list[str]:
    """Gives a new run its first weights; one that goes on gets its own from the checkpoint. Returns lines to print."""
    if source is None:
        told = load_backbone_weights(model, config.model.backbone, config.model.weights)
        return [told, *_other_size(config)]
    changed = changed_settings(source, config)
    return [f"going on from {source}", *([f"settings changed since: {'; '.join(changed)}"] if changed else [])]


def _other_size(config: TrainConfig) -> list[str]:
    """A line where pretrained weights were trained on pictures of another size than this run has, which costs them some
    of what they know.
    """
    if not config.model.backbone.startswith(TIMM) or config.model.weights == "none":
        return []
    side, _ = resizing(config.model.backbone.removeprefix(TIMM))
    own = config.data.image_px
    return (
        [] if side == own else [f"data.image_px: {config.model.backbone} was trained on {side} px, this run has {own}"]
    )


def _require_labels(config: TrainConfig, shards: ShardSet) -> None:
    """Raises LabelError where nothing is known of any training object, and unknown means nothing to the loss."""
    names = unlabelled_attributes(shards.manifests, shards.split)
    if config.labels.unknown == "mask" and len(names) == len(shards.vocabulary):
        raise LabelError(
            f"split '{shards.split}' of {', '.join(config.data.shards)} has not one known label, so there is nothing to learn; look at the label file, or give another data.train_split"
        )


@contextmanager
def _explained_full_disk(folder: Path) -> Iterator[None]:
    """Raises CheckpointError where the run directory cannot be written."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder}: {error.strerror or error}; free space and run the same command again to go on"
        ) from None


@contextmanager
def _explained_lack_of_memory(config: TrainConfig) -> Iterator[None]:
    """Raises MemoryExceededError where a step does not fit into its device's memory."""
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise MemoryExceededError(
            f"a step does not fit into the memory there is ({str(error).splitlines()[0]}); lower train.micro_batch or data.image_px, or set train.checkpoint_activations; "
            f"`attrtrain find` tells what fits. {config.run.dir} goes on from its last checkpoint"
        ) from None


def _open_folder(task: Task, state: RunState, audit: QuickAudit | None, source: Path | None) -> Tracker:
    """Writes the run's configuration and makes its trackers, which are told what the run is. Main process only.

    Args:
        audit: of a new run.
        source: the checkpoint of one that goes on.
    """
    config, folder = task.config, task.folder
    for place in (folder, folder / EVALUATION):
        remove_partials(place)  # of a training that was killed while it wrote
    settings, leaves_course = dump_config(config), source is not None and _other_numbers(config, folder, source)
    (folder / "result.json").unlink(missing_ok=True)  # of fewer epochs: whoever waits for it waits for the last
    # Of a run that is trained already what is left to do, judging, follows from the bundle alone.
    if not is_finished(config, state) or not (folder / CONFIG).exists():
        with atomic_write(folder / CONFIG) as file:
            file.write(settings.encode())
    mode, note = wandb_tracker.resolve_mode(config.track.wandb)
    if note:
        print(note, flush=True)
    lines = JsonlTracker(folder / "metrics.jsonl", state.step, state.epoch)
    if leaves_course and lines.dropped:
        wandb_tracker.leave_course(folder)
    trackers: list[Tracker] = [lines, wandb_tracker.start(mode, folder, lines.kept, config.track, _known(task, audit))]
    if config.track.tensorboard:
        trackers.append(tensorboard_tracker.start(folder, state.step, lines.kept, settings))
    tracker = Trackers(trackers)
    tracker.log_artifact(describe_shards(task.train_shards))
    if audit is not None and audit.verdict == "noise":
        tracker.alert("labels look like noise", f"{config.run.dir}: {audit.line}")
    return tracker


def _other_numbers(config: TrainConfig, folder: Path, source: Path) -> bool:
    """Whether numbers from here on may be others than those that were logged before: settings differ from the
    checkpoint's, or from those that the folder was last trained with.
    """
    try:
        last = read_config(folder / CONFIG)[1]
    except ConfigError:
        return True
    before = [checkpoint.load_state(source)["config"], *([last] if last else [])]
    return any(changes_numbers(settings, config) for settings in before)


def _known(task: Task, audit: QuickAudit | None) -> dict[str, Any]:
    """What runs are told apart by: the configuration, and what it came to here."""
    facts = {
        "attrtrain": __version__,
        "precision": task.runtime.precision,
        "device": task.runtime.device.type,
        "world_size": task.order.world_size,
        "steps_per_epoch": task.order.steps_per_epoch,
        "attributes": len(task.train_shards.vocabulary),
        "train_objects": len(task.train_shards),
        "val_objects": len(task.val_shards),
        "data_fingerprint": task.train_shards.fingerprint,
    }
    return {**asdict(task.config), "facts": {**facts, **({"audit": audit.verdict} if audit else {})}}


@contextmanager
def _closing(task: Task) -> Iterator[None]:
    """Tells the trackers how the run ended, where it did not end well, and people where that is for them to mend."""
    try:
        yield
    except PreemptedError:
        task.tracker.finish({}, "preempted")
        raise
    except AttrtrainError as error:
        task.tracker.alert("training failed", f"{task.config.run.dir}: {error}")
        task.tracker.finish({}, "failed")
        raise of_one_process(task.runtime, error) from None


def _opening(task: Task) -> str:
    config, order = task.config, task.order
    return (
        f"{config.run.dir}: {config.model.backbone} + {config.model.head} head, {len(task.train_shards.vocabulary)} attributes, "
        f"{len(task.train_shards):,} objects to train on, {len(task.val_shards):,} to be judged on\n"
        f"{order.world_size} x {task.runtime.device.type}, precision {task.runtime.precision}, {config.data.image_px} px, batch {order.global_batch} = "
        f"{order.world_size} x {order.accumulation} x {order.micro_batch}, {config.train.epochs} epochs of {order.steps_per_epoch} steps"
    )


def _finish(task: Task, state: RunState) -> None:
    """Judges the bundle as anybody else would, and writes evaluation/, report.html and result.json from that.
    Collective.
    """
    runtime, folder = task.runtime, task.folder
    runtime.accelerator.wait_for_everyone()  # the bundle is rank 0's to write
    model, card = bundle.read_bundle(folder)
    evaluation = None
    with suppress(EvaluationStoppedError):
        evaluation = evaluate(
            runtime,
            model.to(runtime.device),
            task.val_shards,
            image_px=card.image_px,
            framing=card.framing,
            positive_at=card.positive_at,
            channels_last=card.channels_last,
            categories=model.categories,
            workers=runtime.workers(task.config.data.workers),
            stop=task.stop,
        )
    if evaluation is None:  # the last checkpoint is there, and result.json is not: started again, the run is judged
        raise preempted(task, state)
    if not runtime.is_main:
        return
    predictions = predictions_of(evaluation, task.val_shards)
    document = judge_split(
        predictions,
        task.val_shards,
        task.train_shards,
        source={"model": folder.name, "epoch": str(state.best_epoch), SHARDS: joined(task.val_shards.folders)},
        positive_at=card.positive_at,
    )
    write_judgement(folder / EVALUATION, document, predictions)
    write_run_report(folder / "report.html", read_run(folder), task.val_shards)  # what `attrtrain report` would write
    interval = document.intervals.get("map")
    result = {
        "best_epoch": state.best_epoch,
        "val": {
            "map": document.overall["map"],
            "map_interval": interval,
            "prior_map": document.overall["prior_map"],
            "objects": document.objects,
        },
        "seconds": state.seconds,
    }
    with atomic_write(folder / "result.json") as file:
        file.write(json.dumps(result, indent=1).encode() + b"\n")
    track_judgement(task.tracker, state.step, document, predictions, task.val_shards)
    task.tracker.log_artifact(describe_bundle(folder / "bundle", card, state.best_epoch))
    low, high = interval or (None, None)
    task.tracker.finish(
        {
            "best_epoch": state.best_epoch,
            "best_step": state.best_step,
            "val/map": document.overall["map"],
            "val/map_low": low,
            "val/map_high": high,
            "val/prior_map": document.overall["prior_map"],
            "seconds": state.seconds,
        }
    )
    print(
        f"best epoch {state.best_epoch}: val {headline(document)}\n{folder}/report.html shows it; {folder}/bundle is the model"
    )

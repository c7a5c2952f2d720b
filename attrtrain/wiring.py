"""A whole training run: data, model and runtime are built, trained, judged, and the run directory is completed."""

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from attrtrain.assembly import (
    build_configured_runtime,
    build_model,
    build_order,
    require_augmentation,
    require_batch_statistics,
    step_settings,
    training_crops,
)
from attrtrain.auditing.quick import QuickAudit
from attrtrain.auditing.quick_shards import audit_shards
from attrtrain.config.schema import TIMM, TrainConfig
from attrtrain.contract import write_contract
from attrtrain.data.cache import ShardCache
from attrtrain.data.meaning import contradictions
from attrtrain.data.order import TrainOrder
from attrtrain.data.overlap import leaks, require_each_once
from attrtrain.data.reader import ShardSet
from attrtrain.engine.agreement import require_same_settings, require_same_shards
from attrtrain.engine.compiling import explained_compile_failure
from attrtrain.engine.fit import fit
from attrtrain.engine.going_on import checkpoint_to_resume, nothing_to_do, put_in_order
from attrtrain.engine.judging import judged_unlearnt
from attrtrain.engine.learner import prepare_learner
from attrtrain.engine.resume import changed_settings, restore
from attrtrain.engine.state import RunState, Task
from attrtrain.engine.stopping import is_finished
from attrtrain.engine.window import Window
from attrtrain.errors import (
    AttrtrainError,
    CheckpointError,
    ConfigError,
    LabelError,
    MemoryExceededError,
    PreemptedError,
    ShardError,
    explained_lack_of_memory,
)
from attrtrain.framing import Framing
from attrtrain.models.network import AttributeModel
from attrtrain.models.timm_backbone import resizing
from attrtrain.models.weights import load_backbone_weights
from attrtrain.run_completion import complete_run
from attrtrain.run_layout import AUDIT, RESULT
from attrtrain.run_lock import locked
from attrtrain.run_opening import open_folder
from attrtrain.runtime import Runtime, explained_process_loss, leave_group, of_one_process, seed_everything
from attrtrain.shards.manifest import unlabelled_attributes
from attrtrain.signals import StopRequest
from attrtrain.tracking.tensorboard_tracker import require_tensorboard
from attrtrain.tracking.trackers import NullTracker
from attrtrain.urls import is_url
from attrtrain.wording import counted


def run(config: TrainConfig) -> None:
    """Trains as configured, from the beginning or from where the run directory stands.

    Raises:
        PreemptedError: the run was asked to stop, and can go on.
        AttrtrainError: of whichever kind says what the user can do.
    """
    if config.track.tensorboard:
        require_tensorboard()
    _require_own_folder(config)
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
        require_same_settings(runtime, config)
        require_same_shards(runtime, train_shards)  # all splits of the folders
        source = checkpoint_to_resume(config, folder, runtime)
        seed_everything(config.run.seed)
        model = build_model(config, train_shards)
        require_batch_statistics(config, model, order.micro_batch, order.world_size)
        told = _fill(config, model, source)
        with _explained_write_failure(folder):
            found = _audit(config, folder, train_shards, runtime) if source is None else None
        learner = prepare_learner(runtime, model, config)
        state, window = RunState(), Window(runtime)
        crops, settings = training_crops(config, train_shards), step_settings(config, train_shards, runtime.device)
        task = Task(config, runtime, crops, val_shards, order, settings, folder, NullTracker(), stop)
        if source is not None:
            restore(task, learner, state, window, source)
            with (
                _told_by_one_process(runtime),
                _explained_lack_of_memory(config),
                explained_compile_failure(config.train.compile),
                _explained_write_failure(folder),
            ):
                mended = put_in_order(task, learner, state, window, source)
            told += mended
            left_to_do = not is_finished(config, state), bool(mended), not (folder / RESULT).exists()
            if not any(runtime.any_rank(*left_to_do)):
                if runtime.is_main:
                    print(*told, *nothing_to_do(config, state), sep="\n", flush=True)
                return
        if runtime.is_main:
            odd = [
                *contradictions(train_shards.vocabulary.names, config.data),
                *leaks(train_shards, val_shards),
                *judged_unlearnt(train_shards, val_shards, config.labels.positive_at),
            ]
            print(_opening(task), *told, *([found.line] if found else []), *odd, sep="\n", flush=True)
            with _explained_write_failure(folder):
                task = replace(task, tracker=open_folder(task, state, found, source))
        with _closing(task), _explained_lack_of_memory(config), explained_compile_failure(config.train.compile):
            fit(task, learner, state, window)
            with _explained_write_failure(folder):
                complete_run(task, state)


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


def _require_own_folder(config: TrainConfig) -> None:
    """Raises ConfigError where the run would be written among the shards."""
    folder = Path(config.run.dir).resolve()
    for shards in config.data.shards:
        if not is_url(shards) and Path(shards).resolve() == folder:
            raise ConfigError(f"run.dir: {config.run.dir} holds the shards; give the run a folder of its own")


def _require_labels(config: TrainConfig, shards: ShardSet) -> None:
    """Raises LabelError where nothing is known of any training object, and unknown means nothing to the loss."""
    names = unlabelled_attributes(shards.manifests, shards.split)
    if config.labels.unknown == "mask" and len(names) == len(shards.vocabulary):
        raise LabelError(
            f"split '{shards.split}' of {', '.join(config.data.shards)} has not one known label, so there is nothing to learn; look at the label file, or give another data.train_split"
        )


@contextmanager
def _explained_write_failure(folder: Path) -> Iterator[None]:
    """Raises CheckpointError where the run directory cannot be written."""
    try:
        yield
    except OSError as error:
        mend = "free space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that"
        raise CheckpointError(
            f"{error.filename or folder}: {error.strerror or error}; {mend} and run the same command again to go on"
        ) from None


def _explained_lack_of_memory(config: TrainConfig) -> AbstractContextManager[None]:
    """Raises MemoryExceededError where a step does not fit into its device's memory."""
    return explained_lack_of_memory(
        "a step does not fit into the memory there is",
        "lower train.micro_batch or data.image_px, or set train.checkpoint_activations; `attrtrain find` tells what fits. "
        f"{config.run.dir} goes on from its last checkpoint",
    )


@contextmanager
def _told_by_one_process(runtime: Runtime) -> Iterator[None]:
    """Has the process that meets a crop or a lack of memory say so, which may not be the main one."""
    try:
        yield
    except (ShardError, MemoryExceededError) as error:
        raise of_one_process(runtime, error) from None


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
        f"{config.run.dir}: {config.model.backbone} + {config.model.head} head, {counted(len(task.train_shards.vocabulary), 'attribute')}, "
        f"{counted(len(task.train_shards), 'object')} to train on, {len(task.val_shards):,} to be judged on\n"
        f"{order.world_size} x {task.runtime.device.type}, precision {task.runtime.precision}, {config.data.image_px} px, batch {order.global_batch} = "
        f"{order.world_size} x {order.accumulation} x {order.micro_batch}, {counted(config.train.epochs, 'epoch')} of {counted(order.steps_per_epoch, 'step')}"
    )

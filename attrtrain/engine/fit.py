"""Training from wherever a run stands to its end."""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import torch
from accelerate import DistributedType
from tqdm import tqdm

from attrtrain.config.schema import TrainConfig
from attrtrain.data.augment import Augmentation
from attrtrain.data.jitter import Jitter
from attrtrain.data.loader import Batch, CropDataset, load_batches
from attrtrain.data.reader import ShardSet
from attrtrain.engine.bundles import save_bundles
from attrtrain.engine.compiling import compile_in_place
from attrtrain.engine.evaluate import BAR_SECONDS, Evaluation, EvaluationStoppedError, evaluate
from attrtrain.engine.judging import attribute_table
from attrtrain.engine.objective import Objective
from attrtrain.engine.resume import diverged, save_checkpoint
from attrtrain.engine.state import Learner, RunState, Task
from attrtrain.engine.step import StepSettings, TrainingCategories, optimizer_step
from attrtrain.engine.window import Window
from attrtrain.errors import ConfigError, PreemptedError
from attrtrain.framing import Framing
from attrtrain.metrics.functional import MeanScores
from attrtrain.models.layers import layer_groups, synchronise_batchnorm, undecayed
from attrtrain.models.network import AttributeModel, pretrained_interpolation
from attrtrain.models.recompute import checkpoint_activations
from attrtrain.optim import MovingAverage, build_optimizer, learning_rate, set_learning_rate, trains_head_alone
from attrtrain.run_lock import require_held
from attrtrain.runtime import Runtime
from attrtrain.signals import StopRequest

_AGREE_EVERY = 5  # steps between two looks, by all ranks together, at whether any of them was asked to stop


def prepare_learner(runtime: Runtime, model: AttributeModel, config: TrainConfig) -> Learner:
    """Puts a model on its device and wraps it, its average and its optimizer for training.

    Raises:
        ConfigError: sync_batchnorm without a GPU, or what FSDP cannot do.
    """
    if runtime.accelerator.distributed_type == DistributedType.FSDP and not runtime.accelerator.is_fsdp2:
        raise ConfigError(
            "Accelerate's configuration asks for the first version of FSDP, whose flattened weights attrtrain cannot save; "
            "set fsdp_version: 2, as accelerate_configs/fsdp2.yaml does"
        )
    if runtime.accelerator.distributed_type == DistributedType.FSDP and (
        config.train.ema or config.train.channels_last or config.train.compile
    ):
        raise ConfigError(
            "train.ema, train.channels_last and train.compile: a model that is sharded over GPUs has none of them; "
            "under FSDP give --train.ema 0 --train.channels_last false --train.compile false"
        )
    if runtime.accelerator.distributed_type == DistributedType.FSDP and config.model.head == "ml_decoder":
        raise ConfigError(
            "model.head: ml_decoder reads inside the backbone, which FSDP shards as a whole; take linear or mlp"
        )
    if config.train.sync_batchnorm and runtime.accelerator.num_processes > 1:
        if runtime.device.type != "cuda":
            raise ConfigError(
                "train.sync_batchnorm: torch synchronises batch statistics on CUDA GPUs only; leave it off"
            )
        synchronise_batchnorm(model)
    model.to(runtime.device)
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)
    average = MovingAverage(model, config.train.ema) if config.train.ema else None
    optimizer = build_optimizer(model, config.optim, layer_groups(model), undecayed(model))
    if config.train.checkpoint_activations:  # not of the average, which is only evaluated
        checkpoint_activations(model)
    if config.train.compile:
        compile_in_place(model, *([average.module] if average is not None else []))
    try:
        wrapped, prepared = runtime.accelerator.prepare(model, optimizer)
    except ValueError as error:
        if "does not support containers" not in str(error):
            raise
        raise ConfigError(
            f"model.backbone: {config.model.backbone} keeps its blocks in lists, which FSDP cannot shard by size; take another backbone, "
            "or train it on GPUs that hold it whole, with accelerate_configs/multi_gpu.yaml"
        ) from None
    return Learner(model, wrapped, average, prepared)


def fit(task: Task, learner: Learner, state: RunState, window: Window) -> None:
    """Trains to the last epoch, or until it no longer helps, evaluating and saving on the way; `state` follows.
    Collective: every rank calls it.

    Raises:
        PreemptedError: some rank was asked to stop; a checkpoint of this moment is saved.
        AttrtrainError: the loss is no number any more.
    """
    config = task.config
    batches = load_batches(
        training_crops(config, task.train_shards),
        task.order.requests(config.train.epochs, state.epoch, state.samples_in_epoch),
        task.runtime.device,
        task.runtime.workers(config.data.workers),
    )
    clock, settings = _Clock(task), step_settings(config, task.objective, task.train_shards)
    while not is_finished(config, state):
        _train_epoch(task, learner, state, window, batches, settings, clock)
        evaluation = _evaluate(task, learner, state, window, clock)
        clock.count(state)
        _close_epoch(task, learner, state, evaluation)
        if _is_saved_after(config, state):
            save_checkpoint(task, learner, state, window)
            _leave_if_asked(task, state)
        else:
            _save_and_leave_if_asked(task, learner, state, window)
    _tell_early_stop(task, state)


def is_finished(config: TrainConfig, state: RunState) -> bool:
    """Whether no epoch is left, or the last `train.patience` of them found nothing better. Follows from the state
    alone, so a resumed run stops where another would have.
    """
    return state.epoch >= config.train.epochs or 0 < config.train.patience <= state.stale_epochs


def early_stop(config: TrainConfig, state: RunState) -> str:
    """A line about a finished run that did not take all of its epochs, "" of one that did."""
    if state.epoch >= config.train.epochs:
        return ""
    return (
        f"stopped early after epoch {state.epoch} of {config.train.epochs}: no better val mAP than {state.best_map:.4f}, "
        f"of epoch {state.best_epoch}, for {state.stale_epochs} epochs (train.patience)"
    )


def _tell_early_stop(task: Task, state: RunState) -> None:
    if not (told := early_stop(task.config, state)):
        return
    task.tracker.alert("training stopped early", f"{task.config.run.dir}: {told}")
    if task.runtime.is_main:
        print(told, flush=True)


def training_crops(config: TrainConfig, shards: ShardSet) -> CropDataset:
    """The crops of a split as training sees them, before what is done to whole batches."""
    jitter = Jitter(config.run.seed, config.data.jitter) if config.data.jitter else None
    return CropDataset(shards, config.data.image_px, config.data.resize_on, framing_of(config, shards), jitter)


def framing_of(config: TrainConfig, shards: ShardSet) -> Framing:
    """What of the stored crops a configured network sees."""
    wanted = config.data.interpolation
    interpolation = pretrained_interpolation(config.model.backbone) if wanted == "auto" else wanted
    return Framing.within(shards.crop, config.data.context, config.data.fit, interpolation)


def step_settings(config: TrainConfig, objective: Objective, shards: ShardSet) -> StepSettings:
    """What a configuration asks of a step on a split."""
    return StepSettings(
        config.run.seed,
        Augmentation.of(config.data, config.run.seed, shards.vocabulary.names),
        objective,
        config.train.clip_norm,
        config.train.channels_last,
        TrainingCategories.of(shards, config.run.seed, config.model.category_dropout)
        if config.model.head == "category"
        else None,
    )


def _train_epoch(
    task: Task,
    learner: Learner,
    state: RunState,
    window: Window,
    batches: Iterator[Batch],
    settings: StepSettings,
    clock: "_Clock",
) -> None:
    """Trains to the end of the epoch. Losses stay on the device until a line is logged."""
    config, order = task.config, task.order
    learner.wrapped.train()
    first = state.samples_in_epoch // order.global_batch
    bar = tqdm(
        total=order.steps_per_epoch, initial=first, desc=f"epoch {state.epoch + 1}/{config.train.epochs}", unit="step",
        disable=not task.runtime.is_main, leave=False, dynamic_ncols=True, mininterval=BAR_SECONDS,
    )  # fmt: skip
    window.go_on()
    with bar:
        for step_in_epoch in range(first, order.steps_per_epoch):
            rate = learning_rate(
                state.step, config.train.epochs * order.steps_per_epoch, order.steps_per_epoch, config.optim
            )
            head_alone = trains_head_alone(state.step, order.steps_per_epoch, config.optim)
            set_learning_rate(learner.optimizer, rate, head_alone)
            with window.waiting():
                micro_batches = list(islice(batches, order.accumulation))
            loss, norm = optimizer_step(
                task.runtime, learner.wrapped, learner.optimizer, micro_batches, state.step, settings
            )
            if learner.average is not None:
                learner.average.update_parameters(learner.module)
            state.step += 1
            state.samples_in_epoch += order.global_batch
            window.add(loss, norm)
            bar.update()
            is_last = step_in_epoch + 1 == order.steps_per_epoch
            if state.step % config.track.every_steps == 0 or is_last:
                values = _log(task, state, window, rate)
                bar.set_postfix(loss=f"{values['loss']:.4f}", objects_per_s=f"{values['objects_per_second']:.0f}")
            if not is_last:  # the end of an epoch has its own rules
                clock.save_or_leave(task, learner, state, window)


def _log(task: Task, state: RunState, window: Window, rate: float) -> dict[str, float]:
    steps = window.steps
    values = window.close(task.order.global_batch)
    if task.runtime.is_main:
        require_held(task.folder)
    if not math.isfinite(values["loss"]):
        raise diverged(task, state.step, "the loss is not a finite number")
    state.epoch_loss += values["loss"] * steps
    task.tracker.log("train", state.step, {"epoch": state.epoch + 1, "lr": rate, **values})
    return values


class _Clock:
    """How long training takes, and when, inside an epoch, a checkpoint is due or the run is asked to stop. All ranks
    come to the same answer at the same step.
    """

    def __init__(self, task: Task) -> None:
        self._world_size = task.runtime.accelerator.num_processes
        self._seconds = task.config.checkpoint.every_minutes * 60 or math.inf
        self._saved = self._counted = time.monotonic()

    def count(self, state: RunState) -> None:
        """Adds the time since the last count to what was spent: before each save, so that a run that is stopped tells
        it all.
        """
        now = time.monotonic()
        state.spend(now - self._counted)
        self._counted = now

    def save_or_leave(self, task: Task, learner: Learner, state: RunState, window: Window) -> None:
        self.count(state)
        every_steps = task.config.checkpoint.every_steps
        due = every_steps > 0 and state.step % every_steps == 0
        if self._world_size == 1 or state.step % _AGREE_EVERY == 0:
            time_is_up = task.runtime.any_rank(time.monotonic() - self._saved > self._seconds)[0]
            due = due or time_is_up
            _save_and_leave_if_asked(task, learner, state, window)
        if due:
            save_checkpoint(task, learner, state, window)
            self._saved = time.monotonic()


def _save_and_leave_if_asked(task: Task, learner: Learner, state: RunState, window: Window) -> None:
    if task.runtime.any_rank(task.stop.received is not None)[0]:
        save_checkpoint(task, learner, state, window)
        raise preempted(task, state)


def _leave_if_asked(task: Task, state: RunState) -> None:
    if task.runtime.any_rank(task.stop.received is not None)[0] and not is_finished(task.config, state):
        raise preempted(task, state)


def preempted(task: Task, state: RunState) -> PreemptedError:
    """The error of a run that was asked to stop and is on the disk."""
    cause = task.stop.received.name if task.stop.received is not None else "a signal to another process"
    return PreemptedError(
        f"stopped by {cause} at step {state.step}, epoch {state.epoch + 1}; saved in {task.folder}/checkpoints: run the same command again to go on"
    )


def _is_saved_after(config: TrainConfig, state: RunState) -> bool:
    """Whether an epoch that has just been closed gets a checkpoint: when it is its turn, the last, the best, or one was
    due at its last step.
    """
    every_steps = config.checkpoint.every_steps
    return (
        state.epoch % config.checkpoint.every_epochs == 0
        or is_finished(config, state)
        or state.best_epoch == state.epoch
        or (every_steps > 0 and state.step % every_steps == 0)
    )


def evaluate_learner(task: Task, learner: Learner, stop: StopRequest | None) -> Evaluation:
    """Evaluates the network as it is on the split that judges. Collective.

    Raises:
        EvaluationStoppedError: `stop` was received on some rank.
    """
    config = task.config
    return evaluate(
        task.runtime,
        learner.judged,
        task.val_shards,
        image_px=config.data.image_px,
        framing=framing_of(config, task.train_shards),
        positive_at=config.labels.positive_at,
        channels_last=config.train.channels_last,
        categories=learner.module.categories,
        workers=task.runtime.workers(config.data.workers),
        stop=stop,
    )


def evaluate_or_leave(task: Task, learner: Learner, state: RunState) -> Evaluation:
    """As `evaluate_learner`, of a run that is on the disk as it is. Raises PreemptedError where some rank was asked to
    stop.
    """
    with suppress(EvaluationStoppedError):
        return evaluate_learner(task, learner, task.stop)
    # Not in an `except`: the other error's frames hold the network, which must go before the group of processes does.
    raise preempted(task, state)


def _evaluate(task: Task, learner: Learner, state: RunState, window: Window, clock: _Clock) -> Evaluation:
    """Evaluates the epoch just trained. A stop in the middle of it is a stop before it: it will be done again from its
    beginning.
    """
    task.runtime.agree_on_buffers(learner.judged)
    with suppress(EvaluationStoppedError):
        return evaluate_learner(task, learner, task.stop)
    clock.count(state)
    save_checkpoint(task, learner, state, window)
    raise preempted(task, state)


def _close_epoch(task: Task, learner: Learner, state: RunState, evaluation: Evaluation) -> None:
    """Moves the state past the epoch, logs and prints it, and keeps its model when it is the best so far."""
    config, scores = task.config, evaluation.scores
    state.epoch, state.samples_in_epoch = state.epoch + 1, 0
    train_loss, state.epoch_loss = state.epoch_loss / task.order.steps_per_epoch, 0.0
    seconds, state.epoch_seconds = state.epoch_seconds, 0.0
    # Where nothing can be judged, the last epoch is as good a choice as any.
    is_best = state.best_epoch == 0 or scores.map > state.best_map or math.isnan(scores.map)
    if is_best:
        state.best_epoch, state.best_map, state.best_step = state.epoch, scores.map, state.step
    values = {"epoch": state.epoch, "map": scores.map, "prior_map": scores.prior_map, "loss": scores.loss}
    task.tracker.log("val", state.step, {**values, "best_map": state.best_map, "seconds": seconds})
    task.tracker.log_table("val/attributes", state.step, attribute_table(task.val_shards.vocabulary.names, scores))
    if task.runtime.is_main:
        print(
            f"epoch {state.epoch}/{config.train.epochs}  train loss {train_loss:.4f}  val loss {scores.loss:.4f}  "
            f"{_told(scores)}{' (best)' if is_best else ''}  {seconds:.0f} s",
            flush=True,
        )
    save_bundles(task, learner, state, evaluation, framing_of(config, task.train_shards), is_best)


def _told(scores: MeanScores) -> str:
    if not scores.judged:
        return "val has too few known labels for a mAP"
    return f"val mAP {scores.map:.4f} beside a prior of {scores.prior_map:.4f}"

"""Training from wherever a run stands to its end."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from attrtrain.data.loader import Batch, load_batches
from attrtrain.engine.bundles import save_bundles
from attrtrain.engine.evaluate import BAR_SECONDS, Evaluation, EvaluationStoppedError, evaluate
from attrtrain.engine.judging import attribute_table
from attrtrain.engine.resume import diverged, save_checkpoint
from attrtrain.engine.state import Learner, RunState, Task
from attrtrain.engine.step import ARRANGING_STEPS, arrange_gradients, optimizer_step
from attrtrain.engine.stopping import (
    Clock,
    early_stop,
    is_finished,
    is_saved_after,
    leave_if_asked,
    preempted,
    save_and_leave_if_asked,
)
from attrtrain.engine.window import Window
from attrtrain.errors import AttrtrainError, MemoryExceededError, ShardError
from attrtrain.metrics.functional import MeanScores
from attrtrain.optim import learning_rate, set_learning_rate, trains_head_alone
from attrtrain.run_lock import require_held
from attrtrain.signals import StopRequest


def fit(task: Task, learner: Learner, state: RunState, window: Window) -> None:
    """Trains to the last epoch, or until it no longer helps, evaluating and saving on the way; `state` follows.
    Collective: every rank calls it.

    Raises:
        PreemptedError: some rank was asked to stop; a checkpoint of this moment is saved.
        ShardError, MemoryExceededError: an object is damaged, or an evaluation does not fit; a run of one process is
            saved as it was after its last step.
        AttrtrainError: the loss is no number any more.
    """
    config = task.config
    batches = load_batches(
        task.crops,
        task.order.requests(config.train.epochs, state.epoch, state.samples_in_epoch),
        task.runtime.device,
        task.runtime.workers(config.data.workers),
    )
    clock = Clock(task)
    if state.step and isinstance(learner.wrapped, DistributedDataParallel) and not is_finished(config, state):
        batches = _gradients_arranged(task, learner, state, batches)
    while not is_finished(config, state):
        with _saved_before_end(task, learner, state, window, clock):
            _train_epoch(task, learner, state, window, batches, clock)
            evaluation = _evaluate(task, learner, state, window, clock)
        clock.count(state)
        _close_epoch(task, learner, state, evaluation)
        if is_saved_after(config, state):
            clock.save(task, learner, state, window)
            leave_if_asked(task, state)
        else:
            save_and_leave_if_asked(task, learner, state, window)
    _tell_early_stop(task, state)


@contextmanager
def _saved_before_end(task: Task, learner: Learner, state: RunState, window: Window, clock: Clock) -> Iterator[None]:
    """Saves a run that a damaged object ends, or an evaluation that does not fit into memory: both leave it as it was
    after its last step, from which it goes on once that is mended. Not where others train too, who have not met it.
    """
    try:
        yield
    except (ShardError, MemoryExceededError):
        if state.step and task.runtime.accelerator.num_processes == 1:
            clock.count(state)
            with suppress(AttrtrainError):  # the disk is full as well: the first reason is the one to tell
                clock.save(task, learner, state, window)
        raise


def _gradients_arranged(task: Task, learner: Learner, state: RunState, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Has the processes of a run that goes on add up gradients in the order of one that never ended. Returns the same
    batches.
    """
    if (first := next(batches, None)) is None:  # its last epoch has only to be judged
        return batches
    learner.wrapped.train()
    for _ in range(min(state.step, ARRANGING_STEPS)):
        arrange_gradients(task.runtime, learner.wrapped, first, state.step, task.settings)
    return chain([first], batches)


def _tell_early_stop(task: Task, state: RunState) -> None:
    if not (told := early_stop(task.config, state)):
        return
    task.tracker.alert("training stopped early", f"{task.config.run.dir}: {told}")
    if task.runtime.is_main:
        print(told, flush=True)


def _train_epoch(
    task: Task,
    learner: Learner,
    state: RunState,
    window: Window,
    batches: Iterator[Batch],
    clock: Clock,
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
    with bar, _convolutions_tried(config.data.scales):
        for step_in_epoch in range(first, order.steps_per_epoch):
            rate = learning_rate(
                state.step, config.train.epochs * order.steps_per_epoch, order.steps_per_epoch, config.optim
            )
            head_alone = trains_head_alone(state.step, order.steps_per_epoch, config.optim)
            set_learning_rate(learner.optimizer, rate, head_alone)
            with window.waiting():
                micro_batches = list(islice(batches, order.accumulation))
            loss, norm = optimizer_step(
                task.runtime, learner.wrapped, learner.optimizer, micro_batches, state.step, task.settings
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


@contextmanager
def _convolutions_tried(scales: Sequence[float]) -> Iterator[None]:
    """Has cuDNN try its ways to convolve when it first meets a size, and keep the fastest: worth it where every step
    has the same. Not for evaluations, whose scores are to be the same each time.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not scales
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


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
        framing=task.framing,
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


def _evaluate(task: Task, learner: Learner, state: RunState, window: Window, clock: Clock) -> Evaluation:
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
    save_bundles(task, learner, state, evaluation, is_best)


def _told(scores: MeanScores) -> str:
    if not scores.judged:
        return "val has too few known labels for a mAP"
    return f"val mAP {scores.map:.4f} beside a prior of {scores.prior_map:.4f}"

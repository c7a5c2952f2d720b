"""When a run is over, when it is saved, and when it leaves because it was asked to stop."""

import math
import time

from attrtrain.config.schema import TrainConfig
from attrtrain.engine.resume import save_checkpoint
from attrtrain.engine.state import Learner, RunState, Task
from attrtrain.engine.window import Window
from attrtrain.errors import PreemptedError
from attrtrain.run_layout import CHECKPOINTS
from attrtrain.wording import counted

_AGREE_EVERY = 5  # steps between two looks, by all ranks together, at whether any of them was asked to stop


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
        f"of epoch {state.best_epoch}, for {counted(state.stale_epochs, 'epoch')} (train.patience)"
    )


def is_saved_after(config: TrainConfig, state: RunState) -> bool:
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


class Clock:
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
        """Looks, after a step inside an epoch, at whether a checkpoint is due. Collective. Raises PreemptedError where
        some rank was asked to stop.
        """
        self.count(state)
        every_steps = task.config.checkpoint.every_steps
        due = every_steps > 0 and state.step % every_steps == 0
        if self._world_size == 1 or state.step % _AGREE_EVERY == 0:
            time_is_up = task.runtime.any_rank(time.monotonic() - self._saved > self._seconds)[0]
            due = due or time_is_up
            save_and_leave_if_asked(task, learner, state, window)
        if due:
            self.save(task, learner, state, window)

    def save(self, task: Task, learner: Learner, state: RunState, window: Window) -> None:
        """Saves the run as it is; the minutes until the next checkpoint count from now on. Collective."""
        save_checkpoint(task, learner, state, window)
        self._saved = time.monotonic()


def save_and_leave_if_asked(task: Task, learner: Learner, state: RunState, window: Window) -> None:
    """Saves the run and raises PreemptedError where some rank was asked to stop. Collective."""
    if _is_asked(task):
        save_checkpoint(task, learner, state, window)
        raise preempted(task, state)


def leave_if_asked(task: Task, state: RunState) -> None:
    """Raises PreemptedError where some rank was asked to stop a run that is saved and has more to do. Collective."""
    if _is_asked(task) and not is_finished(task.config, state):
        raise preempted(task, state)


def _is_asked(task: Task) -> bool:
    """Whether some rank was asked to stop. Collective."""
    return task.runtime.any_rank(task.stop.received is not None)[0]


def preempted(task: Task, state: RunState) -> PreemptedError:
    """The error of a run that was asked to stop and is on the disk."""
    cause = task.stop.received.name if task.stop.received is not None else "a signal to another process"
    return PreemptedError(
        f"stopped by {cause} at step {state.step}, epoch {state.epoch + 1}; saved in {task.folder / CHECKPOINTS}: run the same command again to go on"
    )

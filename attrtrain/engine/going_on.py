"""From which checkpoint a training goes on, and the folder of one that does."""

import sys
from pathlib import Path

from attrtrain import checkpoint
from attrtrain.config.changes import changes_numbers
from attrtrain.config.schema import TrainConfig
from attrtrain.engine.best import is_best, require_best_bundle
from attrtrain.engine.resume import save_checkpoint
from attrtrain.engine.state import Learner, RunState, Task
from attrtrain.engine.stopping import early_stop
from attrtrain.engine.window import Window
from attrtrain.errors import CheckpointError
from attrtrain.run_layout import CHECKPOINTS, HISTORY, RESULT
from attrtrain.runtime import Runtime
from attrtrain.tracking import wandb_tracker
from attrtrain.wording import counted


def checkpoint_to_resume(config: TrainConfig, folder: Path, runtime: Runtime) -> Path | None:
    """The checkpoint that a training begins from, None for a new run. Collective: the main process chooses, since
    another machine may see a shared folder as it was a while ago.

    Raises:
        CheckpointError: the one that is asked for is damaged, or each of the folder's is; or a run is there and none is
            to be gone on with.
    """
    chosen = problem = ""
    if runtime.is_main:
        checkpoint.clean(folder / CHECKPOINTS)
        try:
            chosen = str(_choose(config, folder) or "")
        except CheckpointError as error:
            problem = str(error)
    chosen, problem = runtime.from_main(chosen, problem)
    if problem:
        raise CheckpointError(problem)
    return Path(chosen) if chosen else None


def _choose(config: TrainConfig, folder: Path) -> Path | None:
    match config.checkpoint.resume:
        case "auto":
            latest, complaints = checkpoint.find_latest(folder / CHECKPOINTS)
            if complaints and latest is None:  # beginning anew would cost what somebody may still restore
                raise CheckpointError(
                    f"{complaints[0]}, and there is no older one that is whole; restore one, begin anew with another --run.dir, or move {folder} away"
                )
            _tell_damage(complaints)
            return latest
        case "never":
            if (folder / CHECKPOINTS).exists() or (folder / RESULT).exists():
                raise CheckpointError(f"{folder} holds a run and checkpoint.resume is never; choose another --run.dir")
            return None
        case path:
            latest, complaints = checkpoint.find_latest(folder / CHECKPOINTS)
            if latest is not None:
                before = checkpoint.load_state(latest)["config"]
                before["train"]["epochs"] = config.train.epochs  # more of them are wanted of what it has come to
                if _same_place(before["checkpoint"]["resume"], path) and not changes_numbers(before, config):
                    _tell_damage(complaints)
                    return latest  # this very command was here before, and has come further
            if inside := checkpoint.those_in(Path(path)) or checkpoint.those_in(Path(path, CHECKPOINTS)):
                raise CheckpointError(
                    f"checkpoint.resume: {path} is no checkpoint, but holds some; give one of them, such as {inside[-1]}"
                )
            if (problem := checkpoint.damage(Path(path))) is not None:
                raise CheckpointError(f"checkpoint.resume: {path} is damaged or no checkpoint ({problem})")
            return Path(path)


def _tell_damage(complaints: list[str]) -> None:
    for complaint in complaints:
        print(f"{complaint}; going back to the one before", file=sys.stderr)


def _same_place(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def put_in_order(task: Task, learner: Learner, state: RunState, window: Window, source: Path) -> list[str]:
    """Puts the folder of a run that was restored from a checkpoint in order, and returns lines that say what was done
    to it. Collective.
    """
    told = []
    folder = task.folder / CHECKPOINTS
    is_own = checkpoint.is_in(folder, source)
    if task.runtime.is_main and (moved := checkpoint.set_aside(folder, source)):
        which = "newer" if is_own else "other"
        how_many = counted(len(moved), f"{which} checkpoint is", f"{which} checkpoints are")
        told.append(f"{how_many} set aside in {moved[0].parent}")
        if not is_own:
            _set_course_aside(task.folder)
    if not is_own:  # at once: whatever becomes of where the checkpoint is, the folder can be gone on with
        best = checkpoint.of_step(source.parent, state.best_step)
        if task.runtime.is_main and 0 < state.best_step < state.step and is_best(best, state):
            checkpoint.take_in(folder, best)
        save_checkpoint(task, learner, state, window)
    mended = require_best_bundle(task, learner, state, window, source)
    return [*told, *([mended] if mended else [])]


def _set_course_aside(folder: Path) -> None:
    """What was logged of the course whose checkpoints are set aside goes with them, and W&B gets a run of its own."""
    if (folder / HISTORY).exists():
        checkpoint.move_aside(folder / CHECKPOINTS, folder / HISTORY)
    wandb_tracker.leave_course(folder)


def nothing_to_do(config: TrainConfig, state: RunState) -> list[str]:
    """Lines about a finished run that was asked for again."""
    early = early_stop(config, state)
    return [
        *([early] if early else []),
        f"{config.run.dir} is finished after {counted(state.epoch, 'epoch')}, and is left as it is: nothing was trained; give another --run.dir for another run",
    ]

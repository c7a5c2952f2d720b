"""The bundle of the best epoch, where a run that goes on finds another one in its folder, or none."""

import math
from pathlib import Path

from attrtrain import bundle, checkpoint
from attrtrain.engine.bundles import write_bundles
from attrtrain.engine.fit import evaluate_or_leave
from attrtrain.engine.resume import restore
from attrtrain.engine.state import Learner, RunState, Task
from attrtrain.engine.window import Window
from attrtrain.errors import CheckpointError, WeightsError
from attrtrain.run_layout import BUNDLE, CHECKPOINTS


def require_best_bundle(task: Task, learner: Learner, state: RunState, window: Window, source: Path) -> str | None:
    """Makes sure that RUN/bundle is the model of the best epoch so far, whether the run went back before a better one,
    goes on in another folder, or has lost it. Collective.

    It is made anew from the checkpoint of that epoch, which a run always keeps. Where that is gone too, the best is
    looked for among the epochs to come.

    Args:
        source: the checkpoint that `restore` took the run up from, and takes it up from again where the bundle is made
            anew.

    Returns:
        A line that says so, None where there is nothing to do.

    Raises:
        CheckpointError: nothing is left of the best epoch, and none is to come.
        PreemptedError: some rank was asked to stop.
    """
    has_it = task.runtime.is_main and _holds_best(task.folder, state)
    if state.best_epoch == 0 or task.runtime.any_rank(has_it)[0]:
        return None
    places = (checkpoint.of_step(folder, state.best_step) for folder in (source.parent, task.folder / CHECKPOINTS))
    found = next((str(place) for place in places if is_best(place, state)), "") if task.runtime.is_main else ""
    (found,) = task.runtime.from_main(found)
    if not found:
        epoch = state.best_epoch
        if state.epoch >= task.config.train.epochs:
            raise CheckpointError(
                f"{task.folder}: has neither the bundle nor the checkpoint of epoch {epoch}, its best, and no epoch is left; give more --train.epochs, or begin anew in another --run.dir"
            )
        state.best_epoch, state.best_map, state.best_step, state.sought_since = 0, -math.inf, 0, state.epoch
        return f"neither bundle nor checkpoint of epoch {epoch}, the best so far, is there: the best is looked for from here on"
    best = Path(found)
    restore(task, learner, RunState(), Window(task.runtime), best)
    evaluation = evaluate_or_leave(task, learner, state)
    write_bundles(task, learner, evaluation, [task.folder / BUNDLE])
    restore(task, learner, state, window, source)
    return f"{task.folder / BUNDLE} was not of epoch {state.best_epoch}, the best so far; made anew from {best}"


def is_best(place: Path, state: RunState) -> bool:
    """Whether a checkpoint is whole and that of the best epoch, not what another course of a run left at its step."""
    if checkpoint.damage(place) is not None:
        return False
    position = checkpoint.load_state(place)["position"]
    best_map = state.best_map if math.isfinite(state.best_map) else None
    return (position["best_step"], position["best_map"]) == (state.best_step, best_map)


def _holds_best(folder: Path, state: RunState) -> bool:
    """Whether the bundle's card tells the score of the best epoch, digit for digit."""
    try:
        told = bundle.read_card(bundle.require_bundle(folder)).metrics.get("val.map")
    except WeightsError:
        return False
    return told == state.best_map if math.isfinite(state.best_map) else told is None

"""When a run is over, when it saves, and when it leaves: by its state and its clock alone, on all ranks at the same
step.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from signal import Signals
from types import SimpleNamespace
from typing import Any

import pytest

from attrtrain.config.schema import TrainConfig
from attrtrain.engine import stopping
from attrtrain.engine.state import RunState
from attrtrain.engine.stopping import Clock, early_stop, is_finished, is_saved_after, leave_if_asked
from attrtrain.errors import PreemptedError

EVERYTHING_ELSE: Any = None  # of a learner and a window, which only saving looks at


def of(*, epochs: int = 9, patience: int = 0, **checkpoint: Any) -> TrainConfig:
    config = TrainConfig()
    return replace(
        config,
        train=replace(config.train, epochs=epochs, patience=patience),
        checkpoint=replace(config.checkpoint, **checkpoint),
    )


class Seconds:
    """Seconds that pass when they are told to, and the steps at which was saved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.saved: list[int] = []
        monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(stopping, "save_checkpoint", self._save)

    def _save(self, task: Any, learner: Any, state: RunState, window: Any) -> None:
        self.saved.append(state.step)

    def steps(self, task: Any, count: int, each: float, state: RunState | None = None) -> list[int]:
        """Takes steps of so many seconds, and returns those after which was saved."""
        clock, state = Clock(task), state or RunState()
        for _ in range(count):
            self.now += each
            state.step += 1
            clock.save_or_leave(task, EVERYTHING_ELSE, state, EVERYTHING_ELSE)
        return self.saved


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    return Seconds(monkeypatch)


def task_of(
    config: TrainConfig, ranks: int = 1, others: Callable[[], bool] = lambda: False, received: Signals | None = None
) -> Any:
    """A task of one of several ranks; `others` says whether another one answers yes."""
    runtime = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=ranks), any_rank=lambda *flags: [flag or others() for flag in flags]
    )
    return SimpleNamespace(
        config=config, runtime=runtime, stop=SimpleNamespace(received=received), folder=Path("runs/one")
    )


def test_a_run_is_finished_after_its_epochs_or_as_many_without_a_better_one_as_it_has_patience_for() -> None:
    assert [is_finished(of(epochs=3), RunState(epoch=epoch)) for epoch in range(5)] == [False] * 3 + [True] * 2
    stale = [RunState(epoch=epoch, best_epoch=2, best_map=0.25) for epoch in (2, 3, 4, 5)]
    assert [is_finished(of(patience=2), state) for state in stale] == [False, False, True, True]
    assert not any(is_finished(of(patience=0), state) for state in stale)  # which is without end
    assert early_stop(of(patience=2), stale[2]) == (
        "stopped early after epoch 4 of 9: no better val mAP than 0.2500, of epoch 2, for 2 epochs (train.patience)"
    )
    assert early_stop(of(epochs=4, patience=2), stale[2]) == ""  # it took all of them


def test_an_epoch_is_saved_when_it_is_its_turn_the_last_the_best_or_ends_with_a_step_that_is_due() -> None:
    def saved(config: TrainConfig, best_epoch: int = 1) -> list[int]:
        states = [RunState(epoch=epoch, best_epoch=best_epoch, step=10 * epoch) for epoch in range(1, 10)]
        return [state.epoch for state in states if is_saved_after(config, state)]

    assert saved(of(every_epochs=1)) == list(range(1, 10))
    assert saved(of(every_epochs=4)) == [1, 4, 8, 9]
    assert saved(of(every_epochs=50), best_epoch=3) == [3, 9]
    assert saved(of(every_epochs=50, every_steps=30)) == [1, 3, 6, 9]
    assert saved(of(every_epochs=50, patience=5), best_epoch=2) == [2, 7, 8, 9]  # the run ends with the 7th


def test_a_step_is_saved_when_so_many_were_taken_or_so_many_minutes_went_by_since_the_last(seconds: Seconds) -> None:
    assert seconds.steps(task_of(of(every_steps=3)), 10, each=1e4) == [3, 6, 9]
    seconds.saved.clear()
    assert seconds.steps(task_of(of(every_minutes=2.0)), 12, each=35) == [4, 8, 12]  # 140 s are more than two minutes
    seconds.saved.clear()
    assert seconds.steps(task_of(of()), 12, each=1e6) == []
    # A step that was saved for its number is a new beginning for the minutes.
    assert seconds.steps(task_of(of(every_minutes=2.0, every_steps=3)), 8, each=35) == [3, 6]


def test_an_epoch_that_was_saved_is_a_new_beginning_for_the_minutes(seconds: Seconds) -> None:
    task, state = task_of(of(every_minutes=2.0)), RunState()
    clock = Clock(task)
    seconds.now += 600  # its last steps, and its evaluation
    clock.save(task, EVERYTHING_ELSE, state, EVERYTHING_ELSE)
    for state.step in range(1, 6):
        seconds.now += 35
        clock.save_or_leave(task, EVERYTHING_ELSE, state, EVERYTHING_ELSE)
    assert seconds.saved == [0, 4]


def test_several_ranks_look_at_their_clocks_together_every_fifth_step(seconds: Seconds) -> None:
    config = of(every_minutes=1.0)
    assert seconds.steps(task_of(config, ranks=2), 20, each=20) == [5, 10, 15, 20]
    seconds.saved.clear()
    late = iter([False, False, True, False, False, False])  # of time and of a stop, at steps 5, 10 and 15
    assert seconds.steps(task_of(config, ranks=2, others=lambda: next(late)), 19, each=1) == [10]


@pytest.mark.parametrize(("ranks", "step"), [(1, 1), (2, 5)])
def test_a_run_that_is_asked_to_stop_saves_once_and_says_how_to_go_on(seconds: Seconds, ranks: int, step: int) -> None:
    state = RunState(epoch=2)
    asked = task_of(of(every_steps=1 if ranks == 1 else 5, every_minutes=1e-9), ranks, received=Signals.SIGTERM)
    told = rf"^stopped by SIGTERM at step {step}, epoch 3; saved in runs/one/checkpoints: run the same command again to go on$"
    with pytest.raises(PreemptedError, match=told):
        seconds.steps(asked, 9, each=7, state=state)
    assert seconds.saved == [step]
    assert state.seconds == state.epoch_seconds == 7 * step


def test_a_rank_leaves_with_another_that_was_asked_to_stop(seconds: Seconds) -> None:
    with pytest.raises(PreemptedError, match="stopped by a signal to another process at step 5"):
        seconds.steps(task_of(of(), ranks=2, others=lambda: True), 9, each=1)
    assert seconds.saved == [5]


def test_a_finished_run_does_not_leave_before_it_is_judged() -> None:
    asked = task_of(of(epochs=3), received=Signals.SIGTERM)
    leave_if_asked(asked, RunState(epoch=3))
    leave_if_asked(task_of(of(epochs=3)), RunState(epoch=2))
    with pytest.raises(PreemptedError):
        leave_if_asked(asked, RunState(epoch=2))

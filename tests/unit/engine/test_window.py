"""Values of a logged line: means over steps and ranks, and how fast it went."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attrtrain.engine import window as window_module
from attrtrain.engine.window import CLOCKED, Window


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(window_module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def passes(self, seconds: float) -> None:
        self.now += seconds


def runtime(*others: list[float], device: Any = torch.device("cpu")) -> Any:  # noqa: B008
    """A runtime of several ranks; `others` is what the others bring to be gathered."""
    accelerator = SimpleNamespace(
        num_processes=1 + len(others), gather=lambda own: torch.cat([own, *(torch.tensor([row]) for row in others)])
    )
    return SimpleNamespace(device=device, accelerator=accelerator)


def step(window: Window, loss: float, norm: float) -> None:
    window.add(torch.tensor(loss), torch.tensor(norm))


def test_a_line_has_means_throughput_and_the_share_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    window = Window(runtime())
    for number in range(4):
        with window.waiting():
            clock.passes(0.5)
        clock.passes(1.5)
        step(window, float(number), 2.0)
    assert window.close(global_batch=32) == {
        "loss": 1.5, "grad_norm": 2.0, "objects_per_second": 4 * 32 / 8.0, "data_wait_share": 0.25,
    }  # fmt: skip
    clock.passes(2.0)
    step(window, 1.0, 1.0)
    assert window.close(global_batch=32)["data_wait_share"] == 0.0  # the next one begins from nothing


def test_an_evaluation_between_two_lines_is_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    window = Window(runtime())
    clock.passes(1000)
    window.go_on()
    clock.passes(2)
    step(window, 1.0, 1.0)
    assert window.close(global_batch=10)["objects_per_second"] == 5.0


def test_ranks_sum_losses_and_average_their_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    window = Window(runtime([0.75, 0.5, 3.0, 0.0]))
    with window.waiting():
        clock.passes(1.0)
    clock.passes(3.0)
    step(window, 0.25, 1.0)
    values = window.close(global_batch=8)
    assert values == {"loss": 1.0, "grad_norm": 1.0, "objects_per_second": 2.0, "data_wait_share": 0.5}


def test_a_checkpoint_in_the_middle_of_a_line_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    first = Window(runtime())
    with first.waiting():
        clock.passes(1.0)
    clock.passes(1.0)
    step(first, 2.0, 1.0)
    saved = first.state_dict()
    clock.passes(5000)  # until it is started again
    second = Window(runtime())
    second.load_state_dict([saved], 0, 1)
    clock.passes(70)  # until it trains again
    second.go_on()
    clock.passes(2.0)
    step(second, 4.0, 1.0)
    values = second.close(global_batch=10)
    assert values == {"loss": 3.0, "grad_norm": 1.0, "objects_per_second": 5.0, "data_wait_share": 0.25}


def test_on_a_gpu_a_line_has_the_most_memory_of_any_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torch.cuda that counts: allocated since the last reset, in bytes."""
    peaks = {"now": 3 * 2**30}

    class WithGpu:
        cuda = SimpleNamespace(
            max_memory_allocated=lambda _: peaks["now"], reset_peak_memory_stats=lambda _: peaks.update(now=2**29)
        )
        zeros = staticmethod(lambda size, device: torch.zeros(size))
        tensor = staticmethod(lambda values, device: torch.tensor(values))

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(window_module, "torch", WithGpu())
    window = Window(runtime([0.0, 0.0, 0.0, 0.25], device=SimpleNamespace(type="cuda")))
    step(window, 1.0, 1.0)
    assert window.close(8)["gpu_memory_gib"] == 0.5  # what another thing than this window took is not counted
    peaks["now"] = 2**28
    step(window, 1.0, 1.0)
    values = window.close(8)
    assert values["gpu_memory_gib"] == 0.25 and set(CLOCKED) <= set(values)


def test_sums_of_a_world_of_another_size_are_counted_once() -> None:
    states = []
    for loss in (1.0, 2.0, 3.0):
        window = Window(runtime())
        step(window, loss, 0.0)
        states.append(window.state_dict())
    ranks = [Window(runtime()) for _ in range(2)]
    for rank, window in enumerate(ranks):
        window.load_state_dict(states, rank, 2)
    # Each closed as if alone: the two together have the loss of the one step, 6.
    assert [window.close(global_batch=1)["loss"] for window in ranks] == [6.0, 0.0]

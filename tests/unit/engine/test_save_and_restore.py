"""What a checkpoint of a run holds besides the network: taken up from it, a run goes on as if it had not ended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from attrtrain.config.schema import TrainConfig
from attrtrain.engine.resume import restore, save_checkpoint
from attrtrain.engine.state import Learner, RunState
from attrtrain.engine.window import Window
from attrtrain.errors import AttrtrainError
from attrtrain.run_lock import locked
from attrtrain.tracking import wandb_tracker

SHARDS = SimpleNamespace(fingerprint="data", vocabulary=SimpleNamespace(fingerprint="attributes"))


def task(folder: Path, scaler: Any) -> Any:
    """A run of one process on the CPU, with a gradient scaler as fp16 on a GPU has one."""
    accelerator = SimpleNamespace(
        scaler=scaler, num_processes=1, process_index=0, wait_for_everyone=lambda: None, gather=lambda tensor: tensor
    )
    runtime = SimpleNamespace(
        accelerator=accelerator,
        device=torch.device("cpu"),
        is_main=True,
        any_rank=lambda *flags: list(flags),
        from_main=lambda *texts: list(texts),
    )
    return SimpleNamespace(config=TrainConfig(), runtime=runtime, train_shards=SHARDS, folder=folder)


def learner() -> Any:
    module = nn.Linear(3, 2)
    return Learner(module, module, None, torch.optim.AdamW(module.parameters()))


def train_a_step(of: Any, scaler: Any, overflows: bool) -> None:
    loss = of.module(torch.ones(4, 3)).square().mean()
    scaler.scale(loss).backward()
    if overflows:
        of.module.bias.grad[0] = float("inf")
    scaler.step(of.optimizer)
    scaler.update()
    of.optimizer.zero_grad()


def test_the_gradient_scaler_goes_on_with_the_scale_it_had_come_to(tmp_path: Path) -> None:
    scaler, trained = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=5), learner()
    for overflows in (False, True, False, False):
        train_a_step(trained, scaler, overflows)
    first = task(tmp_path, scaler)
    with locked(tmp_path, first.runtime):
        save_checkpoint(first, trained, RunState(step=4), Window(first.runtime))
    fresh = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=5)
    second, other = task(tmp_path, fresh), learner()
    restore(second, other, RunState(), Window(second.runtime), tmp_path / "checkpoints" / "step-00000004")
    # Halved by the overflow, and two steps on the way to being doubled.
    assert fresh.get_scale() == 2.0**11 and fresh.state_dict()["_growth_tracker"] == 2
    for _ in range(3):
        train_a_step(other, fresh, False)
    assert fresh.get_scale() == 2.0**12


def test_a_checkpoint_without_a_scaler_leaves_that_of_a_run_as_it_begins(tmp_path: Path) -> None:
    """Begun in bf16 or full precision, gone on with in fp16."""
    first = task(tmp_path, None)
    with locked(tmp_path, first.runtime):
        save_checkpoint(first, learner(), RunState(step=1), Window(first.runtime))
    for scaler in (torch.amp.GradScaler("cpu", init_scale=2.0**10), None):
        second = task(tmp_path, scaler)
        restore(second, learner(), RunState(), Window(second.runtime), tmp_path / "checkpoints" / "step-00000001")
        assert scaler is None or scaler.get_scale() == 2.0**10


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nobody_goes_on_from_weights_of_which_one_is_no_finite_number(tmp_path: Path, name: str, value: float) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first = task(tmp_path, None)
    first.runtime.precision = "no"
    trained: Any = Learner(module, module, None, torch.optim.AdamW(module.parameters()))
    with locked(tmp_path, first.runtime):
        save_checkpoint(first, trained, RunState(step=1), Window(first.runtime))
        module.state_dict()[name].view(-1)[-1] = value
        told = r"^weights are no finite numbers any more at step 2; .*wrong again from step-00000001, give"
        with pytest.raises(AttrtrainError, match=told):
            save_checkpoint(first, trained, RunState(step=2), Window(first.runtime))
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000001"]


def test_a_run_stays_itself_in_wandb_and_one_that_begins_from_its_checkpoint_is_another(tmp_path: Path) -> None:
    first = task(tmp_path / "first", None)
    first.folder.mkdir()
    wandb_tracker.write_id(first.folder, "abc")
    with locked(first.folder, first.runtime):
        save_checkpoint(first, learner(), RunState(step=1), Window(first.runtime))
    (first.folder / "wandb_id").unlink()
    second = task(tmp_path / "second", None)
    second.folder.mkdir()
    for of, known in ((first, "abc"), (second, "")):
        restore(of, learner(), RunState(), Window(of.runtime), first.folder / "checkpoints" / "step-00000001")
        assert wandb_tracker.read_id(of.folder) == known
    wandb_tracker.write_id(first.folder, "abc-course2")
    restore(first, learner(), RunState(), Window(first.runtime), first.folder / "checkpoints" / "step-00000001")
    assert wandb_tracker.read_id(first.folder) == "abc-course2"


def convolutions(layout: torch.memory_format) -> Any:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(memory_format=layout)
    return Learner(module, module, None, torch.optim.AdamW(module.parameters(), lr=0.1, fused=True))


@pytest.mark.parametrize("layouts", [(torch.contiguous_format, torch.channels_last), (torch.channels_last, torch.contiguous_format)])  # fmt: skip
def test_the_optimizer_goes_on_as_it_would_have_where_weights_lie_otherwise_in_memory(
    tmp_path: Path, layouts: tuple[torch.memory_format, torch.memory_format]
) -> None:
    def steps(of: Any, count: int) -> torch.Tensor:
        for number in range(count):
            of.module(torch.linspace(-1, 1, 192).view(1, 3, 8, 8) + number).square().sum().backward()
            of.optimizer.step()
            of.optimizer.zero_grad()
        return torch.cat([parameter.flatten() for parameter in of.module.parameters()])

    first, trained = task(tmp_path, None), convolutions(layouts[0])
    steps(trained, 3)
    with locked(tmp_path, first.runtime):
        save_checkpoint(first, trained, RunState(step=3), Window(first.runtime))
    other = convolutions(layouts[1])
    restore(first, other, RunState(), Window(first.runtime), tmp_path / "checkpoints" / "step-00000003")
    torch.testing.assert_close(steps(other, 2), steps(trained, 2), rtol=1e-4, atol=1e-5)

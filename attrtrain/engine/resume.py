"""A run's checkpoints: what goes into one, and taking a run up from one."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from attrtrain import checkpoint
from attrtrain.config.changes import changes
from attrtrain.config.schema import ModelConfig, TrainConfig
from attrtrain.data.reader import ShardSet
from attrtrain.engine.state import Learner, RunState, Task
from attrtrain.engine.window import Window
from attrtrain.errors import AttrtrainError, CheckpointError
from attrtrain.optim import keeps_state
from attrtrain.run_layout import CHECKPOINTS
from attrtrain.run_lock import require_held
from attrtrain.tracking import wandb_tracker

_OF_NO_CONSEQUENCE = {("run", "dir"), ("checkpoint", "resume")}
# Were one of these another, the best so far would be no measure.
_JUDGED_BY = (("data", "train_split"), ("data", "val_split"), ("labels", "positive_at"))

# Whole tensors, also of a model that is sharded over ranks (FSDP2): gathered on rank 0 when saving, dealt out when
# loading. Optimizer state goes by parameter name.
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def full_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict on the CPU, whole on rank 0 even where ranks hold shards of it. Collective."""
    return {
        name: value for name, value in get_model_state_dict(model, options=_WHOLE).items() if isinstance(value, Tensor)
    }


def identity(config: TrainConfig, shards: ShardSet) -> dict[str, Any]:
    """What a checkpoint and the run that continues from it must have in common."""
    return {
        "run.seed": config.run.seed,
        "train.global_batch": config.train.global_batch,
        "train.ema": config.train.ema > 0,
        "model": {name: value for name, value in asdict(config.model).items() if name != "weights"},
        "optim.name": config.optim.name,
        "data.order": _order(config),
        **{f"{section}.{name}": getattr(getattr(config, section), name) for section, name in _JUDGED_BY},
        "attributes": shards.vocabulary.fingerprint,
        "training data": shards.fingerprint,
    }


def _order(config: TrainConfig) -> str:
    if config.data.order == "block":
        return f"block of {config.data.window_shards}"
    return f"global, repeats below {config.data.repeat_below:g}" if config.data.repeat_below else "global"


def save_checkpoint(task: Task, learner: Learner, state: RunState, window: Window) -> None:
    """Saves all that is needed to go on from here, then removes what is no longer wanted. Collective.

    Raises:
        AttrtrainError: weights are no finite numbers any more, so nobody could go on from here; what was saved before
            is kept.
        CheckpointError: the disk is full.
    """
    accelerator = task.runtime.accelerator
    if task.runtime.is_main:
        require_held(task.folder)
    if task.runtime.any_rank(not _is_finite(learner.module))[0]:
        raise diverged(task, state.step, "weights are no finite numbers any more")
    tensors = {"model": full_tensors(learner.module)}
    if learner.average is not None:
        tensors["average"] = learner.average.state_dict()
    scaler = accelerator.scaler
    position = state.state_dict()
    if not math.isfinite(state.best_map):
        position["best_map"] = None  # JSON has no infinity
    content = checkpoint.Checkpoint(
        tensors=tensors,
        optimizer={
            "optimizer": get_optimizer_state_dict(learner.module, learner.bare_optimizer, options=_WHOLE),
            "scaler": scaler.state_dict() if scaler is not None else {},
        },
        state={
            "position": position,
            "identity": identity(task.config, task.train_shards),
            "config": asdict(task.config),
            "wandb_id": wandb_tracker.read_id(task.folder) or None,
            "world_size": accelerator.num_processes,
        },
        ranks=[{"window": window.state_dict(), "generators": _generators(task.runtime.device)}],
    )
    folder = task.folder / CHECKPOINTS
    checkpoint.save(folder, state.step, content, accelerator.process_index, accelerator.wait_for_everyone)
    if task.runtime.is_main:
        checkpoint.prune(folder, task.config.checkpoint.keep_last, {state.best_step, state.step})


def diverged(task: Task, step: int, what: str) -> AttrtrainError:
    """The error of a training that has left the finite numbers, with the way back."""
    saved = [path.name for path in checkpoint.those_in(task.folder / CHECKPOINTS)]
    back = (
        f"; where it goes wrong again from {saved[-1]}, give --checkpoint.resume an earlier one of {task.folder / CHECKPOINTS}"
        if saved
        else ""
    )
    finer = "" if task.runtime.precision == "no" else ", or use --train.precision no"
    return AttrtrainError(f"{what} at step {step}; lower optim.lr{finer}{back}")


def _is_finite(model: nn.Module) -> bool:
    """Whether all of this rank's weights and buffers are finite numbers."""
    tensors = (value.to_local() if isinstance(value, DTensor) else value for value in model.state_dict().values())
    found = [value.isfinite().all() for value in tensors if value.is_floating_point()]
    return bool(torch.stack(found).all())


def restore(task: Task, learner: Learner, state: RunState, window: Window, source: Path) -> None:
    """Takes up a run where a checkpoint left it.

    Raises:
        CheckpointError: it is damaged, or belongs to a run of other data, model or batch; the message says what
            differs.
    """
    saved = checkpoint.load(source)
    own, before = identity(task.config, task.train_shards), saved.state["identity"]
    before["model"] = {**_newer_model_settings(), **before["model"]}
    settings = saved.state["config"]
    before = {**{f"{section}.{name}": settings[section].get(name) for section, name in _JUDGED_BY}, **before}
    if differing := [
        f"{key}: {_short(before.get(key))} → {_short(own[key])}" for key in own if before.get(key) != own[key]
    ]:
        raise CheckpointError(
            f"{source} belongs to another run ({'; '.join(differing)}); choose another --run.dir, or give the settings it was begun with"
        )
    try:
        set_model_state_dict(learner.module, dict(saved.tensors["model"]), options=_WHOLE)
    except RuntimeError as error:  # a transformer's positions depend on data.image_px
        raise CheckpointError(
            f"{source}: its weights do not fit the network of these settings ({str(error).splitlines()[-1].strip()}); "
            "give the settings it was begun with, or choose another --run.dir"
        ) from None
    if learner.average is not None:
        learner.average.load_state_dict(dict(saved.tensors["average"]))
    optimizer = {**saved.optimizer["optimizer"], "param_groups": _own_groups(learner)}
    if optimizer["state"] and keeps_state(task.config.optim):
        set_optimizer_state_dict(learner.module, learner.bare_optimizer, optimizer, options=_WHOLE)
        _lay_out_as_weights(learner.bare_optimizer)
    accelerator = task.runtime.accelerator
    if accelerator.scaler is not None and saved.optimizer["scaler"]:
        accelerator.scaler.load_state_dict(saved.optimizer["scaler"])
    position = saved.state["position"]
    state.load_state_dict({**position, "best_map": -math.inf if position["best_map"] is None else position["best_map"]})
    rank, world_size = accelerator.process_index, accelerator.num_processes
    window.load_state_dict([entry["window"] for entry in saved.ranks], rank, world_size)
    if len(saved.ranks) == world_size:
        _set_generators(saved.ranks[rank]["generators"], task.runtime.device)
    is_own = checkpoint.is_in(task.folder / CHECKPOINTS, source)  # another folder's run stays its own
    if is_own and task.runtime.is_main and saved.state["wandb_id"] and not wandb_tracker.read_id(task.folder):
        wandb_tracker.write_id(task.folder, saved.state["wandb_id"])


def _newer_model_settings() -> dict[str, Any]:
    """Settings of the model that checkpoints may be older than, as they were meant then."""
    meant = ModelConfig()
    return {"frozen": meant.frozen, "category_dropout": meant.category_dropout}


def _own_groups(learner: Learner) -> list[dict[str, Any]]:
    """The optimizer's parameter groups by parameter names. They follow from the configuration of now; what a checkpoint
    has to give is each parameter's state.
    """
    names = {id(parameter): name for name, parameter in learner.module.named_parameters()}
    return [
        {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
        for group in learner.bare_optimizer.param_groups
    ]


def _lay_out_as_weights(optimizer: Optimizer) -> None:
    """Gives what the optimizer remembers of each weight the weight's own layout in memory. A checkpoint brings that
    which it was saved in, and `train.channels_last` may be another since; fused kernels go through both side by side.
    """
    for parameter, memory in optimizer.state.items():
        for name, value in memory.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                memory[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def changed_settings(source: Path, config: TrainConfig) -> list[str]:
    """Settings that differ from those the checkpoint was saved under, such as `optim.lr: 0.001 → 0.0001`."""
    differing = changes(checkpoint.load_state(source)["config"], config)
    return [f"{'.'.join(key)}: {old} → {new}" for key, (old, new) in differing.items() if key not in _OF_NO_CONSEQUENCE]


def _generators(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's generators. Steps seed them anew, so nothing attrtrain draws depends on it; what others draw
    may.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def _short(value: object) -> str:
    return value[:12] + "…" if isinstance(value, str) and len(value) > 24 else str(value)

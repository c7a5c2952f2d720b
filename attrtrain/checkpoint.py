"""Resume state: complete or absent.

    runs/coco/checkpoints/
      step-00000120/            one checkpoint, named after the optimizer steps taken
        model.safetensors       weights and buffers
        average.safetensors     moving average of the weights, where one is kept
        optimizer.pt            optimizer and gradient-scaler state, tensors and plain containers only
        rank-00000.pt           what only one rank knows: its random generators, its part of sums not logged yet
        state.json              position, best result, and what the run is made of
        complete.json           sizes and SHA-256 of the files above; written last
      latest                    name of the newest checkpoint
      set-aside/                what a run left behind that went back, or on from elsewhere

A checkpoint is written under a hidden name, flushed to the disk, and renamed; only then do older ones go.
"""

import json
import pickle
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from attrtrain.errors import CheckpointError
from attrtrain.files import atomic_write, fsync, sha256_of
from attrtrain.models.weights import savable
from attrtrain.wording import first_line

COMPLETE, LATEST, STATE = "complete.json", "latest", "state.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.pt"
RANK, SET_ASIDE = "rank-", "set-aside"
_REPLACED = ".replaced.partial"


@dataclass(frozen=True)
class Checkpoint:
    """The content of one checkpoint.

    Attributes:
        tensors: file stem → state dict, such as {"model": ...}.
        optimizer: tensors in plain containers.
        state: plain JSON.
        ranks: for each rank, tensors in plain containers.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    ranks: list[dict[str, Any]]


def save(folder: Path, step: int, content: Checkpoint, rank: int, barrier: Callable[[], object]) -> None:
    """Writes the checkpoint of optimizer step `step` and points `latest` at it. Collective: every rank calls it.

    Args:
        folder: the run's checkpoint folder, which all ranks see.
        step: optimizer steps taken.
        content: rank 0 gives all of it; of the others only `ranks` counts. `ranks` holds this rank's entry alone.
        rank: of this process.
        barrier: returns when every rank has called it.

    Raises:
        CheckpointError: the disk is full or cannot be written; the checkpoint before it is as it was.
    """
    final = folder / _name(step)
    partial = folder / f".{final.name}.partial"
    try:
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        barrier()
        torch.save(content.ranks[0], partial / _of_rank(rank))
        if rank == 0:
            for stem, values in content.tensors.items():
                save_file(savable(values), partial / f"{stem}.safetensors")
            torch.save(content.optimizer, partial / OPTIMIZER)
            (partial / STATE).write_text(json.dumps(content.state, indent=1))
        barrier()
        if rank == 0:
            _publish(partial, final)
        barrier()
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_disk_error(error):
            raise
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        reason = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else f"the disk is full, or cannot be written ({first_line(error)})"
        )
        raise CheckpointError(
            f"{final}: {reason}; free space and run the same command again to go on from the checkpoint before"
        ) from None


def _publish(partial: Path, final: Path) -> None:
    """Seals a checkpoint that all ranks have written and gives it its name. Rank 0 only."""
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(partial.iterdir())}
    (partial / COMPLETE).write_text(json.dumps(files, indent=1))
    for path in partial.iterdir():
        fsync(path)
    fsync(partial)
    replaced, replaces = final.with_name(f".{final.name}{_REPLACED}"), final.exists()
    if replaces:  # the same step, saved once before its evaluation and once after
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    partial.rename(final)
    fsync(final.parent)
    if replaces:
        shutil.rmtree(replaced, ignore_errors=True)
    with atomic_write(final.parent / LATEST) as file:
        file.write(final.name.encode())


def _is_disk_error(error: Exception) -> bool:
    """Whether an error came from writing: torch and safetensors report a full disk as errors of their own."""
    return (
        isinstance(error, OSError | SafetensorError)
        or "PytorchStreamWriter" in str(error)
        or "inline_container" in str(error)
    )


def those_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, whole or damaged, the newest last."""
    return sorted(folder.glob("step-*"))


def find_latest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of a folder, None without one, and a line for each newer one that is damaged."""
    complaints: list[str] = []
    for candidate in reversed(those_in(folder)):
        if (problem := damage(candidate)) is None:
            return candidate, complaints
        complaints.append(f"checkpoint {candidate} is damaged ({problem})")
    return None, complaints


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None when every byte is as written."""
    try:
        files = json.loads((checkpoint / COMPLETE).read_text())
        if missing := {MODEL, OPTIMIZER, _of_rank(0), STATE} - files.keys():
            return f"{COMPLETE} lists no {min(missing)}"
        for name, expected in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"] or sha256_of(path) != expected["sha256"]:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{COMPLETE}: {error}"
    return None


def load(checkpoint: Path) -> Checkpoint:
    """Reads a checkpoint; no code is run from it.

    Raises:
        CheckpointError: it is damaged or not there.
    """
    if (problem := damage(checkpoint)) is not None:
        raise CheckpointError(f"{checkpoint}: damaged or no checkpoint ({problem})")
    try:
        return Checkpoint(
            tensors={path.stem: load_file(path) for path in checkpoint.glob("*.safetensors")},
            optimizer=torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True),
            state=json.loads((checkpoint / STATE).read_text()),
            ranks=[
                torch.load(path, map_location="cpu", weights_only=True)
                for path in sorted(checkpoint.glob(f"{RANK}*.pt"))
            ],
        )
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{checkpoint}: whole, but not written by attrtrain: {OPTIMIZER} or another file is refused ({type(error).__name__})"
        ) from None


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint that `load` or `find_latest` found whole."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text())
    return state


def clean(folder: Path) -> None:
    """Puts back a checkpoint that was being replaced by one of the same step when the save was killed, and removes what
    else killed saves left behind. For rank 0, before any is looked for.
    """
    for replaced in folder.glob(f".step-*{_REPLACED}"):
        final = folder / replaced.name.removeprefix(".").removesuffix(_REPLACED)
        if not final.exists():
            replaced.rename(final)
    for leftover in folder.glob(".step-*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def set_aside(folder: Path, source: Path) -> list[Path]:
    """Moves a run's checkpoints that are newer than the one it goes back to out of the way: they belong to another
    course of the run, or are damaged, and among those kept they would stand before the ones to come. Where it goes on
    from a checkpoint that is not among them, so do all. For rank 0, before training.

    Returns:
        Where they are now.
    """
    own = is_in(folder, source)
    return [move_aside(folder, other) for other in those_in(folder) if not own or other.name > source.name]


def is_in(folder: Path, place: Path) -> bool:
    """Whether a checkpoint is one of this folder's own."""
    return place.resolve().parent == folder.resolve()


def take_in(folder: Path, place: Path) -> None:
    """Copies another folder's checkpoint into this one. For rank 0."""
    partial = folder / f".{place.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(place, partial)
    partial.rename(folder / place.name)


def move_aside(folder: Path, what: Path) -> Path:
    """Moves a checkpoint, or a file of the run, to what the folder keeps aside, and returns its new place."""
    place = _free_name(folder / SET_ASIDE / what.name)
    place.parent.mkdir(parents=True, exist_ok=True)
    return what.rename(place)


def _free_name(place: Path) -> Path:
    """The path itself, or `step-00000120.2` and so on where an earlier course of the run has left one there."""
    numbered = (place.with_name(f"{place.name}.{number}") for number in count(2))
    return next(path for path in chain([place], numbered) if not path.exists())


def of_step(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return folder / _name(step)


def prune(folder: Path, keep_last: int, keep_steps: Collection[int]) -> None:
    """Removes all but the newest `keep_last` checkpoints and those of some steps."""
    kept = {_name(step) for step in keep_steps}
    for old in those_in(folder)[:-keep_last]:
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)


def _of_rank(rank: int) -> str:
    return f"{RANK}{rank:05d}.pt"


def _name(step: int) -> str:
    return f"step-{step:08d}"

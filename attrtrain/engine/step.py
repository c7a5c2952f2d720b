"""One optimizer step: a global batch, however it is cut up."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from attrtrain.data.augment import Augmentation, augmented
from attrtrain.data.loader import Batch
from attrtrain.engine.objective import Objective
from attrtrain.losses import Cells
from attrtrain.runtime import Runtime, seed_step


@dataclass(frozen=True)
class StepSettings:
    """What a step needs to know besides its batches."""

    seed: int
    augmentation: Augmentation
    objective: Objective
    clip_norm: float
    channels_last: bool


def optimizer_step(
    runtime: Runtime,
    model: nn.Module,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    step: int,
    settings: StepSettings,
) -> tuple[Tensor, Tensor]:
    """Trains on one global batch. Collective: every rank calls it with its own micro-batches.

    Returns:
        This rank's part of the step's mean loss, and the gradient norm before clipping; scalars that stay on the device.
    """
    accelerator = runtime.accelerator
    seed_step(settings.seed, step, accelerator.process_index)
    loss_sum = torch.zeros((), device=runtime.device)
    for number, batch in enumerate(batches):
        is_last = number == len(batches) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            loss = _loss(runtime, model, batch, step, settings)
            # DDP averages gradients over ranks; each holds its part of a mean over all of them, so their sum is wanted.
            accelerator.backward(loss * accelerator.num_processes)
        loss_sum += loss.detach()
    if settings.clip_norm:
        norm = accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
    else:
        accelerator.unscale_gradients()
        norm = torch.nn.utils.get_total_norm(
            [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        )
    if isinstance(norm, DTensor):  # of a model that is sharded over ranks
        norm = norm.full_tensor()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss_sum, norm


def _loss(runtime: Runtime, model: nn.Module, batch: Batch, step: int, settings: StepSettings) -> Tensor:
    seen = augmented(batch, settings.augmentation, step, runtime.to_device)
    images = seen.images
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with runtime.autocast():
        logits = model(images)
    rates = settings.objective.rates_of(batch.index)
    on_device = None if rates is None else runtime.to_device(rates)

    def loss_of(labels_of: Callable[[Tensor], Tensor], weight: Tensor | None) -> Tensor:
        target, known = labels_of(seen.target), labels_of(seen.known)
        cells = Cells(
            target, known, batch.epoch, batch.step_known, None if on_device is None else labels_of(on_device), weight
        )
        return settings.objective.loss(logits, cells)

    return seen.loss(loss_of)

"""One optimizer step: a global batch, however it is cut up."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from attrtrain.data.augment import Augmentation, augmented
from attrtrain.data.loader import Batch
from attrtrain.data.reader import ShardSet
from attrtrain.data.streams import Stream
from attrtrain.engine.objective import Objective
from attrtrain.keyed_random import uniform
from attrtrain.losses import Cells
from attrtrain.models.category_head import NONE, category_codes, known_categories
from attrtrain.optim import parameters_at_rest
from attrtrain.runtime import Runtime, seed_step

ARRANGING_STEPS = 2  # from which on DistributedDataParallel adds up gradients as it does for the rest of a run


@dataclass(frozen=True)
class StepSettings:
    """What a step needs to know besides its batches."""

    seed: int
    augmentation: Augmentation
    objective: Objective
    clip_norm: float
    channels_last: bool
    categories: "TrainingCategories | None" = None  # for a head that reads them


@dataclass(frozen=True, eq=False)
class TrainingCategories:
    """What the network is told of the category of each training object.

    Attributes:
        code: (N,) int64, 0 for none.
        seed: of the run.
        withheld: share of objects that have none in an epoch, drawn by (seed, epoch, sample), so that the network
            learns to do without.
    """

    code: NDArray[np.int64]
    seed: int
    withheld: float

    @classmethod
    def of(cls, shards: ShardSet, seed: int, withheld: float) -> "TrainingCategories":
        """Those of a split, in the codes of a network that was built for it."""
        names = shards.categories()
        return cls(category_codes(known_categories(names), names).numpy(), seed, withheld)

    def of_batch(self, batch: Batch) -> Tensor:
        """(B,) int64 on the CPU."""
        is_withheld = uniform(self.seed, batch.epoch, batch.key, Stream.CATEGORY) < self.withheld
        return torch.from_numpy(np.where(is_withheld, NONE, self.code[batch.index.numpy()]))


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
        This rank's part of the step's mean loss, and the gradient norm before clipping, of the parameters that have a
        rate; scalars that stay on the device.
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
    norm = _clipped(runtime, model, parameters_at_rest(optimizer), settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss_sum, norm


def arrange_gradients(runtime: Runtime, model: nn.Module, batch: Batch, step: int, settings: StepSettings) -> None:
    """Makes a forward and a backward pass that changes neither weights nor buffers. Collective.

    DistributedDataParallel puts gradients into its buckets anew, in the order in which they come, after its first steps
    (the second where its graph is static, else the first). Where in a bucket a gradient stands decides in which order
    those of three processes or more are added up, so a run that goes on has to have such passes behind it as well, or
    its sums are rounded in another way than those of one that never ended.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    _loss(runtime, model, batch, step, settings).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, value in before:
            buffer.copy_(value)


def _clipped(runtime: Runtime, model: nn.Module, at_rest: Sequence[nn.Parameter], clip_norm: float) -> Tensor:
    """Clips gradients, and gives the norm before of those that learn. Those at rest are clipped among themselves: they
    are no reason to shorten others, and the optimizer remembers them.
    """
    if clip_norm and not at_rest:
        norm = runtime.accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    else:
        runtime.accelerator.unscale_gradients()
        others = {id(parameter) for parameter in at_rest}
        learning = [parameter for parameter in model.parameters() if id(parameter) not in others]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in learning if parameter.grad is not None])
        if clip_norm:
            torch.nn.utils.clip_grads_with_norm_(learning, clip_norm, norm)
            torch.nn.utils.clip_grad_norm_(at_rest, clip_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm  # of a model that is sharded over ranks


def _loss(runtime: Runtime, model: nn.Module, batch: Batch, step: int, settings: StepSettings) -> Tensor:
    seen = augmented(batch, settings.augmentation, step, runtime.to_device)
    images = seen.images
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with runtime.autocast():
        if settings.categories is None:
            logits = model(images)
        else:
            logits = model(images, runtime.to_device(settings.categories.of_batch(batch)))
    rates = settings.objective.rates_of(batch.index)
    on_device = None if rates is None else runtime.to_device(rates)
    if on_device is not None and seen.columns is not None:  # as frequent as the attribute whose label it took
        on_device = on_device.gather(1, seen.columns)

    def loss_of(labels_of: Callable[[Tensor], Tensor], weight: Tensor | None) -> Tensor:
        target, known = labels_of(seen.target), labels_of(seen.known)
        cells = Cells(
            target, known, batch.epoch, batch.step_known, None if on_device is None else labels_of(on_device), weight
        )
        return settings.objective.loss(logits, cells)

    return seen.loss(loss_of)

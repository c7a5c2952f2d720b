"""Scores of a model on one split: every sample once, whatever the number of processes."""

import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from attrtrain.data.loader import Batch, CropDataset, load_batches
from attrtrain.data.order import evaluation_requests
from attrtrain.data.reader import ShardSet
from attrtrain.errors import AttrtrainError, explained_lack_of_memory
from attrtrain.framing import Framing
from attrtrain.metrics.functional import MeanScores, mean_scores
from attrtrain.models.category_head import category_codes
from attrtrain.runtime import Runtime
from attrtrain.signals import StopRequest

BAR_SECONDS = 0.5 if sys.stderr.isatty() else 30  # a log file needs no smooth bar
_LOOK_EVERY = 4  # batches between two looks at whether to stop
EVALUATION_BATCH = 64  # part of what a score is computed from: kernels may round differently for another batch size


class EvaluationStoppedError(Exception):
    """The evaluation was left because a rank was asked to stop."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions and their scores; rows are the shard set's samples in order.

    Attributes:
        logits: (N, A) float32.
        labels: (N, A) float32 vote shares, NaN = unknown.
        scores: the means.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.float32]
    scores: MeanScores


def evaluate(
    runtime: Runtime,
    model: nn.Module,
    shards: ShardSet,
    *,
    image_px: int,
    framing: Framing,
    positive_at: float,
    channels_last: bool,
    workers: int,
    categories: Sequence[str] = (),
    stop: StopRequest | None = None,
) -> Evaluation:
    """Evaluates a model, not wrapped for training, on every sample of a shard set. Collective: every rank calls it and
    gets all of it.

    Args:
        image_px: side of the square crops are resized to.
        framing: what of the stored crops is seen.
        positive_at: vote share from which an attribute counts as present.
        channels_last: memory layout to compute in; part of what a score is rounded by.
        workers: decoding threads of each rank.
        categories: what the model's head tells apart; with them it is called with the objects' codes too.
        stop: looked at every few batches.

    Raises:
        EvaluationStoppedError: on every rank, because one of them was asked to stop.
        ShardError: the shards store less context than is to be seen.
        MemoryExceededError: a batch does not fit into memory.
        AttrtrainError: the model gave NaN for an object, or samples were lost or counted twice between ranks.
    """
    accelerator = runtime.accelerator
    requests = list(
        evaluation_requests(len(shards), EVALUATION_BATCH, accelerator.process_index, accelerator.num_processes)
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    was_training = model.training
    model.eval().to(memory_format=memory_format)
    parts: list[Tensor] = []
    looks = _batches_of_every_rank(len(shards), accelerator.num_processes) if stop is not None else 0
    bar = tqdm(
        total=sum(len(request.index) for request in requests), desc="evaluating", unit="object", disable=not runtime.is_main, leave=False,
        dynamic_ncols=True, mininterval=BAR_SECONDS,
    )  # fmt: skip
    dataset = CropDataset(shards, image_px, framing=framing)
    with torch.inference_mode(), bar, _explained_lack_of_memory(image_px):
        for number, batch in enumerate(load_batches(dataset, requests, runtime.device, workers)):
            looks_now = stop is not None and number < looks and number % _LOOK_EVERY == 0
            if looks_now and runtime.any_rank(stop is not None and stop.received is not None)[0]:
                model.train(was_training)
                raise EvaluationStoppedError
            images = filled_up(batch.image).contiguous(memory_format=memory_format)
            told = _told(runtime, shards, batch, categories)
            with runtime.autocast():
                logits = model(images, *told)
            parts.append(logits[: len(batch.index)].float())
            bar.update(len(batch.index))
        for _ in range(_missing_rounds(model, len(shards), len(requests), accelerator.num_processes)):
            with runtime.autocast():
                model(torch.zeros((EVALUATION_BATCH, 3, image_px, image_px), dtype=torch.uint8, device=runtime.device))
    model.train(was_training)
    own = torch.cat(parts) if parts else torch.zeros((0, len(shards.vocabulary)), device=runtime.device)
    positions = np.concatenate([request.index for request in requests]) if requests else np.zeros(0, np.int64)
    logits = _gather(runtime, own, torch.from_numpy(positions).to(runtime.device), len(shards))
    labels = shards.labels(np.arange(len(shards)))
    _require_numbers(logits, shards)
    return Evaluation(logits, labels, mean_scores(logits, labels, positive_at))


def _explained_lack_of_memory(image_px: int) -> AbstractContextManager[None]:
    """Raises MemoryExceededError where a batch does not fit, which no setting of a training step makes smaller."""
    return explained_lack_of_memory(
        f"an evaluation puts {EVALUATION_BATCH} objects of {image_px} x {image_px} pixels through the network at once, and there is too little memory for them",
        "end what else holds it, compute on the CPU (ACCELERATE_USE_CPU=true), or train with a lower data.image_px or a smaller model.backbone",
    )


def _told(runtime: Runtime, shards: ShardSet, batch: Batch, categories: Sequence[str]) -> tuple[Tensor, ...]:
    """What the model is called with beside images, filled up as they are: the codes of what the objects are, where its
    head tells that apart.
    """
    if not categories:
        return ()
    names = shards.categories(batch.index.numpy())
    names += [""] * (EVALUATION_BATCH - len(names))
    return (runtime.to_device(category_codes(categories, names)),)


def _batches_of_every_rank(size: int, world_size: int) -> int:
    """Batches that even the rank with the fewest has: only so many times can all of them ask each other anything."""
    return size // world_size // EVALUATION_BATCH


def _missing_rounds(model: nn.Module, size: int, own_batches: int, world_size: int) -> int:
    """Batches this rank has fewer than the rank with the most. A sharded model gathers its weights in every forward
    pass, so all ranks must do equally many.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return 0
    return math.ceil(math.ceil(size / world_size) / EVALUATION_BATCH) - own_batches


def filled_up(images: Tensor) -> Tensor:
    """A short last batch (b, 3, H, W) with black images added to full size: equal shapes give a sample equal logits in
    whichever batch it lands.
    """
    if len(images) == EVALUATION_BATCH:
        return images
    return torch.cat([images, images.new_zeros((EVALUATION_BATCH - len(images), *images.shape[1:]))])


def _gather(runtime: Runtime, own: Tensor, own_index: Tensor, size: int) -> NDArray[np.float32]:
    """All ranks' logits, (size, A) by sample. A rank's rows are padded to the longest rank's for the transport, marked,
    and dropped after it.
    """
    accelerator = runtime.accelerator
    if accelerator.num_processes > 1:
        own = accelerator.gather(accelerator.pad_across_processes(own, dim=0))
        own_index = accelerator.gather(accelerator.pad_across_processes(own_index, dim=0, pad_index=-1))
        own, own_index = own[own_index >= 0], own_index[own_index >= 0]
    order = torch.argsort(own_index)
    if not torch.equal(own_index[order].cpu(), torch.arange(size)):
        raise AttrtrainError(
            f"evaluation saw {len(own_index)} of {size} samples; this is a defect of attrtrain, please report it"
        )
    return own[order].cpu().numpy()


def _require_numbers(logits: NDArray[np.float32], shards: ShardSet) -> None:
    wrong = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(wrong):
        object_id = shards.column("object_id", wrong[:1])[0]
        raise AttrtrainError(
            f"the model's output is not finite for {len(wrong)} of {len(logits)} objects (first: object {object_id}); training has diverged: lower optim.lr"
        )

"""Requests for samples → batches, decoded by worker processes and brought to the device ahead of time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from attrtrain.data.decode import decode_crop
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError
from attrtrain.signals import ignore_stop_signals


@dataclass
class Batch:
    """Samples on their way to the model.

    Attributes:
        image: (B, 3, H, W) uint8.
        target: (B, A) float32 vote shares, 0 where unknown.
        known: (B, A) bool.
        index: (B,) int64 positions in the shard set; stays on the CPU.
        epoch: counts from 0.
        step_known: known cells in the whole step this micro-batch is part of, over all ranks and micro-batches.
    """

    image: Tensor
    target: Tensor
    known: Tensor
    index: Tensor
    epoch: int
    step_known: int

    def pin_memory(self) -> "Batch":
        """The hook by which DataLoader pins a batch of its own kind."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """Copies image, target and known to the device, without waiting for it."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            change(self.image), change(self.target), change(self.known), self.index, self.epoch, self.step_known
        )


class CropDataset(Dataset[Batch]):
    """Map-style access to a shard set by the batch: a request goes in, a whole batch comes out."""

    def __init__(self, shards: ShardSet, image_px: int) -> None:
        self.shards = shards
        self.image_px = image_px

    def __getitem__(self, request: BatchRequest) -> Batch:
        """Reads, decodes and stacks the samples of one request.

        Raises:
            ShardError: naming a sample that cannot be read or decoded.
        """
        images = torch.empty((len(request.index), self.image_px, self.image_px, 3), dtype=torch.uint8).permute(
            0, 3, 1, 2
        )
        for row, position in enumerate(request.index):
            try:
                images[row] = decode_crop(self.shards.jpeg(int(position)), self.image_px)
            except ValueError as error:
                object_id = self.shards.column("object_id", np.array([position]))[0]
                raise ShardError(
                    f"object {object_id} in {self.shards.folders[0]}: {error}; check the shards with `attrtrain verify`"
                ) from None
        labels = torch.from_numpy(self.shards.labels(request.index))  # (B, A)
        known = ~labels.isnan()
        return Batch(
            image=images,
            target=labels.nan_to_num_(0.0),
            known=known,
            index=torch.from_numpy(request.index),
            epoch=request.epoch,
            step_known=int(self.shards.column("known", request.step_index).sum()),
        )


class _Requests(torch.utils.data.Sampler[BatchRequest]):
    def __init__(self, requests: Iterable[BatchRequest]) -> None:
        self._requests = requests

    def __iter__(self) -> Iterator[BatchRequest]:
        return iter(self._requests)


def _start_worker(_: int) -> None:
    ignore_stop_signals()


def load_batches(
    dataset: CropDataset, requests: Iterable[BatchRequest], device: torch.device, workers: int
) -> Iterator[Batch]:
    """Yields the batch of each request, in order, on the device; the next one is already being copied while one is in use.

    Args:
        dataset: where samples come from.
        requests: finite; their order is the order of the batches, whatever the number of workers.
        device: where image, target and known end up.
        workers: decoding processes; 0 decodes in this one.
    """
    loader: DataLoader[Batch] = DataLoader(
        dataset,
        sampler=_Requests(requests),
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # A forked child of a process with threads and a CUDA context may hang; the fork server has neither.
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    ahead: Batch | None = None
    for batch in loader:
        coming = batch.to(device)
        if ahead is not None:
            yield ahead
        ahead = coming
    if ahead is not None:
        yield ahead

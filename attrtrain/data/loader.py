"""Requests for samples → batches, decoded by threads and brought to the device ahead of time.

Threads, not the processes of torch's DataLoader: the JPEG decoder and the resizing kernels let go of the interpreter,
so threads scale, and nothing has to be started, sent through shared memory or mapped again for every batch.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attrtrain.config.schema import Interpolation, ResizeOn
from attrtrain.data.buffers import Buffers
from attrtrain.data.decode import decode, squash
from attrtrain.data.device_resize import resize_packed
from attrtrain.data.jitter import Jitter
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.data.streams import sample_key
from attrtrain.device import to_device
from attrtrain.errors import ShardError
from attrtrain.framing import Framing

_AHEAD = 4  # batches a thread
WHOLE = Framing()
# Times image_px: crops longer than this are resized by the thread that decodes them all the same, since those resized
# together with them would be padded to their size.
_LONGEST = 3


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
        repeat: (B,) int64 which time this is that the epoch shows the sample, from 0 on; None where it shows each once.
            On the CPU.
    """

    image: Tensor
    target: Tensor
    known: Tensor
    index: Tensor
    epoch: int
    step_known: int
    repeat: Tensor | None = None

    @property
    def key(self) -> NDArray[np.int64]:
        """(B,) what stands for each sample in the keys of random numbers."""
        return sample_key(self.index.numpy(), None if self.repeat is None else self.repeat.numpy())

    def pin_memory(self) -> "Batch":
        """A copy in memory from which a GPU copies without the host's help."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """Copies image, target and known to the device, without waiting for a CUDA GPU."""
        return self._map(lambda tensor: to_device(tensor, device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, image=change(self.image), target=change(self.target), known=change(self.known))


@dataclass
class PackedBatch:
    """Crops in their own sizes, to be resized once they are on the device.

    Attributes:
        batch: the rest; its image is (sum of 3 H W,) uint8, one crop behind the other.
        sizes: B times (H, W).
        image_px: side of the squares to be.
        interpolation: how they are resized to that.
    """

    batch: Batch
    sizes: list[tuple[int, int]]
    image_px: int
    interpolation: Interpolation

    def pin_memory(self) -> "PackedBatch":
        """A copy in memory from which a GPU copies without the host's help."""
        return replace(self, batch=self.batch.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """Copies it to the device and resizes there."""
        there = self.batch.to(device)
        return replace(there, image=resize_packed(there.image, self.sizes, self.image_px, self.interpolation))


class CropDataset:
    """Map-style access to a shard set by the batch: a request goes in, a whole batch comes out."""

    def __init__(
        self,
        shards: ShardSet,
        image_px: int,
        resize_on: ResizeOn = "worker",
        framing: Framing = WHOLE,
        jitter: Jitter | None = None,
    ) -> None:
        """Wraps a shard set.

        Args:
            shards: the samples.
            image_px: side of the squares.
            resize_on: whether crops are resized here or by the device that gets them.
            framing: what of the stored crops is seen.
            jitter: moves that about, for training.

        Raises:
            ShardError: the shards store less context than is to be seen.
        """
        if framing.context is not None and framing.context > shards.crop.context:
            raise ShardError(
                f"{shards.folders[0]} stores a context of {shards.crop.context:g}, the network is to see {framing.context:g}; shard with --context {framing.context:g}"
            )
        self.shards = shards
        self.image_px = image_px
        self.resize_on = resize_on
        self.framing = framing
        self.jitter = jitter
        self._buffers = Buffers()

    def own_copy(self) -> "CropDataset":
        """The same for another thread, with buffers of its own."""
        return CropDataset(self.shards, self.image_px, self.resize_on, self.framing, self.jitter)

    def __getitem__(self, request: BatchRequest) -> Batch | PackedBatch:
        """Reads and decodes the samples of one request.

        Raises:
            ShardError: naming a sample that cannot be read or decoded.
        """
        if self.resize_on == "worker":
            return self._batch(request, self._squares(request))
        sizes, pixels = self._packed(request)
        return PackedBatch(self._batch(request, pixels), sizes, self.image_px, self.framing.interpolation)

    def _batch(self, request: BatchRequest, image: Tensor) -> Batch:
        labels = torch.from_numpy(self.shards.labels(request.index))  # (B, A)
        known = ~labels.isnan()
        return Batch(
            image=image,
            target=labels.nan_to_num_(0.0),
            known=known,
            index=torch.from_numpy(request.index),
            epoch=request.epoch,
            step_known=int(self.shards.column("known", request.step_index).sum()),
            repeat=None if request.repeat is None else torch.from_numpy(request.repeat),
        )

    def _squares(self, request: BatchRequest) -> Tensor:
        """The crops (B, 3, image_px, image_px), channels last in memory."""
        index = request.index
        images = self._buffers.take(len(index) * self.image_px**2 * 3).view(len(index), self.image_px, self.image_px, 3)
        squares = images.numpy()
        for row, pixels in enumerate(self._shown(index, self._windows(request))):
            squash(pixels, squares[row], self.framing.interpolation)
        return images.permute(0, 3, 1, 2)

    def _windows(self, request: BatchRequest) -> NDArray[np.int64] | None:
        """Which part of each crop is shown, (B, 4) as `Framing.windows` gives it; None where it is all of every crop,
        as it is.
        """
        if self.framing.is_plain and self.jitter is None:
            return None
        sizes = self._stored_sizes(request.index)
        windows = self.framing.windows(self.shards.column("box", request.index), sizes)
        return windows if self.jitter is None else self.jitter.moved(windows, sizes, request.epoch, request.key)

    def _stored_sizes(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Width and height (B, 2) of the stored crops."""
        return np.stack([self.shards.column("width", index), self.shards.column("height", index)], axis=1).astype(
            np.int64
        )

    def _packed(self, request: BatchRequest) -> tuple[list[tuple[int, int]], Tensor]:
        """Sizes of what is shown of the crops, B times (H, W), and their pixels one behind the other."""
        index, windows = request.index, self._windows(request)
        shown = self._stored_sizes(index) if windows is None else windows[:, 2:] - windows[:, :2]
        if self.framing.fit == "pad":
            shown = shown.max(axis=1, keepdims=True).repeat(2, axis=1)
        long = shown.max(axis=1) > _LONGEST * self.image_px
        there = np.where(long[:, None], self.image_px, shown[:, ::-1])  # H, W
        ends = np.cumsum(3 * there.prod(axis=1)).tolist()
        packed = self._buffers.take(ends[-1])
        pixels = packed.numpy()
        squashed, sizes = long.tolist(), [(height, width) for height, width in there.tolist()]
        places = [pixels[start:end] for start, end in pairwise([0, *ends])]
        # What is seen whole and in its own size is decoded where it is to be.
        ready = [None if other or windows is not None else place for other, place in zip(squashed, places, strict=True)]
        for row, picture in enumerate(self._shown(index, windows, ready)):
            if squashed[row]:
                squash(picture, places[row].reshape(*sizes[row], 3), self.framing.interpolation)
            elif picture.shape[:2] != sizes[row]:
                raise self.shards.damaged(int(index[row]), "its crop has another size than the index says")
            elif ready[row] is None:
                places[row].reshape(picture.shape)[:] = picture
        return sizes, packed

    def _shown(
        self,
        index: NDArray[np.int64],
        windows: NDArray[np.int64] | None,
        into: Sequence[NDArray[np.uint8] | None] | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """The pictures (H, W, 3) that are to be resized. `into`: memory for those that are decoded and nothing else."""
        decoded = self._decoded(index, into or [None] * len(index))
        if windows is None:
            yield from decoded
            return
        sizes = self._stored_sizes(index)
        for position, size, window, pixels in zip(index, sizes, windows, decoded, strict=True):
            if pixels.shape[1::-1] != tuple(size.tolist()):
                raise self.shards.damaged(int(position), "its crop has another size than the index says")
            yield self.framing.shown(pixels, window)

    def _decoded(
        self, index: NDArray[np.int64], into: Sequence[NDArray[np.uint8] | None]
    ) -> Iterator[NDArray[np.uint8]]:
        for position, jpeg, memory in zip(index, self.shards.jpegs(index), into, strict=True):
            try:
                yield decode(jpeg, memory)
            except ValueError as error:
                raise self.shards.damaged(int(position), str(error)) from None


def load_batches(
    dataset: CropDataset, requests: Iterable[BatchRequest], device: torch.device, workers: int
) -> Iterator[Batch]:
    """Yields the batch of each request, in order, on the device; the next one is already being copied while one is in
    use.

    Args:
        dataset: where samples come from.
        requests: finite; their order is the order of the batches, whatever the number of workers.
        device: where image, target and known end up; "cuda" without a number is the current GPU.
        workers: decoding threads; 0 decodes in this one, when a batch is asked for.

    Raises:
        ShardError: naming a sample that cannot be read or decoded.
    """
    if device.type == "cuda" and device.index is None:  # as Accelerate names it to a single process
        device = torch.device("cuda", torch.cuda.current_device())
    batches = (
        _decoded_ahead(dataset, requests, device, workers)
        if workers
        else (_made(dataset, request, device) for request in requests)
    )
    if device.type == "cuda":
        yield from _copied_beside_the_work(batches, device)
    else:
        yield from (batch.to(device) for batch in batches)


def _decoded_ahead(
    dataset: CropDataset, requests: Iterable[BatchRequest], device: torch.device, workers: int
) -> Iterator[Batch | PackedBatch]:
    """The batches in order, up to `_AHEAD` a thread made before they are asked for."""
    own = threading.local()  # buffers are each thread's own

    def start() -> None:
        own.dataset = dataset.own_copy()
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else pinning would open a context on the first GPU

    def make(request: BatchRequest) -> Batch | PackedBatch:
        return _made(own.dataset, request, device)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode", initializer=start)
    coming: deque[Future[Batch | PackedBatch]] = deque()
    try:
        for request in requests:
            coming.append(pool.submit(make, request))
            if len(coming) > _AHEAD * workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _made(dataset: CropDataset, request: BatchRequest, device: torch.device) -> Batch | PackedBatch:
    batch = dataset[request]
    return batch.pin_memory() if device.type == "cuda" else batch


def _copied_beside_the_work(batches: Iterable[Batch | PackedBatch], device: torch.device) -> Iterator[Batch]:
    """Brings pinned batches to a GPU on a stream of their own, one ahead: copying goes on beside the work on the batch
    before, which is handed on even where that one cannot be made.
    """
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    try:
        for batch in batches:
            with torch.cuda.stream(copying):
                coming = (batch.to(device), copying.record_event())
            if ahead is not None:
                yield _arrived(*ahead, device)
            ahead = coming
    except ShardError:
        if ahead is not None:
            yield _arrived(*ahead, device)
        raise
    if ahead is not None:
        yield _arrived(*ahead, device)


def _arrived(batch: Batch, copied: "torch.cuda.Event", device: torch.device) -> Batch:
    """Makes the stream that works wait for a batch, not the host; and its memory is not given to the next copy before
    that stream is done with it.
    """
    working = torch.cuda.current_stream(device)
    working.wait_event(copied)
    for tensor in (batch.image, batch.target, batch.known):
        tensor.record_stream(working)
    return batch

"""Objects → batches of crops, by worker processes; what cannot be cut is told, and ends nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from attrtrain.data.decode import framed_crop
from attrtrain.data.loader import CropDataset, load_batches
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.errors import AttrtrainError, LeftOutError
from attrtrain.framing import Framing
from attrtrain.inference.objects import Objects
from attrtrain.parent_process import end_with_parent
from attrtrain.shards.manifest import CropSettings, Failure
from attrtrain.shards.photographs import cut_photograph, look_for
from attrtrain.signals import ignore_stop_signals


@dataclass
class CropBatch:
    """Crops that the model sees together.

    Attributes:
        rows: (B,) int64, which of the objects they are, rising.
        images: (B, 3, H, W) uint8.
        failures: the objects of this batch that are not there, and why.
        error: what ended the work, None where nothing did. It travels as a value, because an exception of another
            process arrives with that process's traceback in its message.
    """

    rows: NDArray[np.int64]
    images: Tensor
    failures: list[Failure]
    error: AttrtrainError | None = None

    def pin_memory(self) -> "CropBatch":
        """The hook by which DataLoader pins a batch of its own kind."""
        return CropBatch(self.rows, self.images.pin_memory(), self.failures, self.error)


class CropCutter(Dataset[CropBatch]):
    """Cuts objects out of photographs as sharding does: a request with some objects goes in, their crops come out."""

    def __init__(self, folders: Sequence[Path | str], crop: CropSettings, image_px: int, framing: Framing) -> None:
        """Takes what is the same for all requests.

        Args:
            folders: where photographs are, paths or URLs.
            crop: how crops were cut and stored for training.
            image_px: side of the squares.
            framing: what of the crops is seen.
        """
        self.folders = tuple(folders)
        self.crop = crop
        self.image_px = image_px
        self.framing = framing

    def __getitem__(self, request: tuple[int, Objects]) -> CropBatch:
        """Cuts the objects of a request: the row of its first object, and the objects. Each photograph in it is decoded
        once.
        """
        first, objects = request
        rows: list[int] = []
        images: list[Tensor] = []
        failures: list[Failure] = []
        try:
            for row, crop in self._crops(objects):
                if isinstance(crop, Tensor):
                    rows.append(first + row)
                    images.append(crop)
                else:
                    failures.append(Failure.of(int(objects.object_id[row]), str(objects.image[row]), crop))
        except AttrtrainError as error:  # of a place that cannot be read at all
            return CropBatch(np.zeros(0, np.int64), torch.zeros(0), [], error)
        squares = (
            torch.stack(images) if images else torch.zeros((0, 3, self.image_px, self.image_px), dtype=torch.uint8)
        )
        return CropBatch(np.array(rows, dtype=np.int64), squares, failures)

    def _crops(self, objects: Objects) -> Iterator[tuple[int, Tensor | LeftOutError]]:
        for photograph in objects.photographs():
            first = photograph.start
            width, height = objects.image_size[first].tolist()
            source = look_for(str(objects.image[first]), self.folders)
            boxes, crowds = objects.box[photograph].tolist(), objects.crowd[photograph].tolist()
            crops = cut_photograph(source, (width, height), boxes, crowds, self.crop)
            for row, crop in enumerate(crops, first):
                yield row, crop if isinstance(crop, LeftOutError) else framed_crop(crop, self.image_px, self.framing)


def cut_batches(
    objects: Objects, first: int, size: int, cutter: CropCutter, *, workers: int, pin: bool
) -> Iterator[CropBatch]:
    """Yields the objects from row `first` on in order, `size` at a time, less what could not be cut.

    Memory holds the objects and a few batches for each worker.

    Args:
        objects: all of them.
        first: where to begin.
        size: objects in a batch; the last may be short.
        cutter: cuts them.
        workers: processes that do; 0 is this one.
        pin: into pinned memory, from where a GPU copies faster.

    Raises:
        AttrtrainError: of whichever kind says why photographs cannot be read at all.
    """
    loader: DataLoader[CropBatch] = DataLoader(
        cutter,
        sampler=_Requests(objects, first, size),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        # A forked child of a process with threads and a CUDA context may hang; the fork server has neither.
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_start_worker,
    )
    for batch in loader:
        if batch.error is not None:
            raise batch.error
        yield batch


def stored_batches(
    shards: ShardSet, first: int, size: int, image_px: int, framing: Framing, device: torch.device, *, workers: int
) -> Iterator[CropBatch]:
    """The same from the stored crops of shards, rows being positions in them.

    Raises:
        ShardError: a crop cannot be read or decoded, or the shards store less context than is to be seen.
    """
    positions = (np.arange(begin, min(begin + size, len(shards))) for begin in range(first, len(shards), size))
    requests = (BatchRequest(0, part, part) for part in positions)
    for batch in load_batches(CropDataset(shards, image_px, framing=framing), requests, device, workers):
        yield CropBatch(batch.index.numpy(), batch.image, [])


class _Requests(Sampler[tuple[int, Objects]]):
    """Requests carry their objects, so that workers need not hold all there are."""

    def __init__(self, objects: Objects, first: int, size: int) -> None:
        self._objects, self._first, self._size = objects, first, size

    def __iter__(self) -> Iterator[tuple[int, Objects]]:
        for begin in range(self._first, len(self._objects), self._size):
            yield begin, self._objects.take(slice(begin, begin + self._size))


def _start_worker(_: int) -> None:
    ignore_stop_signals()
    end_with_parent()  # torch's own watch is for the process that forked this one, which is the fork server

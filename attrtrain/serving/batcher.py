"""Crops of concurrent requests → one network pass after another, each with as many as have come."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attrtrain.inference.predictor import Predictor
from attrtrain.serving.contracts import RefusedError


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A crop (3, H, W) uint8 of an object of some category, "" where that is not known, and what its probabilities (A,)
    become.
    """

    crop: Tensor
    category: str
    scores: "asyncio.Future[NDArray[np.float32]]"


class Batcher:
    """Gathers crops and runs the network in one thread of its own; while it computes, further crops gather.

    Attributes:
        crops: how many went through the network.
        batches: in how many passes.
        fails: whether the last pass failed.
    """

    def __init__(self, predictor: Predictor, max_batch: int, max_wait_ms: float) -> None:
        self._predictor = predictor
        self._max_batch = max_batch
        self._wait = max_wait_ms / 1000
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task[None] | None = None
        self.crops = self.batches = 0
        self.fails = False

    async def start(self) -> None:
        """Begins; to be called in the event loop in which it works."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends. What still waits gets no answer, so requests end first."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def scores(self, crops: Sequence[Tensor], category: str = "") -> list[NDArray[np.float32]]:
        """The probabilities (A,) of each crop (3, H, W) uint8. A caller that is cancelled takes its crops back.

        Args:
            crops: of any number of objects.
            category: what all of them are, for heads that read it; "" where that is not known.

        Raises:
            RefusedError: the model gives no numbers.
        """
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(crop, category, loop.create_future()) for crop in crops]
        for one in waiting:
            self._queue.put_nowait(one)
        try:
            return await asyncio.gather(*(one.scores for one in waiting))
        finally:
            for one in waiting:
                if one.scores.done() and not one.scores.cancelled():
                    one.scores.exception()  # seen, so that asyncio does not complain of all but the first
                one.scores.cancel()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [one for one in await self._gathered() if not one.scores.done()]
            if not batch:
                continue
            try:
                scores = await loop.run_in_executor(self._thread, self._compute, batch)
                self.fails = False
            except Exception as error:  # noqa: BLE001  whatever it is, these requests are answered and the next are served
                self.fails = True
                for one in batch:
                    if not one.scores.done():
                        one.scores.set_exception(error)
                continue
            self.crops += len(batch)
            self.batches += 1
            for one, row in zip(batch, scores, strict=True):
                if not one.scores.done():
                    one.scores.set_result(row)

    async def _gathered(self) -> list[_Waiting]:
        """The next crops: waits for the first as long as it takes, and then `max_wait_ms` for more."""
        batch = [await self._queue.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                while len(batch) < self._max_batch:
                    batch.append(await self._queue.get())
        return batch

    def _compute(self, batch: list[_Waiting]) -> NDArray[np.float32]:
        logits = self._predictor(torch.stack([one.crop for one in batch]), [one.category for one in batch]).logits
        if not bool(logits.isfinite().all()):
            raise RefusedError(500, "model_diverged", "the model's output is not finite; its training has diverged")
        scores: NDArray[np.float32] = logits.sigmoid().cpu().numpy()
        return scores

"""Training metrics between two logged lines, summed on the device so that no step waits for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from attrtrain.runtime import Runtime

CLOCKED = ("objects_per_second", "data_wait_share", "gpu_memory_gib")
"""Values of a line that depend on the machine, and differ between two runs that are otherwise the same."""


class Window:
    """Sums over the steps since the last logged line: this rank's part of them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reset()

    def _reset(self) -> None:
        self.steps = 0
        self._sums = torch.zeros(2, device=self._runtime.device)  # loss, gradient norm
        self._seconds = self._waited = 0.0  # before `_begun`
        self._begun = time.monotonic()
        if self._runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._runtime.device)

    def go_on(self) -> None:
        """Lets the clock run from now on: what came before, such as an evaluation, was no training."""
        self._begun = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time in which the loop waits for its batches."""
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Adds a step: this rank's part of its loss, and its gradient norm."""
        self.steps += 1
        self._sums += torch.stack([loss, norm / self._runtime.accelerator.num_processes])

    def close(self, global_batch: int) -> dict[str, float]:
        """Values of the window over all ranks together, and begins the next one. Collective.

        Returns:
            loss and grad_norm, means over steps; objects_per_second of all ranks; data_wait_share, the share of the
            time, in [0, 1], in which ranks waited for batches, a mean over ranks; and on GPUs gpu_memory_gib, the most
            that tensors took on any of them at any time in the window.
        """
        on_gpu = self._runtime.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._runtime.device) / 2**30 if on_gpu else 0.0
        own = torch.cat([self._sums, torch.tensor([self._waited, peak], device=self._runtime.device)])
        ranks = self._runtime.accelerator.gather(own[None])  # (W, 4)
        loss, norm = ranks[:, :2].sum(dim=0).tolist()
        waited, peak = ranks[:, 2].mean().item(), ranks[:, 3].max().item()
        seconds = self._seconds + time.monotonic() - self._begun
        steps = self.steps
        self._reset()
        return {
            "loss": loss / steps,
            "grad_norm": norm / steps,
            "objects_per_second": steps * global_batch / seconds,
            "data_wait_share": min(waited / seconds, 1.0),
            **({"gpu_memory_gib": peak} if on_gpu else {}),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint between two lines keeps of this rank."""
        seconds = self._seconds + time.monotonic() - self._begun
        return {"steps": self.steps, "sums": self._sums.cpu(), "seconds": seconds, "waited": self._waited}

    def load_state_dict(self, states: list[dict[str, Any]], rank: int, world_size: int) -> None:
        """Goes on from the windows of all ranks that saved them: each its own, or rank 0 all of them in a world of
        another size.
        """
        self._reset()
        own = states[rank] if len(states) == world_size else states[0]
        self.steps = own["steps"]
        self._seconds, self._waited = own.get("seconds", 0.0), own.get("waited", 0.0)
        if len(states) == world_size:
            self._sums += own["sums"].to(self._runtime.device)
        elif rank == 0:
            self._sums += torch.stack([state["sums"] for state in states]).sum(dim=0).to(self._runtime.device)

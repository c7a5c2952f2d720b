"""Training metrics between two logged lines, summed on the device so that no step waits for it."""

import time
from typing import Any

import torch
from torch import Tensor

from attrtrain.runtime import Runtime


class Window:
    """Sums over the steps since the last logged line: this rank's part of them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reset()

    def _reset(self) -> None:
        self.steps = 0
        self._sums = torch.zeros(2, device=self._runtime.device)  # loss, gradient norm
        self._begun = time.monotonic()

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Adds a step: this rank's part of its loss, and its gradient norm."""
        self.steps += 1
        self._sums += torch.stack([loss, norm / self._runtime.accelerator.num_processes])

    def close(self, global_batch: int) -> dict[str, float]:
        """Means over the window, of all ranks together, and begins the next one. Collective."""
        loss, norm = self._runtime.accelerator.reduce(self._sums, reduction="sum").tolist()
        seconds = time.monotonic() - self._begun
        steps = self.steps
        self._reset()
        return {"loss": loss / steps, "grad_norm": norm / steps, "objects_per_second": steps * global_batch / seconds}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint between two lines keeps of this rank."""
        return {"steps": self.steps, "sums": self._sums.cpu()}

    def load_state_dict(self, states: list[dict[str, Any]], rank: int, world_size: int) -> None:
        """Goes on from the windows of all ranks that saved them: each its own, or rank 0 all of them in a world of another size."""
        self._reset()
        self.steps = states[0]["steps"]
        if len(states) == world_size:
            self._sums += states[rank]["sums"].to(self._runtime.device)
        elif rank == 0:
            self._sums += torch.stack([state["sums"] for state in states]).sum(dim=0).to(self._runtime.device)

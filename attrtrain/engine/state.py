"""Where a run stands, as plain data."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class RunState:
    """The position of a run and its best result so far; the same on every rank.

    Attributes:
        epoch: epochs begun, from 0; the epoch in which the next step lies.
        samples_in_epoch: samples of that epoch already trained on, over all ranks.
        step: optimizer steps taken.
        best_epoch: epoch (from 1) of the best evaluation, 0 before the first.
        best_map: its mAP.
        best_step: optimizer steps taken when it was found, which names its checkpoint.
        seconds: time spent so far, over all restarts.
    """

    epoch: int = 0
    samples_in_epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_map: float = float("-inf")
    best_step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the fields of `state_dict`."""
        for name in asdict(self):
            setattr(self, name, state[name])

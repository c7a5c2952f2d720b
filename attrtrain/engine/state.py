"""What a run consists of, and where it stands, as plain data."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from attrtrain.config.schema import TrainConfig
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from attrtrain.engine.step import StepSettings
from attrtrain.framing import Framing
from attrtrain.models.network import AttributeModel
from attrtrain.runtime import Runtime
from attrtrain.signals import StopRequest
from attrtrain.tracking.trackers import Tracker


@dataclass(frozen=True)
class Task:
    """All of a run that stays the same while it trains.

    Attributes:
        config: as resolved.
        runtime: this process, its device and precision.
        crops: of the training split, as training sees them.
        val_shards: the split that judges.
        order: in which this process sees the training split.
        settings: of every step.
        folder: the run directory.
        tracker: told what happens; of the main process alone, others' keep nothing.
        stop: whether this process was asked to stop.
    """

    config: TrainConfig
    runtime: Runtime
    crops: CropDataset
    val_shards: ShardSet
    order: TrainOrder
    settings: StepSettings
    folder: Path
    tracker: Tracker
    stop: StopRequest

    @property
    def train_shards(self) -> ShardSet:
        """The split that is trained on."""
        return self.crops.shards

    @property
    def framing(self) -> Framing:
        """What of a stored crop is seen, in training but for its jitter, and in judging."""
        return self.crops.framing


@dataclass
class Learner:
    """All that an optimizer step changes.

    Attributes:
        module: the network itself.
        wrapped: the same network as Accelerate prepared it; what is trained through.
        average: moving average of the weights, or None.
        optimizer: as Accelerate prepared it.
    """

    module: AttributeModel
    wrapped: nn.Module
    average: AveragedModel | None
    optimizer: Any

    @property
    def bare_optimizer(self) -> Optimizer:
        """The optimizer without Accelerate's wrapper."""
        optimizer: Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return optimizer

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and shipped."""
        return self.module if self.average is None else self.average.module


@dataclass
class RunState:
    """The position of a run and its best result so far; the same on every rank.

    Attributes:
        epoch: epochs finished, their evaluation included; so the index of the one in which the next step lies.
        samples_in_epoch: samples of that epoch already trained on, over all ranks.
        step: optimizer steps taken.
        best_epoch: epoch (from 1) of the best evaluation, 0 before the first.
        best_map: its mAP.
        best_step: optimizer steps taken when it was found, which names its checkpoint.
        sought_since: epochs that were finished when the best began to be looked for: none, but in a run that has lost
            the best it had.
        epoch_loss: sum of the losses of this epoch's steps, as far as they are logged.
        epoch_seconds: time spent on this epoch so far, over all restarts.
        seconds: time spent so far on all epochs, over all restarts.
    """

    epoch: int = 0
    samples_in_epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_map: float = float("-inf")
    best_step: int = 0
    sought_since: int = 0
    epoch_loss: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def stale_epochs(self) -> int:
        """Epochs since the best one."""
        return self.epoch - max(self.best_epoch, self.sought_since)

    def spend(self, seconds: float) -> None:
        """Counts time as spent on this epoch."""
        self.epoch_seconds += seconds
        self.seconds += seconds

    def state_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the fields of `state_dict`, which may be older than some."""
        for name in asdict(self):
            setattr(self, name, state.get(name, getattr(self, name)))

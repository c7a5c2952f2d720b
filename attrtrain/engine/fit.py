"""Training from wherever a run stands to its end."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from attrtrain import bundle, checkpoint
from attrtrain.config.schema import TrainConfig
from attrtrain.data.loader import Batch, CropDataset, load_batches
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import BAR_SECONDS, Evaluation, evaluate
from attrtrain.engine.state import RunState
from attrtrain.engine.step import StepSettings, optimizer_step
from attrtrain.errors import AttrtrainError, CheckpointError
from attrtrain.models.network import AttributeModel
from attrtrain.optim import build_average, build_optimizer, learning_rate, set_learning_rate
from attrtrain.runtime import Runtime
from attrtrain.shards.manifest import VocabularyRecord
from attrtrain.tracking.trackers import Tracker


@dataclass
class Learner:
    """All that a step changes.

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
    def judged(self) -> nn.Module:
        """The network that is evaluated and shipped."""
        return self.module if self.average is None else self.average.module


def prepare_learner(runtime: Runtime, model: AttributeModel, config: TrainConfig) -> Learner:
    """Puts a model on its device and wraps it, its average and its optimizer for training."""
    model.to(runtime.device)
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)
    average = build_average(model, config.train.ema) if config.train.ema else None
    optimizer = build_optimizer(model, config.optim)
    wrapped, prepared = runtime.accelerator.prepare(model, optimizer)
    return Learner(model, wrapped, average, prepared)


def fit(
    runtime: Runtime,
    learner: Learner,
    train_shards: ShardSet,
    val_shards: ShardSet,
    config: TrainConfig,
    order: TrainOrder,
    state: RunState,
    folder: Path,
    tracker: Tracker,
) -> None:
    """Trains to the last epoch, evaluating and saving on the way; `state` follows. Collective: every rank calls it.

    Raises:
        AttrtrainError: the loss is no number any more.
    """
    settings = StepSettings(
        config.run.seed,
        config.data.flip,
        config.labels.unknown,
        config.train.clip_norm,
        config.train.channels_last,
        config.train.global_batch,
    )
    total_steps = config.train.epochs * order.steps_per_epoch
    batches = load_batches(
        CropDataset(train_shards, config.data.image_px),
        order.requests(config.train.epochs, state.epoch, state.samples_in_epoch),
        runtime.device,
        runtime.workers(config.data.workers),
    )
    while state.epoch < config.train.epochs:
        started = time.monotonic()
        train_loss = _train_epoch(runtime, learner, batches, config, settings, order, state, total_steps, tracker)
        state.epoch, state.samples_in_epoch = state.epoch + 1, 0
        evaluation = _evaluate_epoch(runtime, learner, val_shards, config)
        state.seconds += time.monotonic() - started
        _report_epoch(runtime, evaluation, config, state, train_loss, time.monotonic() - started, tracker)
        if is_best := evaluation.scores.map > state.best_map or state.best_epoch == 0:
            state.best_epoch, state.best_map, state.best_step = state.epoch, evaluation.scores.map, state.step
        if runtime.is_main:
            if is_best:
                _save_bundle(runtime, learner, train_shards, config, evaluation, folder)
            if is_best or state.epoch % config.checkpoint.every_epochs == 0 or state.epoch == config.train.epochs:
                save_checkpoint(runtime, learner, train_shards, config, state, folder)
        runtime.accelerator.wait_for_everyone()


def _train_epoch(
    runtime: Runtime,
    learner: Learner,
    batches: Iterator[Batch],
    config: TrainConfig,
    settings: StepSettings,
    order: TrainOrder,
    state: RunState,
    total_steps: int,
    tracker: Tracker,
) -> float:
    """Trains to the end of the epoch and returns its mean loss. Losses stay on the device until a line is logged."""
    learner.wrapped.train()
    window = _Window(runtime)
    epoch_loss, epoch_steps = 0.0, 0
    first = state.samples_in_epoch // order.global_batch
    bar = tqdm(
        total=order.steps_per_epoch, initial=first, desc=f"epoch {state.epoch + 1}/{config.train.epochs}", unit="step",
        disable=not runtime.is_main, leave=False, dynamic_ncols=True, mininterval=BAR_SECONDS,
    )  # fmt: skip
    with bar:
        for step_in_epoch in range(first, order.steps_per_epoch):
            rate = learning_rate(state.step, total_steps, order.steps_per_epoch, config.optim)
            set_learning_rate(learner.optimizer, rate)
            micro_batches = list(islice(batches, order.accumulation))
            loss, norm = optimizer_step(
                runtime, learner.wrapped, learner.optimizer, micro_batches, state.step, settings
            )
            if learner.average is not None:
                learner.average.update_parameters(learner.module)
            state.step += 1
            state.samples_in_epoch += order.global_batch
            window.add(loss, norm)
            bar.update()
            if state.step % config.track.every_steps == 0 or step_in_epoch + 1 == order.steps_per_epoch:
                steps = window.steps
                values = window.close(order.global_batch)
                epoch_loss, epoch_steps = epoch_loss + values["loss"] * steps, epoch_steps + steps
                tracker.log("train", state.step, {"epoch": state.epoch + 1, "lr": rate, **values})
                bar.set_postfix(loss=f"{values['loss']:.4f}", objects_per_s=f"{values['objects_per_second']:.0f}")
                if values["loss"] != values["loss"]:
                    raise AttrtrainError(
                        f"the loss is not a number at step {state.step}; lower optim.lr, or use --train.precision no"
                    )
    return epoch_loss / max(epoch_steps, 1)


class _Window:
    """Sums of the steps since the last logged line, on the device."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reset()

    def _reset(self) -> None:
        self.steps = 0
        self._loss = torch.zeros((), device=self._runtime.device)
        self._norm = torch.zeros((), device=self._runtime.device)
        self._begun = time.monotonic()

    def add(self, loss: Tensor, norm: Tensor) -> None:
        self.steps += 1
        self._loss += loss
        self._norm += norm

    def close(self, global_batch: int) -> dict[str, float]:
        """Means over the window, summed over ranks. Collective."""
        sums = self._runtime.accelerator.reduce(
            torch.stack([self._loss, self._norm / self._runtime.accelerator.num_processes]), reduction="sum"
        ).tolist()
        seconds = time.monotonic() - self._begun
        values = {
            "loss": sums[0] / self.steps,
            "grad_norm": sums[1] / self.steps,
            "objects_per_second": self.steps * global_batch / seconds,
        }
        self._reset()
        return values


def _evaluate_epoch(runtime: Runtime, learner: Learner, val_shards: ShardSet, config: TrainConfig) -> Evaluation:
    return evaluate(
        runtime,
        learner.judged,
        val_shards,
        image_px=config.data.image_px,
        positive_at=config.labels.positive_at,
        channels_last=config.train.channels_last,
        workers=runtime.workers(config.data.workers),
    )


def _report_epoch(
    runtime: Runtime,
    evaluation: Evaluation,
    config: TrainConfig,
    state: RunState,
    train_loss: float,
    seconds: float,
    tracker: Tracker,
) -> None:
    scores = evaluation.scores
    tracker.log(
        "val",
        state.step,
        {
            "epoch": state.epoch,
            "map": scores.map,
            "prior_map": scores.prior_map,
            "loss": evaluation.loss,
            "seconds": seconds,
        },
    )
    if runtime.is_main:
        better = " (best)" if scores.map > state.best_map else ""
        print(
            f"epoch {state.epoch}/{config.train.epochs}  train loss {train_loss:.4f}  val loss {evaluation.loss:.4f}  "
            f"val mAP {scores.map:.4f} beside a prior of {scores.prior_map:.4f}{better}  {seconds:.0f} s",
            flush=True,
        )


def _save_bundle(
    runtime: Runtime, learner: Learner, shards: ShardSet, config: TrainConfig, evaluation: Evaluation, folder: Path
) -> None:
    card = bundle.ModelCard(
        architecture=bundle.Architecture(
            backbone=config.model.backbone,
            head=config.model.head,
            hidden=config.model.hidden,
            dropout=config.model.dropout,
        ),
        vocabulary=VocabularyRecord.of(shards.vocabulary),
        image_px=config.data.image_px,
        crop=shards.crop,
        positive_at=config.labels.positive_at,
        precision=runtime.precision,
        channels_last=config.train.channels_last,
        data_fingerprint=shards.fingerprint,
        metrics={
            "val.map": evaluation.scores.map,
            "val.prior_map": evaluation.scores.prior_map,
            "val.objects": len(evaluation.labels),
        },
    )
    bundle.save_bundle(folder / "bundle", learner.judged.state_dict(), card)


def identity(config: TrainConfig, shards: ShardSet) -> dict[str, Any]:
    """What a checkpoint and the run that continues from it must have in common."""
    return {
        "run.seed": config.run.seed,
        "train.global_batch": config.train.global_batch,
        "train.ema": config.train.ema > 0,
        "model": {name: value for name, value in asdict(config.model).items() if name != "weights"},
        "optim.name": config.optim.name,
        "attributes": shards.vocabulary.fingerprint,
        "training data": shards.fingerprint,
    }


def save_checkpoint(
    runtime: Runtime, learner: Learner, shards: ShardSet, config: TrainConfig, state: RunState, folder: Path
) -> None:
    """Saves all that is needed to go on from here, then removes what is no longer wanted."""
    tensors = {"model": learner.module.state_dict()}
    if learner.average is not None:
        tensors["average"] = learner.average.state_dict()
    scaler = runtime.accelerator.scaler
    optimizer = {
        "optimizer": learner.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    content = {"position": state.state_dict(), "identity": identity(config, shards), "config": asdict(config)}
    checkpoint.save(folder / "checkpoints", state.step, tensors, optimizer, content)
    checkpoint.prune(folder / "checkpoints", config.checkpoint.keep_last, state.best_step)


def restore(
    runtime: Runtime, learner: Learner, shards: ShardSet, config: TrainConfig, state: RunState, source: Path
) -> None:
    """Takes up a run where a checkpoint left it.

    Raises:
        CheckpointError: it is damaged, or belongs to a run of other data, model or batch; the message says what differs.
    """
    saved = checkpoint.load(source)
    own = identity(config, shards)
    if differing := [
        f"{key}: {_short(saved.state['identity'].get(key))} → {_short(own[key])}"
        for key in own
        if saved.state["identity"].get(key) != own[key]
    ]:
        raise CheckpointError(
            f"{source} belongs to another run ({'; '.join(differing)}); choose another --run.dir, or give the settings it was begun with"
        )
    learner.module.load_state_dict(saved.tensors["model"])
    if learner.average is not None:
        learner.average.load_state_dict(saved.tensors["average"])
    learner.optimizer.load_state_dict(saved.optimizer["optimizer"])
    if runtime.accelerator.scaler is not None and saved.optimizer["scaler"]:
        runtime.accelerator.scaler.load_state_dict(saved.optimizer["scaler"])
    state.load_state_dict(saved.state["position"])


def _short(value: object) -> str:
    return value[:12] + "…" if isinstance(value, str) and len(value) > 24 else str(value)

"""Trainers people use, on the same shards by the common recipe: webdataset, PIL, torchvision v2."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from attrtrain.data.reader import ShardSet
from attrtrain.runtime import autocast
from tools.bench.data import SPLIT
from tools.bench.loader import PEERS, Spec, open_batches
from tools.bench.step_contenders import StepClock, precision, use_all_cores

_RATE = 3e-4


def plain_loop(task: dict[str, Any]) -> dict[str, Any]:
    """The training loop of PyTorch's tutorials, with autocast."""
    device = torch.device(task["device"])
    batches, attributes = _labelled(task)
    use_all_cores()
    model = getattr(torchvision.models, task["backbone"])(num_classes=attributes).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    network = torch.compile(model) if task["compiled"] else model
    clock, context = StepClock(task), autocast(device, precision(task["device"]))
    for images, target in batches:
        optimizer.zero_grad()
        with context:
            logits = network(images.to(device))
        loss = masked_loss(logits, target.to(device))
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        optimizer.step()
        if clock.tick():
            return clock.outcome()
    raise RuntimeError("ran out of data")


def timm_script(task: dict[str, Any]) -> dict[str, Any]:
    """What timm's train.py does in a step: its model, optimizer factory, channels_last, gradient clipping, and a meter
    that reads the loss now and then.
    """
    from timm import create_model
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter, dispatch_clip_grad

    device = torch.device(task["device"])
    torch.backends.cudnn.benchmark = True  # as its train.py has it
    batches, attributes = _labelled(task)
    use_all_cores()
    model = create_model(task["backbone"], pretrained=False, num_classes=attributes)
    model = model.to(device=device, memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=_RATE, weight_decay=1e-2)
    network = torch.compile(model) if task["compiled"] else model
    clock, context, meter = StepClock(task), autocast(device, precision(task["device"])), AverageMeter()
    for number, (loaded, target) in enumerate(batches):
        images = loaded.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with context:
            logits = network(images)
        loss = masked_loss(logits, target.to(device, non_blocking=True))
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        dispatch_clip_grad(model.parameters(), value=1.0, mode="norm")
        optimizer.step()
        optimizer.zero_grad()
        if number % 50 == 0:
            meter.update(loss.item(), len(images))
        if clock.tick():
            return clock.outcome()
    raise RuntimeError("ran out of data")


def lightning_trainer(task: dict[str, Any]) -> dict[str, Any]:
    """Lightning's Trainer around the same network."""
    import lightning
    from torch.utils.data import DataLoader, IterableDataset

    batches, attributes = _labelled(task)
    use_all_cores()
    clock = StepClock(task)

    class Batches(IterableDataset[tuple[Tensor, Tensor]]):  # already batched by the loader that the other peers have
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return batches

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network: nn.Module = getattr(torchvision.models, task["backbone"])(num_classes=attributes)
            if task["compiled"]:
                self.network.compile()

        def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
            return masked_loss(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=_RATE)

        def on_train_batch_end(self, *_: Any) -> None:
            clock.tick()

    chosen = {"no": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision(task["device"])]
    trainer = lightning.Trainer(
        accelerator="gpu" if task["device"] == "cuda" else "cpu",
        devices=1,
        precision=chosen,
        max_steps=task["warm_up"] + task["steps"],
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), DataLoader(Batches(), batch_size=None))
    return clock.outcome()


def masked_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy over known cells (B, A); NaN = unknown."""
    known = ~target.isnan()
    cells = functional.binary_cross_entropy_with_logits(logits.float(), target.nan_to_num(0.0), reduction="none")
    return (cells * known).sum() / known.sum().clamp(min=1)


def _labelled(task: dict[str, Any]) -> tuple[Iterator[tuple[Tensor, Tensor]], int]:
    """Batches of images (B, 3, H, W) float32 and votes (B, A), and A."""
    spec = Spec(**task["spec"])
    shards = ShardSet([spec.shards], SPLIT)
    ids, first = np.unique(shards.column("object_id"), return_index=True)
    votes = torch.from_numpy(shards.labels(first))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, object_ids in open_batches(PEERS["webdataset + PIL + torchvision v2"], spec):
            yield images, votes[torch.from_numpy(np.searchsorted(ids, object_ids))]
            use_all_cores()

    return batches(), votes.shape[1]

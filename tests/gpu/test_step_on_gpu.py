"""On a CUDA GPU: no step waits for it, batches arrive whole beside the work, and compiled training follows the plain
one.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attrtrain.config.load import load_config
from attrtrain.config.schema import Policy, ResizeOn, TrainConfig
from attrtrain.data.augment import Augmentation
from attrtrain.data.loader import Batch, CropDataset, load_batches
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from attrtrain.engine.learner import prepare_learner
from attrtrain.engine.objective import Objective
from attrtrain.engine.step import StepSettings, optimizer_step
from attrtrain.engine.window import Window
from attrtrain.errors import ShardError
from attrtrain.models.network import build_network
from attrtrain.runtime import build_runtime, seed_everything
from tests.damage import damage_crop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # of drivers and compilers
]
needs_a_real_one = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
PX, BATCH = 64, 8


def settings_of(shards: Path, **train: object) -> TrainConfig:
    flags = {"data.shards": shards, "data.image_px": PX, "model.backbone": "resnet18", "train.global_batch": BATCH}
    flags |= {f"train.{name}": value for name, value in train.items()}
    return load_config([word for name, value in flags.items() for word in (f"--{name}", str(value))])


def trained(shards: Path, config: TrainConfig, steps: int, watched_from: int | None = None) -> list[float]:
    """The loss of every step. From step `watched_from` on, whatever makes the host wait for the GPU is an error."""
    runtime = build_runtime(config.train.precision)
    assert runtime.device.type == "cuda"
    samples = ShardSet([str(shards)], "train")
    order = TrainOrder(len(samples), 0, BATCH, BATCH, rank=0, world_size=1)
    batches = load_batches(CropDataset(samples, PX), order.requests(50, 0, 0), runtime.device, workers=2)
    seed_everything(0)
    learner = prepare_learner(runtime, build_network("resnet18", "mlp", 32, 0.0, len(samples.vocabulary)), config)
    learner.wrapped.train()
    augmentation = Augmentation.of(config.data, 0, samples.vocabulary.names)
    objective = Objective.of(config, samples, runtime.device)
    settings = StepSettings(0, augmentation, objective, config.train.clip_norm, config.train.channels_last)
    window, losses = Window(runtime), []
    try:
        for step in range(steps):
            if step == watched_from:
                torch.cuda.set_sync_debug_mode("error")
            loss, norm = optimizer_step(runtime, learner.wrapped, learner.optimizer, [next(batches)], step, settings)
            if learner.average is not None:
                learner.average.update_parameters(learner.module)
            window.add(loss, norm)
            losses.append(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert window.close(BATCH)["loss"] > 0
    return [loss.item() for loss in losses]


@needs_a_real_one
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "no"])
def test_no_step_waits_for_the_gpu(toy_shards: Path, precision: str, clip_norm: float) -> None:
    config = settings_of(toy_shards, precision=precision, clip_norm=clip_norm, ema=0.9)
    assert len(trained(toy_shards, config, 10, watched_from=4)) == 10


@needs_a_real_one
@pytest.mark.parametrize("policy", ["trivial", "randaugment"])
def test_no_step_that_augments_waits_for_the_gpu(toy_shards: Path, policy: Policy) -> None:
    config = settings_of(toy_shards)
    data = replace(config.data, augment=policy, rotate=10.0, erase=0.5, mixup=0.2, cutmix=1.0, scales=[1.0, 0.75])
    assert len(trained(toy_shards, replace(config, data=data), 12, watched_from=8)) == 12


@needs_a_real_one
def test_what_waits_for_the_gpu_is_seen() -> None:
    values = torch.ones(3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchron"):
            values.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_a_real_one
def test_a_batch_whose_copy_takes_long_is_waited_for(toy_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what works, which has nothing else to do here, would look at memory that nothing was copied to yet."""
    copy = Batch.to

    def late(batch: Batch, device: torch.device) -> Batch:
        torch.cuda._sleep(100_000_000)  # clock cycles, in the stream that copies
        return copy(batch, device)

    monkeypatch.setattr(Batch, "to", late)
    dataset = CropDataset(ShardSet([str(toy_shards)], "train"), PX)
    requests = list(TrainOrder(len(dataset.shards), 0, BATCH, BATCH, rank=0, world_size=1).requests(1, 0, 0))[:4]
    kept = [batch.image.clone() for batch in load_batches(dataset, requests, torch.device("cuda"), workers=0)]
    for image, request in zip(kept, requests, strict=True):
        assert torch.equal(image.cpu(), dataset[request].image)


@needs_a_real_one
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resize_on", ["worker", "device"])
def test_batches_copied_beside_the_work_are_whole(toy_shards: Path, resize_on: ResizeOn, workers: int) -> None:
    dataset = CropDataset(ShardSet([str(toy_shards)], "train"), PX, resize_on)
    requests = list(TrainOrder(len(dataset.shards), 0, BATCH, BATCH, rank=0, world_size=1).requests(3, 0, 0))
    expected = load_batches(dataset, requests, torch.device("cpu"), workers=0)
    work = torch.randn((4096, 4096), device="cuda")
    kept = []
    for batch in load_batches(dataset, requests, torch.device("cuda"), workers):
        for _ in range(5):  # so that the host is ahead of the GPU, and copies ahead of the work
            work = torch.tanh(work @ work)
        kept.append((batch.image.clone(), batch.target.clone(), batch.known.clone()))
        del batch
    for (image, target, known), own in zip(kept, expected, strict=True):
        # Half precision, in which a GPU resizes, may round a level otherwise.
        assert (image.cpu().int() - own.image.int()).abs().max() <= (resize_on == "device")
        assert torch.equal(target.cpu(), own.target) and torch.equal(known.cpu(), own.known)


@pytest.mark.parametrize("position", [1, 5])
def test_batches_before_a_damaged_one_are_handed_on(toy_shards: Path, tmp_path: Path, position: int) -> None:
    shutil.copytree(toy_shards, tmp_path / "shards")
    shards = ShardSet([tmp_path / "shards"], "train")
    requests = list(TrainOrder(len(shards), 0, BATCH, BATCH, rank=0, world_size=1).requests(1, 0, 0))
    object_id, _ = damage_crop(shards, int(requests[position].index[3]))
    seen = []
    with pytest.raises(ShardError, match=f"object {object_id} in "):
        seen.extend(batch.index for batch in load_batches(CropDataset(shards, PX), requests, torch.device("cuda"), 2))
    assert [index.tolist() for index in seen] == [request.index.tolist() for request in requests[:position]]


@needs_a_real_one
@pytest.mark.slow
def test_compiled_training_follows_the_plain_one(toy_shards: Path) -> None:
    config = settings_of(toy_shards, precision="no")
    compiled = replace(config, train=replace(config.train, compile=True))
    expected = trained(toy_shards, config, 4)
    assert trained(toy_shards, compiled, 4) == pytest.approx(expected, rel=0.02)

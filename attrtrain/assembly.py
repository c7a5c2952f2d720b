"""Parts of a training run, built from its configuration."""

from collections.abc import Sequence

import torch

from attrtrain.config.schema import TIMM, TrainConfig
from attrtrain.data.augment import Augmentation
from attrtrain.data.jitter import Jitter
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from attrtrain.data.sampling import repeat_factors
from attrtrain.engine.objective import Objective
from attrtrain.engine.step import StepSettings, TrainingCategories
from attrtrain.errors import ConfigError
from attrtrain.framing import Framing
from attrtrain.models.category_head import known_categories
from attrtrain.models.layers import freeze, starved_norm
from attrtrain.models.network import AttributeModel, build_network, pretrained_interpolation
from attrtrain.models.timm_backbone import refusal, try_out
from attrtrain.runtime import DistributedOptions, Runtime, build_runtime


def build_configured_runtime(config: TrainConfig) -> Runtime:
    """The runtime of this process.

    Raises:
        ConfigError: as `build_runtime`.
    """
    # A graph that is the same in every step is only promised where a step is one backward pass.
    return build_runtime(
        config.train.precision,
        config.run.timeout_seconds,
        DistributedOptions(static_graph=config.train.micro_batch == 0, compress=config.train.compress_gradients),
    )


def build_order(config: TrainConfig, shards: ShardSet, runtime: Runtime) -> TrainOrder:
    """The order in which this process sees a split.

    Raises:
        ConfigError: the global batch does not divide, or the cache holds too little.
    """
    world_size, batch = runtime.accelerator.num_processes, config.train.global_batch
    # A share of 1 makes TrainOrder refuse a world that does not divide the batch, with those that do.
    share = batch // world_size if batch % world_size == 0 else 1
    window = config.data.window_shards if config.data.order == "block" else 0
    shards.require_cache(window)
    return TrainOrder(
        size=len(shards),
        seed=config.run.seed,
        global_batch=batch,
        micro_batch=config.train.micro_batch or share,
        rank=runtime.accelerator.process_index,
        world_size=world_size,
        shard_samples=shards.shard_samples,
        window_shards=window,
        shares=repeat_factors(shards, config.data.repeat_below, config.labels.positive_at)
        if config.data.repeat_below
        else None,
    )


def require_augmentation(config: TrainConfig, order: TrainOrder, names: Sequence[str]) -> None:
    """Refuses augmentation that cannot be done, before anything is loaded. Raises ConfigError."""
    Augmentation.of(config.data, config.run.seed, names)
    if (config.data.mixup or config.data.cutmix) and config.model.head == "category":
        raise ConfigError(
            "model.head: category knows one category a crop, and data.mixup and data.cutmix make crops of two; leave them at 0"
        )
    if (config.data.mixup or config.data.cutmix) and order.micro_batch < 2:
        raise ConfigError(
            "data.mixup and data.cutmix mix the objects of a micro-batch, and here it has a single one; raise train.micro_batch or train.global_batch"
        )


def require_batch_statistics(config: TrainConfig, model: AttributeModel, micro_batch: int, world_size: int) -> None:
    """Refuses micro-batches of a single object where batch normalisation cannot learn from one, before a step is made.

    Args:
        config: of the run.
        model: as `build_model` gives it.
        micro_batch: objects that go through the network at once.
        world_size: processes.

    Raises:
        ConfigError: it names the layer.
    """
    if micro_batch > 1 or (config.train.sync_batchnorm and world_size > 1):
        return
    side = min(_sides(config))
    if name := starved_norm(model, side):
        raise ConfigError(
            f"train.micro_batch: a single object of {side} x {side} pixels leaves the batch normalisation {name} one value a channel, too little for its statistics; "
            "raise train.micro_batch or train.global_batch to at least 2 objects a process, or raise data.image_px"
        )


def _sides(config: TrainConfig) -> list[int]:
    """Sides of the network's input in training, pixels."""
    return [round(scale * config.data.image_px) for scale in config.data.scales or [1.0]]


def _require_sides(config: TrainConfig, model: AttributeModel) -> None:
    """Refuses data.scales that come to sides which the backbone does not take; that of image_px itself was tried
    out.
    """
    for side in sorted(set(_sides(config)) - {config.data.image_px}):
        if reason := refusal(model, side):
            raise ConfigError(
                f"data.scales: {config.model.backbone} takes no pictures of {side} x {side} pixels ({reason}); give scales of data.image_px that it takes, or none"
            )


def _categories(shards: ShardSet) -> list[str]:
    if not (found := known_categories(shards.categories())):
        raise ConfigError("model.head: category reads the objects' categories, and these have none; take linear or mlp")
    return found


def build_model(config: TrainConfig, shards: ShardSet) -> AttributeModel:
    """The network with random weights, for the attributes of a split and, where its head asks, the categories; what is
    frozen has no gradients, and one of timm's is tried out on a picture.

    Raises:
        ConfigError: there is no such backbone, it takes no pictures of that size, or of those it is scaled to, or no
            such head, it has fewer groups than are frozen, or there are no categories.
    """
    model = build_network(
        config.model.backbone,
        config.model.head,
        config.model.hidden,
        config.model.dropout,
        len(shards.vocabulary),
        image_px=config.data.image_px,
        categories=_categories(shards) if config.model.head == "category" else (),
    )
    if config.model.backbone.startswith(TIMM):
        try_out(model, config.data.image_px, config.model.backbone)
        _require_sides(config, model)
    freeze(model, config.model.frozen)
    return model


def training_crops(config: TrainConfig, shards: ShardSet) -> CropDataset:
    """The crops of a split as training sees them, before what is done to whole batches."""
    jitter = Jitter(config.run.seed, config.data.jitter) if config.data.jitter else None
    return CropDataset(shards, config.data.image_px, config.data.resize_on, framing_of(config, shards), jitter)


def framing_of(config: TrainConfig, shards: ShardSet) -> Framing:
    """What of the stored crops a configured network sees."""
    wanted = config.data.interpolation
    interpolation = pretrained_interpolation(config.model.backbone) if wanted == "auto" else wanted
    return Framing.within(shards.crop, config.data.context, config.data.fit, interpolation)


def step_settings(config: TrainConfig, shards: ShardSet, device: torch.device) -> StepSettings:
    """What a configuration asks of a step on a split."""
    return StepSettings(
        config.run.seed,
        Augmentation.of(config.data, config.run.seed, shards.vocabulary.names),
        Objective.of(config, shards, device),
        config.train.clip_norm,
        config.train.channels_last,
        TrainingCategories.of(shards, config.run.seed, config.model.category_dropout)
        if config.model.head == "category"
        else None,
    )

"""The network of a run and what trains it, made ready for its device and its processes."""

import torch
from accelerate import DistributedType

from attrtrain.config.schema import TrainConfig
from attrtrain.engine.compiling import compile_in_place
from attrtrain.engine.state import Learner
from attrtrain.errors import ConfigError
from attrtrain.models.layers import layer_groups, synchronise_batchnorm, undecayed
from attrtrain.models.network import AttributeModel
from attrtrain.models.recompute import checkpoint_activations
from attrtrain.optim import MovingAverage, build_optimizer
from attrtrain.runtime import Runtime


def prepare_learner(runtime: Runtime, model: AttributeModel, config: TrainConfig) -> Learner:
    """Puts a model on its device and wraps it, its average and its optimizer for training.

    Raises:
        ConfigError: sync_batchnorm without a GPU, or what FSDP cannot do.
    """
    if runtime.accelerator.distributed_type == DistributedType.FSDP:
        _require_shardable(runtime, config)
    if config.train.sync_batchnorm and runtime.accelerator.num_processes > 1:
        if runtime.device.type != "cuda":
            raise ConfigError(
                "train.sync_batchnorm: torch synchronises batch statistics on CUDA GPUs only; leave it off"
            )
        synchronise_batchnorm(model)
    model.to(runtime.device)
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)
    average = MovingAverage(model, config.train.ema) if config.train.ema else None
    optimizer = build_optimizer(model, config.optim, layer_groups(model), undecayed(model))
    if config.train.checkpoint_activations:  # not of the average, which is only evaluated
        checkpoint_activations(model)
    if config.train.compile:
        compile_in_place(model, *([average.module] if average is not None else []))
    try:
        wrapped, prepared = runtime.accelerator.prepare(model, optimizer)
    except ValueError as error:
        if "does not support containers" not in str(error):
            raise
        raise ConfigError(
            f"model.backbone: {config.model.backbone} keeps its blocks in lists, which FSDP cannot shard by size; take another backbone, "
            "or train it on GPUs that hold it whole, with accelerate_configs/multi_gpu.yaml"
        ) from None
    return Learner(model, wrapped, average, prepared)


def _require_shardable(runtime: Runtime, config: TrainConfig) -> None:
    """Refuses what a model that is sharded over GPUs by FSDP cannot have. Raises ConfigError."""
    if not runtime.accelerator.is_fsdp2:
        raise ConfigError(
            "Accelerate's configuration asks for the first version of FSDP, whose flattened weights attrtrain cannot save; "
            "set fsdp_version: 2, as accelerate_configs/fsdp2.yaml does"
        )
    if config.train.ema or config.train.channels_last or config.train.compile:
        raise ConfigError(
            "train.ema, train.channels_last and train.compile: a model that is sharded over GPUs has none of them; "
            "under FSDP give --train.ema 0 --train.channels_last false --train.compile false"
        )
    if config.model.head == "ml_decoder":
        raise ConfigError(
            "model.head: ml_decoder reads inside the backbone, which FSDP shards as a whole; take linear or mlp"
        )

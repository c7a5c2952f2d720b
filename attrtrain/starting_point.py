"""Puts a configuration together with data and network to find what its training may be started with."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from attrtrain.assembly import (
    build_configured_runtime,
    build_model,
    build_order,
    require_augmentation,
    require_batch_statistics,
    step_settings,
    training_crops,
)
from attrtrain.config.schema import TrainConfig
from attrtrain.data.cache import ShardCache
from attrtrain.data.loader import Batch, load_batches
from attrtrain.data.overlap import require_each_once
from attrtrain.data.reader import ShardSet
from attrtrain.engine.compiling import explained_compile_failure
from attrtrain.engine.finders import MicroBatchFound, RateFound, find_learning_rate, find_micro_batch
from attrtrain.engine.learner import prepare_learner
from attrtrain.engine.state import Learner
from attrtrain.errors import ConfigError
from attrtrain.models.weights import load_backbone_weights
from attrtrain.runtime import Runtime, seed_everything

_ENDLESS = 10**6  # epochs


def find_start(
    config: TrainConfig,
    low: float,
    high: float,
    steps: int,
    on_speed: Callable[[int, float | None], object],
    on_micro_batch: Callable[[MicroBatchFound], object],
) -> tuple[MicroBatchFound, RateFound]:
    """Finds the micro-batch first, and with it the learning rate.

    Args:
        config: of the run to be; what it says of either does not count.
        low, high: rates to try.
        steps: of the range test.
        on_speed: called after each micro-batch that was tried, as `find_micro_batch` does.
        on_micro_batch: called before the range test, which may take minutes and find nothing.

    Raises:
        ConfigError: several processes, nothing fits into memory, or the range does not hold a good rate.
        AttrtrainError: as training.
    """
    shards = ShardSet(
        config.data.shards, config.data.train_split, ShardCache.of(config.data.cache_dir, config.data.cache_gb)
    )
    require_each_once(shards)
    runtime = build_configured_runtime(config)
    if runtime.accelerator.num_processes > 1:
        raise ConfigError("`attrtrain find` looks at one process; start it without a launcher")
    settings = step_settings(config, shards, runtime.device)

    def micro_batches(size: int) -> Iterator[Batch]:
        order = build_order(_with_micro_batch(config, size), shards, runtime)
        require_augmentation(config, order, shards.vocabulary.names)
        workers = runtime.workers(config.data.workers)
        return load_batches(training_crops(config, shards), order.requests(_ENDLESS, 0, 0), runtime.device, workers)

    learner = _new_learner(config, shards, runtime)
    learner.wrapped.train()
    with explained_compile_failure(config.train.compile):
        micro = find_micro_batch(runtime, learner, config.train.global_batch, micro_batches, settings, on_speed)
        on_micro_batch(micro)
        del learner
        runtime.accelerator.free_memory()  # which holds the first network, too, and its optimizer's state
        learner = _new_learner(config, shards, runtime)  # that has learnt nothing yet
        batches = micro_batches(micro.chosen)
        whole = iter(lambda: list(islice(batches, config.train.global_batch // micro.chosen)), [])
        return micro, find_learning_rate(runtime, learner, whole, settings, low, high, steps)


def _with_micro_batch(config: TrainConfig, size: int) -> TrainConfig:
    return replace(config, train=replace(config.train, micro_batch=size))


def _new_learner(config: TrainConfig, shards: ShardSet, runtime: Runtime) -> Learner:
    seed_everything(config.run.seed)
    model = build_model(config, shards)
    require_batch_statistics(config, model, config.train.global_batch, 1)  # parts of it that are tried have two objects
    load_backbone_weights(model, config.model.backbone, config.model.weights)
    return prepare_learner(runtime, model, config)

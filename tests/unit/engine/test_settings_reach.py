"""What a configuration says arrives where training reads it: settings that differ from their defaults and from each
other, so that one that is forgotten or takes another's place is seen.
"""

from dataclasses import asdict, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attrtrain.assembly import build_model, build_order, framing_of, step_settings, training_crops
from attrtrain.config.schema import (
    DataConfig,
    LabelsConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    TrainSection,
)
from attrtrain.data.augment import Augmentation
from attrtrain.data.jitter import Jitter
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.engine.learner import prepare_learner
from attrtrain.engine.objective import Objective
from attrtrain.engine.state import Learner
from attrtrain.framing import Framing
from attrtrain.runtime import Runtime, build_runtime

CPU = torch.device("cpu")
SIDED = ("left eye", "furry", "right eye")
CONFIG = TrainConfig(
    run=RunConfig(seed=11),
    data=DataConfig(
        image_px=32, context=0.25, fit="pad", interpolation="bicubic", flip=0.31, flip_swaps=True, jitter=0.13, rotate=17.0, augment="trivial",
        erase=0.23, mixup=0.41, cutmix=0.73, scales=[1.0, 1.5], repeat_below=0.4,
    ),
    labels=LabelsConfig(positive_at=0.8, unknown="selective", selective_below=0.19),
    loss=LossConfig(
        name="asl", gamma=1.1, gamma_positive=0.6, gamma_negative=3.3, clip=0.09, smoothing=0.07, positive_weight=5.5
    ),
    model=ModelConfig(backbone="resnet18", head="category", hidden=12, dropout=0.37, category_dropout=0.29, frozen=2),
    train=TrainSection(global_batch=24, micro_batch=6, precision="no", clip_norm=2.7, channels_last=False, ema=0.85),
    optim=OptimConfig(name="sgd", lr=0.02, weight_decay=0.06, momentum=0.77, layer_decay=0.5),
)  # fmt: skip
DEFAULT = TrainConfig()


@pytest.fixture(scope="module")
def shards(wide_shards: Path) -> ShardSet:
    return ShardSet([wide_shards], "train")


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return build_runtime("no")


@pytest.fixture(scope="module")
def learner(runtime: Runtime, shards: ShardSet) -> Learner:
    return prepare_learner(runtime, build_model(CONFIG, shards), CONFIG)


def test_no_setting_of_augmentation_is_forgotten_or_takes_anothers_place() -> None:
    found = Augmentation.of(CONFIG.data, CONFIG.run.seed, SIDED)
    named_otherwise: dict[str, Any] = {
        "seed": 11,
        "policy": CONFIG.data.augment,
        "scales": (1.0, 1.5),
        "swaps": (2, 1, 0),
    }
    values = {}
    for field in fields(Augmentation):
        values[field.name] = getattr(found, field.name)
        expected = named_otherwise.get(field.name, getattr(CONFIG.data, field.name, None))
        assert values[field.name] == expected != field.default, field.name
    assert all(one != other for one, other in combinations(values.values(), 2))


def test_a_step_has_the_seed_clipping_layout_augmentation_and_withheld_categories_that_were_asked_for(
    shards: ShardSet,
) -> None:
    config = replace(CONFIG, data=replace(CONFIG.data, flip_swaps=False))  # which these attributes do not have
    found = step_settings(config, shards, CPU)
    assert (found.seed, found.clip_norm, found.channels_last) == (11, 2.7, False)
    assert found.objective.loss.settings == CONFIG.loss and found.objective.loss.positive_weight is not None
    assert found.augmentation == Augmentation.of(config.data, 11, shards.vocabulary.names) != Augmentation(seed=11)
    assert found.categories is not None and (found.categories.seed, found.categories.withheld) == (11, 0.29)
    names = sorted(set(shards.categories()))
    assert found.categories.code.tolist() == [names.index(name) + 1 for name in shards.categories()]

    other = replace(config, train=replace(config.train, channels_last=True), model=replace(config.model, head="linear"))
    found = step_settings(other, shards, CPU)
    assert found.channels_last is True and found.categories is None


def test_the_loss_has_every_setting_of_losses_and_what_unknown_means(shards: ShardSet) -> None:
    for name, value in asdict(CONFIG.loss).items():
        assert value != asdict(DEFAULT.loss)[name], name
    objective = Objective.of(CONFIG, shards, CPU)
    assert objective.loss.settings == CONFIG.loss
    assert (objective.loss.unknown, objective.loss.selective_below) == ("selective", 0.19)
    assert objective.loss.step_objects == 24  # of a whole step, not of a micro-batch
    weight = objective.loss.positive_weight
    assert weight is not None and weight.max() <= 5.5 and weight.max() > 2
    for unknown in ("mask", "negative", "hill", "splc"):
        config = replace(CONFIG, labels=replace(CONFIG.labels, unknown=unknown))
        assert Objective.of(config, shards, CPU).loss.unknown == unknown


def settings_by_name(learner: Learner) -> dict[str, tuple[float, float, float]]:
    """Scale of the rate, weight decay and momentum of each parameter that learns."""
    names = {id(parameter): name for name, parameter in learner.module.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"], group["momentum"])
        for group in learner.bare_optimizer.param_groups
        for parameter in group["params"]
    }


def test_the_optimizer_leaves_out_what_is_frozen_and_has_a_rate_for_each_layer_group(learner: Learner) -> None:
    scales = {"layer2": 0.125, "layer3": 0.25, "layer4": 0.5, "head": 1.0}  # the stem and layer1 are frozen
    expected = {}
    for name, parameter in learner.module.named_parameters():
        part = name.split(".")[0 if name.startswith("head.") else 1]
        assert parameter.requires_grad == (part in scales), name
        if part in scales:
            expected[name] = (scales[part], 0.06 if parameter.ndim > 1 else 0.0, 0.77)
    assert settings_by_name(learner) == expected
    assert isinstance(learner.bare_optimizer, torch.optim.SGD)
    assert {group["lr"] for group in learner.bare_optimizer.param_groups} == {0.02}


def test_positions_and_tokens_of_a_transformer_are_not_decayed(runtime: Runtime, shards: ShardSet) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, backbone="timm:test_vit", frozen=0))
    learner = prepare_learner(runtime, build_model(config, shards), config)
    decay = {name: decay for name, (_, decay, _) in settings_by_name(learner).items()}
    assert decay.keys() == dict(learner.module.named_parameters()).keys()
    undecayed = {"backbone.cls_token", "backbone.pos_embed"}
    for name, parameter in learner.module.named_parameters():
        assert decay[name] == (0.0 if parameter.ndim == 1 or name in undecayed else 0.06), name
    assert undecayed <= decay.keys()


def test_the_average_forgets_as_fast_as_was_asked_for_or_is_not_there(
    learner: Learner, runtime: Runtime, shards: ShardSet
) -> None:
    average = learner.average
    assert average is not None
    average.n_averaged.fill_(10**6)  # its decay is warmed up
    before = {name: parameter.detach().clone() for name, parameter in average.module.named_parameters()}
    moved = build_model(CONFIG, shards)
    average.update_parameters(moved)
    for name, parameter in moved.named_parameters():
        expected = 0.85 * before[name] + 0.15 * parameter.detach()
        torch.testing.assert_close(average.module.get_parameter(name), expected, msg=name)
    without = replace(CONFIG, train=replace(CONFIG.train, ema=0.0))
    assert prepare_learner(runtime, build_model(without, shards), without).average is None


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_network_lies_in_memory_as_was_asked_for(runtime: Runtime, shards: ShardSet, channels_last: bool) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, channels_last=channels_last))
    weight = prepare_learner(runtime, build_model(config, shards), config).module.get_parameter("backbone.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("head", ["mlp", "category"])
def test_the_head_is_as_wide_and_drops_as_much_as_was_asked_for(shards: ShardSet, head: str) -> None:
    model = build_model(replace(CONFIG, model=replace(CONFIG.model, head=head)), shards)
    (dropout,) = [part for part in model.head.modules() if isinstance(part, nn.Dropout)]
    assert dropout.p == 0.37
    hidden, last = [part for part in model.head.modules() if isinstance(part, nn.Linear)]
    assert hidden.out_features == 12 and last.out_features == len(shards.vocabulary)
    categories = tuple(sorted(set(shards.categories()))) if head == "category" else ()
    assert model.categories == categories


def test_the_order_repeats_objects_with_rare_attributes_and_cuts_steps_as_was_asked_for(
    runtime: Runtime, shards: ShardSet
) -> None:
    order = build_order(CONFIG, shards, runtime)
    assert (order.seed, order.global_batch, order.micro_batch, order.window_shards) == (11, 24, 6, 0)
    present = shards.labels(np.arange(len(shards))) >= 0.8
    shares = [sum(column) / len(present) for column in present.T]
    expected = [
        max([1.0, *((0.4 / share) ** 0.5 for has, share in zip(row, shares, strict=True) if has)]) for row in present
    ]
    assert order.shares is not None and max(expected) > 1.5
    np.testing.assert_allclose(order.shares, expected)

    plain = replace(CONFIG, data=replace(CONFIG.data, repeat_below=0.0))
    assert build_order(plain, shards, runtime).shares is None
    assert build_order(replace(plain, train=replace(plain.train, micro_batch=0)), shards, runtime).micro_batch == 24
    blocks = replace(plain, data=replace(plain.data, order="block", window_shards=3))
    assert build_order(blocks, shards, runtime).window_shards == 3


def test_training_sees_crops_framed_and_moved_about_as_was_asked_for(shards: ShardSet) -> None:
    framing = Framing(context=0.25, fit="pad", interpolation="bicubic")
    assert framing_of(CONFIG, shards) == framing
    index = np.array([3, 70, 140], dtype=np.int64)
    request = BatchRequest(2, index, index)
    found = training_crops(CONFIG, shards)
    expected = CropDataset(shards, 32, framing=framing, jitter=Jitter(11, 0.13))
    still = CropDataset(shards, 32, framing=framing)
    assert torch.equal(found[request].image, expected[request].image)
    assert not torch.equal(found[request].image, still[request].image)
    unmoved = training_crops(replace(CONFIG, data=replace(CONFIG.data, jitter=0.0)), shards)
    assert torch.equal(unmoved[request].image, still[request].image)
    on_device = replace(CONFIG, data=replace(CONFIG.data, resize_on="device"))
    assert training_crops(on_device, shards).resize_on == "device"

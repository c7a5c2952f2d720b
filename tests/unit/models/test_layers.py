"""Layer groups, rates that shrink towards the stem, and what is frozen: by hand for ResNets, beside timm's own for its
models.
"""

import copy

import pytest
import timm
import torch
from packaging.version import Version
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from attrtrain.config.schema import OptimConfig
from attrtrain.errors import ConfigError
from attrtrain.models.layers import freeze, layer_groups, starved_norm, synchronise_batchnorm, undecayed
from attrtrain.models.network import AttributeModel, build_network
from attrtrain.optim import MovingAverage, build_optimizer, set_learning_rate


def network(backbone: str, head: str = "linear") -> AttributeModel:
    torch.manual_seed(0)
    return build_network(backbone, head, 8, 0.0, 5, image_px=64)  # type: ignore[arg-type]


def settings(model: AttributeModel, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Each parameter's rate and weight decay."""
    found = {
        id(one): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for one in group["params"]
    }
    return {name: found[id(one)] for name, one in model.named_parameters() if id(one) in found}


def test_a_resnets_rates_are_those_written_down_here() -> None:
    model = network("resnet18", "mlp")
    config = OptimConfig(lr=1.0, weight_decay=0.1, layer_decay=0.5)
    optimizer = build_optimizer(model, config, layer_groups(model), undecayed(model))
    set_learning_rate(optimizer, 0.8)
    found = settings(model, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    expected = {
        "backbone.conv1.weight": (0.025, 0.1),
        "backbone.bn1.weight": (0.025, 0.0),
        "backbone.layer1.0.conv1.weight": (0.05, 0.1),
        "backbone.layer2.0.downsample.1.bias": (0.1, 0.0),
        "backbone.layer3.1.bn2.weight": (0.2, 0.0),
        "backbone.layer4.1.conv2.weight": (0.4, 0.1),
        "head.0.weight": (0.8, 0.1),
        "head.3.bias": (0.8, 0.0),
    }
    for name, (rate, decay) in expected.items():
        assert found[name] == (pytest.approx(rate), decay), name


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_vit3",
        "test_convnext",
        "test_resnet",
        "test_efficientnet",
        "test_mambaout",
        "levit_128s",
        "xcit_nano_12_p16_224",
    ],
)
def test_rates_and_weight_decay_are_those_that_timm_gives_its_model_with_a_classifier(name: str) -> None:
    model = network(f"timm:{name}")
    config = OptimConfig(lr=1.0, weight_decay=0.1, layer_decay=0.7)
    optimizer = build_optimizer(model, config, layer_groups(model), undecayed(model))
    set_learning_rate(optimizer, 1.0)
    ours = settings(model, optimizer)
    theirs = timm.create_model(
        name, num_classes=5, **({"img_size": 64} if "vit" in name and "levit" not in name else {})
    )
    groups = param_groups_layer_decay(
        theirs, 0.1, theirs.no_weight_decay() if hasattr(theirs, "no_weight_decay") else (), layer_decay=0.7
    )
    expected = {id(one): (group["lr_scale"], group["weight_decay"]) for group in groups for one in group["params"]}
    compared = 0
    for parameter_name, parameter in theirs.named_parameters():
        if (own := f"backbone.{parameter_name}") in ours:
            rate, decay = expected[id(parameter)]
            assert ours[own] == (pytest.approx(rate), decay), parameter_name
            compared += 1
    assert compared == len(list(model.backbone.parameters()))
    assert ours["head.weight"] == (1.0, 0.1)
    one_layer = name == "levit_128s" and Version(timm.__version__) < Version("1.0.31")  # as timm saw it before
    assert (min(rate for rate, _ in ours.values()) < 0.7) == (not one_layer)


def test_the_head_alone_has_a_rate_while_it_learns_alone() -> None:
    model = network("timm:test_convnext")
    optimizer = build_optimizer(model, OptimConfig(layer_decay=0.9), layer_groups(model))
    set_learning_rate(optimizer, 0.5, head_alone=True)
    rates = {name: rate for name, (rate, _) in settings(model, optimizer).items()}
    assert {name for name, rate in rates.items() if rate} == {"head.weight", "head.bias"}
    assert "backbone.head.norm.weight" in rates  # of the backbone, whatever it is called
    set_learning_rate(optimizer, 0.5)
    assert all(rate > 0 for rate, _ in settings(model, optimizer).values())


@pytest.mark.parametrize(
    ("count", "parts"),
    [
        (0, ()),
        (1, ("conv1", "bn1")),
        (3, ("conv1", "bn1", "layer1", "layer2")),
        (5, ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")),
        (-1, ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")),
    ],
)
def test_frozen_groups_keep_weights_and_statistics_through_training(count: int, parts: tuple[str, ...]) -> None:
    model = network("resnet18")
    freeze(model, count)
    average = MovingAverage(model, 0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = build_optimizer(model, OptimConfig(lr=0.01), layer_groups(model))
    set_learning_rate(optimizer, 0.01)
    model.train()
    for _ in range(2):
        model(torch.rand(4, 3, 64, 64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)
    still = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert still == {name for name in before if name.startswith(tuple(f"backbone.{part}." for part in parts))}
    judged = average.module.state_dict()
    assert all(torch.equal(judged[name], before[name]) for name in still)
    model.eval().train()
    resting = {name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d) and not part.training}
    assert bool(resting) == bool(count) and ("backbone.bn1" in resting) == bool(count)


def test_groups_of_timms_models_are_frozen_and_all_of_one_as_a_probe() -> None:
    model = network("timm:test_vit")
    assert freeze(model, 2) == len(set(layer_groups(model).values())) - 1
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "backbone.patch_embed.proj.weight" not in learning and "backbone.blocks.0.attn.qkv.weight" not in learning
    assert "backbone.blocks.1.attn.qkv.weight" in learning
    freeze(model, -1)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "head.weight",
        "head.bias",
    }
    assert not model.train().backbone.training and model.head.training


def test_more_groups_than_there_are_is_refused_with_their_number() -> None:
    with pytest.raises(ConfigError, match=r"model.frozen: 6 layer groups, but the backbone has 5 before its head"):
        freeze(network("resnet18"), 6)


def test_a_copy_of_a_frozen_network_is_frozen_and_a_loaded_one_is_not() -> None:
    model = network("resnet18")
    freeze(model, -1)
    assert not copy.deepcopy(model).train().backbone.bn1.training
    other = network("resnet18")
    other.load_state_dict(model.state_dict())
    assert other.train().backbone.bn1.training


@pytest.mark.parametrize("frozen", [0, 4, -1])
@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        *[("resnet18", side) for side in (32, 33)],
        *[("timm:test_resnet", side) for side in (32, 33)],
        *[(f"timm:{name}", 32) for name in ("test_convnext", "test_vit", "levit_128s")],
    ],
)
def test_what_a_single_picture_starves_is_what_torch_refuses(backbone: str, side: int, frozen: int) -> None:
    model = build_network(backbone, "linear", 8, 0.0, 5, image_px=side)
    freeze(model, min(frozen, max(layer_groups(model).values())))
    before = copy.deepcopy(model.state_dict())
    found = starved_norm(model, side)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.train()
    try:
        model(torch.zeros(1, 3, side, side))
        refused = False
    except ValueError as error:
        assert "Expected more than 1 value per channel" in str(error)
        refused = True
    assert bool(found) == refused
    if (backbone, side, frozen) == ("resnet18", 32, 0):
        assert found == "backbone.layer4.0.bn1"


@pytest.mark.parametrize("backbone", ["resnet18", "timm:mobilenetv3_small_050", "timm:test_efficientnet"])
def test_synchronised_batchnorm_computes_the_same_with_the_same_parameters(backbone: str) -> None:
    """timm's norms hold activations, which torch's own conversion drops."""
    torch.manual_seed(0)
    model = build_network(backbone, "linear", 0, 0.0, 3, image_px=64).eval()
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    expected, parameters = model(images), dict(model.named_parameters())
    synchronise_batchnorm(model)
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    assert norms and all(isinstance(part, nn.SyncBatchNorm) for part in norms)
    assert torch.allclose(model(images), expected, atol=1e-5)
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())

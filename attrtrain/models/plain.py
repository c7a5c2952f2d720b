"""A model from nothing but a state dict: its architecture is read off names and shapes."""

from torch import Tensor

from attrtrain.errors import WeightsError
from attrtrain.models.network import AttributeModel, build_network
from attrtrain.models.resnet import RESNETS

_BY_SHAPE = {shape: name for name, shape in RESNETS.items()}


def model_from_tensors(tensors: dict[str, Tensor], origin: str) -> AttributeModel:
    """Builds the model a state dict belongs to and fills it, all of it.

    Args:
        tensors: of `AttributeModel`, or of a torchvision ResNet whose `fc` is one linear layer or a sequence with two.
        origin: where they come from, for messages.

    Raises:
        WeightsError: no ResNet of torchvision's, or a head of another kind.
    """
    named = {
        _attrtrain_name(name): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    backbone = _backbone(named, origin)
    layers = sorted(
        name.removesuffix(".weight") for name in named if name.startswith("head.") and name.endswith("weight")
    )
    if len(layers) not in (1, 2):
        raise WeightsError(
            f"{origin}: its head has {len(layers)} layers with weights; attrtrain knows heads of one or two"
        )
    last = named[f"{layers[-1]}.weight"]
    hidden = named[f"{layers[0]}.weight"].shape[0] if len(layers) == 2 else 1
    model = build_network(backbone, "mlp" if len(layers) == 2 else "linear", hidden, 0.0, last.shape[0])
    own_layers = ["head.0", "head.3"] if len(layers) == 2 else ["head"]
    for theirs, ours in zip(layers, own_layers, strict=True):
        for part in ("weight", "bias"):
            if theirs != ours and f"{theirs}.{part}" in named:
                named[f"{ours}.{part}"] = named.pop(f"{theirs}.{part}")
    for name, tensor in model.state_dict().items():
        if name in named and named[name].shape != tensor.shape:
            raise WeightsError(f"{origin}: {name} has shape {tuple(named[name].shape)}, expected {tuple(tensor.shape)}")
    missing, unexpected = model.load_state_dict(named, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"{origin}: does not fill a {backbone} ({len(missing)} tensors missing, {len(unexpected)} unknown; first: {(missing + unexpected)[0]})"
        )
    return model


def backbone_of(tensors: dict[str, Tensor], origin: str) -> str:
    """Which backbone a state dict belongs to, with or without a head.

    Raises:
        WeightsError: no ResNet of torchvision's.
    """
    return _backbone({_attrtrain_name(name): tensor for name, tensor in tensors.items()}, origin)


def _attrtrain_name(name: str) -> str:
    """Torchvision's `layer1.…`, `fc.…` → `backbone.layer1.…`, `head.…`; attrtrain's own names stay."""
    if name.startswith(("backbone.", "head.")):
        return name
    return f"head{name.removeprefix('fc')}" if name.startswith("fc.") else f"backbone.{name}"


def _backbone(named: dict[str, Tensor], origin: str) -> str:
    blocks = tuple(
        len({name.split(".")[2] for name in named if name.startswith(f"backbone.layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    bottleneck = "backbone.layer1.0.conv3.weight" in named
    if (backbone := _BY_SHAPE.get((blocks, bottleneck))) is None:
        raise WeightsError(f"{origin}: not the weights of a torchvision ResNet ({', '.join(sorted(RESNETS))})")
    return backbone

"""A network as layer groups, one behind the other: what learns at which rate, and what does not learn at all."""

import fnmatch
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attrtrain.errors import ConfigError
from attrtrain.models.network import AttributeModel
from attrtrain.models.resnet import ResNet

WHOLE_BACKBONE = -1
"""As a number of frozen groups: all of the backbone, what stands behind its last group included."""
_RESNET_GROUPS = {"conv1": 0, "bn1": 0, "layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4}
_NO_LAYER = "no layer of anybody's"


def layer_groups(model: AttributeModel) -> dict[str, int]:
    """Each parameter's group, counted from 0 at the stem; the head's is the largest.

    Of a torchvision ResNet: stem, layer1 … layer4, head. Of a model of timm's the groups that its own layer-wise decay
    has: patch embedding or stem, then block by block; what follows the last block, such as a norm, goes with the head,
    as it does there.
    """
    backbone = model.backbone
    names = [name for name, _ in backbone.named_parameters()]
    if isinstance(backbone, ResNet):
        groups = {name: _RESNET_GROUPS[name.partition(".")[0]] for name in names}
        head = max(_RESNET_GROUPS.values()) + 1
    else:
        groups, head = _timm_groups(backbone)
    own = {f"backbone.{name}": groups[name] for name in names}
    return own | {f"head.{name}": head for name, _ in model.head.named_parameters()}


def synchronise_batchnorm(model: AttributeModel) -> None:
    """Gives the model batch normalisation that takes its statistics over all processes; parameters stay the same
    ones.
    """
    if isinstance(model.backbone, ResNet):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch gives it no types
        return
    from timm.layers import convert_sync_batchnorm  # torch's own drops the activations that timm's norms hold

    convert_sync_batchnorm(model)


def undecayed(model: AttributeModel) -> set[str]:
    """Parameters that a timm model says must have no weight decay, such as positions and class tokens: by their names,
    or by patterns of these. Biases and norms have none anyhow.
    """
    ask = getattr(model.backbone, "no_weight_decay", None)
    patterns = ask() if ask is not None else ()
    names = [name for name, _ in model.backbone.named_parameters()]
    return {f"backbone.{name}" for pattern in patterns for name in fnmatch.filter(names, pattern)}


def freeze(model: AttributeModel, count: int) -> int:
    """Takes leading layer groups out of training: no gradients, and, by `AttributeModel.train`, no batch statistics.

    Args:
        count: of groups from the stem on; -1 for the whole backbone.

    Returns:
        The number of groups before the head.

    Raises:
        ConfigError: the backbone has fewer.
    """
    groups = layer_groups(model)
    before_head = max(groups.values())
    if count > before_head:
        raise ConfigError(
            f"model.frozen: {count} layer groups, but the backbone has {before_head} before its head; {WHOLE_BACKBONE} freezes it whole"
        )
    for name, parameter in model.named_parameters():
        if groups[name] < count or (count == WHOLE_BACKBONE and name.startswith("backbone.")):
            parameter.requires_grad_(False)
    return before_head


def starved_norm(model: AttributeModel, side: int) -> str:
    """The first batch normalisation that training on a single picture of `side` x `side` pixels leaves with one value a
    channel, of which there is no variance; "" where there is none.

    What is frozen keeps its statistics and needs none of the picture's. The model, on the CPU, stays as it is.
    """
    was_training = model.training
    model.train()
    learning = [(name, part) for name, part in model.named_modules() if isinstance(part, _BatchNorm) and part.training]
    starved: list[str] = []

    def look(name: str, given: tuple[Tensor, ...]) -> None:
        if given[0].numel() == given[0].shape[1]:
            starved.append(name)

    hooks = [part.register_forward_pre_hook(lambda _, given, name=name: look(name, given)) for name, part in learning]
    model.eval()  # so that no statistics follow the picture, and nothing is drawn
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return starved[0] if starved else ""


def _timm_groups(backbone: nn.Module) -> tuple[dict[str, int], int]:
    from timm.models import group_parameters
    from timm.optim import auto_group_layers

    ask = getattr(backbone, "group_matcher", None)
    if ask is None:  # then timm cuts the list of parameters into pieces of one size
        groups: dict[str, int] = auto_group_layers(backbone)
        return groups, max(groups.values()) + 1
    # With one more that matches nothing, as the classifier does that this backbone was built without.
    named = SimpleNamespace(named_parameters=lambda: iter([*backbone.named_parameters(), (_NO_LAYER, None)]))
    groups = group_parameters(named, ask(coarse=False), reverse=True)
    return groups, groups.pop(_NO_LAYER)

"""Activation checkpointing: the same losses, gradients and batch statistics, with less kept."""

import functools

import pytest
import torch
from torch.utils import checkpoint as torch_checkpoint

from attrtrain.errors import ConfigError
from attrtrain.models.layers import freeze
from attrtrain.models.network import AttributeModel, build_network
from attrtrain.models.recompute import checkpoint_activations


def _count(saved: list[int], one: torch.Tensor) -> torch.Tensor:
    saved.append(one.nbytes)
    return one


def trained(backbone: str, recompute: bool, frozen: int, kept: list[int]) -> tuple[list[float], AttributeModel]:
    """Losses of three steps, and the model after them; bytes kept for the backward pass are added to `kept`."""
    torch.manual_seed(0)
    model = build_network(backbone, "mlp", 8, 0.5, 5, image_px=64)
    freeze(model, frozen)
    if recompute:
        checkpoint_activations(model)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    model.train()
    losses = []
    for step in range(3):
        torch.manual_seed(step)
        saved: list[int] = []
        counted = functools.partial(_count, saved)
        with torch.autograd.graph.saved_tensors_hooks(counted, lambda one: one):
            loss = model(torch.rand(4, 3, 64, 64)).square().mean()
        kept.append(sum(saved))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize(
    ("backbone", "frozen"),
    [("resnet18", 0), ("resnet18", 2), ("timm:test_resnet", 0), ("timm:test_vit", 0), ("timm:test_efficientnet", 2)],
)
def test_losses_weights_and_statistics_are_those_without(backbone: str, frozen: int) -> None:
    less: list[int] = []
    more: list[int] = []
    losses, model = trained(backbone, True, frozen, less)
    expected, plain = trained(backbone, False, frozen, more)
    assert losses == expected
    theirs = plain.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert less[0] < 0.7 * more[0]


def test_the_network_goes_on_as_any_other_after_it() -> None:
    """Batch statistics are held back in the backward pass alone, and evaluation uses them."""
    _, model = trained("resnet18", True, 0, [])
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {3}
    images = torch.rand(2, 3, 64, 64)
    before = model.backbone.bn1.running_mean.clone()
    model.eval()
    assert torch.equal(model(images), model(images)) and torch.equal(model.backbone.bn1.running_mean, before)


def test_stages_are_checkpointed_while_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = torch_checkpoint.checkpoint
    monkeypatch.setattr(
        "attrtrain.models.resnet.checkpoint", lambda *words, **more: calls.append(more) or real(*words, **more)
    )
    model = build_network("resnet18", "linear", 8, 0.0, 5)
    checkpoint_activations(model)
    model.train()(torch.rand(2, 3, 64, 64))
    assert calls == [{"use_reentrant": False}] * 4
    model.eval()(torch.rand(2, 3, 64, 64))
    assert len(calls) == 4


def test_a_backbone_that_cannot_is_refused_in_a_line() -> None:
    with pytest.raises(ConfigError, match=r"train\.checkpoint_activations: .* cannot") as caught:
        checkpoint_activations(AttributeModel(_Plain(), torch.nn.Linear(4, 5)))
    assert "\n" not in str(caught.value)


class _Plain(torch.nn.Module):
    head_hidden_size = 4

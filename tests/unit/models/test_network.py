"""The network: normalisation inside, heads as configured, torchvision's arithmetic."""

import pytest
import torch
import torchvision
from torchvision.transforms import v2

from attrtrain.models.network import build_network
from attrtrain.models.plain import model_from_tensors


def test_uint8_and_unit_range_images_are_normalised_as_torchvision_does() -> None:
    model = build_network("resnet18", "linear", 8, 0.0, 3)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = v2.functional.normalize(images.float() / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert torch.allclose(model.normalise(images), expected, atol=1e-5)
    assert torch.allclose(model.normalise(images.float() / 255), expected, atol=1e-5)


def test_mlp_head_is_features_hidden_attributes_with_dropout() -> None:
    head = build_network("resnet50", "mlp", 512, 0.5, 204).head
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (head[0].in_features, head[0].out_features, head[3].out_features, head[2].p) == (2048, 512, 204, 0.5)


def torchvision_with(fc: torch.nn.Module, depth: str) -> torchvision.models.ResNet:
    model = getattr(torchvision.models, depth)()
    model.fc = fc
    return model.eval()


@pytest.mark.parametrize(
    ("depth", "features", "head"),
    [
        ("resnet18", 512, "linear"),
        ("resnet34", 512, "mlp"),
        ("resnet50", 2048, "mlp_without_dropout"),
    ],
)
def test_a_plain_state_dict_of_torchvisions_becomes_the_same_function(depth: str, features: int, head: str) -> None:
    torch.manual_seed(0)
    hidden = torch.nn.Linear(features, 16)
    fc = {
        "linear": torch.nn.Linear(features, 7),
        "mlp": torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 7)),
        "mlp_without_dropout": torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Linear(16, 7)),
    }[head]
    theirs = torchvision_with(fc, depth)
    ours = model_from_tensors(dict(theirs.state_dict()), "test").eval()
    images = torch.rand(2, 3, 64, 64)
    normalised = v2.functional.normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(normalised), atol=1e-4)

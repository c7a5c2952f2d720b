"""The network: torchvision backbone, pooled features, a head."""

from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

from attrtrain.config.schema import Backbone, Head

# Statistics of ImageNet, which torchvision's weights were trained with; the same in training from nothing, for one rule everywhere.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class AttributeModel(nn.Module):
    """Images → attribute logits. Normalisation is inside, so nobody has to remember it.

    `backbone` maps normalised images to features (B, F), `head` features to logits (B, A).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Computes logits.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0 to 255 or floating point in [0, 1].

        Returns:
            (B, A) logits; `sigmoid` gives scores in (0, 1).
        """
        logits: Tensor = self.head(self.backbone(self.normalise(images)))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 or [0, 1] → zero mean and unit variance on ImageNet, float32."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return (scaled - self.mean) / self.std


def build_network(backbone: Backbone, head: Head, hidden: int, dropout: float, attributes: int) -> AttributeModel:
    """Builds a network with random weights.

    Args:
        hidden: width of the mlp head's one hidden layer; a linear head has none.
        dropout: share of hidden activations dropped in training; a linear head drops none.
        attributes: number of logits.
    """
    network = bare_backbone(backbone)
    features = network.fc.in_features
    network.fc = nn.Identity()
    return AttributeModel(network, build_head(head, features, hidden, dropout, attributes))


def bare_backbone(name: Backbone) -> torchvision.models.ResNet:
    """A torchvision ResNet with random weights and its classifier `fc` in place."""
    match name:
        case "resnet18":
            return torchvision.models.resnet18()
        case "resnet34":
            return torchvision.models.resnet34()
        case "resnet50":
            return torchvision.models.resnet50()
        case "resnet101":
            return torchvision.models.resnet101()


def build_head(
    kind: Literal["linear", "mlp"], features: int, hidden: int, dropout: float, attributes: int
) -> nn.Module:
    """A head from features (B, `features`) to logits (B, `attributes`)."""
    match kind:
        case "linear":
            return nn.Linear(features, attributes)
        case "mlp":
            return nn.Sequential(
                nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, attributes)
            )

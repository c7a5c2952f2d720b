"""The network: a backbone of torchvision's or timm's, pooled features or a feature map, a head."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from attrtrain.config.schema import RGB, TIMM, Head, Interpolation
from attrtrain.models.category_head import CategoryHead, category_codes
from attrtrain.models.resnet import ResNet

# Statistics of ImageNet, which torchvision's weights were trained with; the same in training from nothing, for one rule
# everywhere.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class AttributeModel(nn.Module):
    """Images → attribute logits. Normalisation is inside, so nobody has to remember it.

    `backbone` maps normalised images to pooled features (B, F). Heads come in two kinds: `linear`, `mlp` and `category`
    map those to logits (B, A); `ml_decoder` maps the feature map before pooling, (B, C, h, w) or tokens (B, N, C), to
    logits.

    Attributes:
        categories: (C) what the `category` head tells apart; other heads know none.
        normalisation: mean and standard deviation (3) of RGB in [0, 1], exactly as they were given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        reads_map: bool = False,
        categories: Sequence[str] = (),
        mean: RGB = IMAGE_MEAN,
        std: RGB = IMAGE_STD,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.normalisation = (mean, std)
        self.categories = tuple(categories)
        self._reads_map = reads_map
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
        """Computes logits.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0 to 255 or floating point in [0, 1].
            category: (B,) int64 codes as `codes` gives them; None where no category is known.

        Returns:
            (B, A) logits; `sigmoid` gives scores in (0, 1).
        """
        normalised = self.normalise(images)
        return self._logits(self.feature_map(normalised) if self._reads_map else self.backbone(normalised), category)

    def codes(self, names: Sequence[str]) -> Tensor:
        """(B,) int64 on the CPU: what stands for the categories of some objects (B)."""
        return category_codes(self.categories, names)

    def _logits(self, found: Tensor, category: Tensor | None) -> Tensor:
        logits: Tensor = self.head(found, category) if self.categories else self.head(found)
        return logits

    @property
    def attributes(self) -> int:
        """A, the number of logits."""
        if self._reads_map:
            return int(self.head.attributes)  # type: ignore[arg-type]  # an AttributeDecoder's
        return [part.out_features for part in self.head.modules() if isinstance(part, nn.Linear)][-1]

    @property
    def feature_width(self) -> int:
        """F, the number of pooled features."""
        return feature_width(self.backbone)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but parts of the backbone that are frozen stay in evaluation mode: their batch statistics
        do not follow the data, and they drop nothing.
        """
        super().train(mode)
        if mode:
            for part in self.backbone.modules():
                parameters = list(part.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    part.eval()
        return self

    def outputs(self, images: Tensor, category: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, A), those of `forward`, and pooled features (B, F) of the same pass; arguments as `forward` takes
        them.
        """
        normalised = self.normalise(images)
        if not self._reads_map:
            features: Tensor = self.backbone(normalised)
            return self._logits(features, category), features
        found = self._unpooled(normalised)
        return self.head(self._channels_first(found)), self.backbone.forward_head(found)  # type: ignore[operator]

    def feature_map(self, normalised: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) → what the backbone pools features from: (B, C, h, w), or tokens (B, N, C) of
        a transformer.
        """
        return self._channels_first(self._unpooled(normalised))

    def _unpooled(self, normalised: Tensor) -> Tensor:
        found: Tensor = self.backbone.forward_features(normalised)  # type: ignore[operator]  # a method of both kinds
        return found

    def _channels_first(self, found: Tensor) -> Tensor:
        # Swin transformers and a few others of timm's say that their maps have channels last.
        is_last = found.ndim == 4 and str(getattr(self.backbone, "output_fmt", "")).endswith("NHWC")
        return found.permute(0, 3, 1, 2) if is_last else found

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 or [0, 1] → zero mean and unit variance on the data of the backbone's weights, float32."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return (scaled - self.mean) / self.std


def build_network(
    backbone: str,
    head: Head,
    hidden: int,
    dropout: float,
    attributes: int,
    *,
    image_px: int = 224,
    categories: Sequence[str] = (),
    mean: RGB | None = None,
    std: RGB | None = None,
) -> AttributeModel:
    """Builds a network with random weights.

    Args:
        backbone: a ResNet of torchvision's, or `timm:NAME`.
        head: which kind, as in `model.head` of a configuration.
        hidden: width of the one hidden layer of the mlp and the category head; other heads ignore it.
        dropout: share of its activations dropped in training.
        attributes: number of logits.
        image_px: side of the pictures, for backbones that are built for one size.
        categories: what the category head tells apart, at least one; other heads ignore it.
        mean: (3) of RGB in [0, 1]; None: what the backbone's pretrained weights take.
        std: (3) likewise.

    Raises:
        ConfigError: timm has no such model, or it takes no pictures of that size.
    """
    network, known = bare_backbone(backbone, image_px)
    features = feature_width(network)
    channels = int(network.num_features)  # type: ignore[arg-type]  # an attribute of both kinds
    return AttributeModel(
        network,
        build_head(head, channels if head == "ml_decoder" else features, hidden, dropout, attributes, len(categories)),
        categories=categories if head == "category" else (),
        reads_map=head == "ml_decoder",
        mean=mean or known[0],
        std=std or known[1],
    )


def bare_backbone(name: str, image_px: int) -> tuple[nn.Module, tuple[RGB, RGB]]:
    """A backbone with random weights and without classifier, and the mean and standard deviation that its pretrained
    weights take.
    """
    if not name.startswith(TIMM):
        return ResNet(name), (IMAGE_MEAN, IMAGE_STD)
    from attrtrain.models import timm_backbone

    name = name.removeprefix(TIMM)
    return timm_backbone.build_timm(name, image_px), timm_backbone.normalisation(name)


def pretrained_interpolation(backbone: str) -> Interpolation:
    """How the pictures were resized that a backbone's pretrained weights were trained on; a ResNet of torchvision's or
    `timm:NAME`.
    """
    if not backbone.startswith(TIMM):
        return "bilinear"
    from attrtrain.models import timm_backbone

    return timm_backbone.resizing(backbone.removeprefix(TIMM))[1]


def feature_width(backbone: nn.Module) -> int:
    """F, the number of a backbone's pooled features. A few models of timm widen what they pool, so it need not be the
    channels of their feature map.
    """
    return int(backbone.head_hidden_size)  # type: ignore[arg-type]  # an attribute of both kinds


def build_head(
    kind: Head, features: int, hidden: int, dropout: float, attributes: int, categories: int = 0
) -> nn.Module:
    """A head from features (B, `features`), or from a feature map of so many channels (ml_decoder), to logits (B,
    `attributes`).
    """
    match kind:
        case "linear":
            return nn.Linear(features, attributes)
        case "mlp":
            return nn.Sequential(
                nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, attributes)
            )
        case "category":
            return CategoryHead(features, categories, hidden, dropout, attributes)
        case "ml_decoder":
            from attrtrain.models.decoder import AttributeDecoder

            return AttributeDecoder(features, attributes)

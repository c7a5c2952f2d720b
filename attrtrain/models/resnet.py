"""torchvision's ResNets without their classifier, in two parts: the feature map, and what is pooled from it."""

import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

# Blocks in layer1 … layer4, and whether a block is a bottleneck of three convolutions (He et al., "Deep residual
# learning", 2015, table 1).
RESNETS: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}


class ResNet(torchvision.models.ResNet):  # type: ignore[misc]  # torchvision has no types
    """A ResNet with torchvision's names of tensors, drawn as torchvision draws it, and with the methods of timm's
    models.

    Attributes:
        num_features: channels C of the feature map.
        head_hidden_size: width F of the pooled features; here C.
    """

    def __init__(self, name: str) -> None:
        blocks, bottleneck = RESNETS[name]
        super().__init__(Bottleneck if bottleneck else BasicBlock, list(blocks))
        self.num_features = self.head_hidden_size = 512 * (4 if bottleneck else 1)
        self.fc: nn.Module = nn.Identity()
        self._recomputes = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether stages keep only what goes into them and are computed again in the backward pass."""
        self._recomputes = enable

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) → the feature map (B, C, H / 32, W / 32)."""
        map_: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            map_ = checkpoint(stage, map_, use_reentrant=False) if self._recomputes and self.training else stage(map_)
        return map_

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """The mean over places: (B, C, h, w) → (B, C)."""
        pooled: Tensor = self.avgpool(feature_map).flatten(1)
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) → pooled features (B, C)."""
        return self.forward_head(self.forward_features(images))

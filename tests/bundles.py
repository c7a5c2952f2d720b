"""Small bundles whose weights were drawn, not trained: their scores mean nothing, and differ between crops."""

from pathlib import Path
from typing import Any

import torch

from attrtrain.bundle import Architecture, ModelCard, save_bundle
from attrtrain.models.network import build_network
from attrtrain.shards.manifest import CropSettings, VocabularyRecord
from attrtrain.vocabulary import AttributeVocabulary

IMAGE_PX = 32
NAMES = ("furry", "sleeping", "wet / damp", 'so-called "new"', "category", "Furry", "round")


def draw_bundle(folder: Path, names: tuple[str, ...] = NAMES, *, seed: int = 0, **fields: Any) -> Path:
    """Writes a ResNet-18 for 32 px with logits spread over about -3 to 3; `fields` are of its card."""
    torch.manual_seed(seed)
    model = build_network("resnet18", "linear", hidden=1, dropout=0.0, attributes=len(names))
    model.eval()
    with torch.no_grad():
        features = model.backbone(torch.randn(64, 3, IMAGE_PX, IMAGE_PX))
        scale = (features - features.mean(0)).norm(dim=1).mean()
        model.head.weight.copy_(3 * torch.randn(model.head.weight.shape) / scale)
        model.head.bias.copy_(-model.head.weight @ features.mean(0))
    card = {
        "architecture": Architecture(backbone="resnet18", head="linear", hidden=1, dropout=0.0),
        "vocabulary": VocabularyRecord.of(AttributeVocabulary.from_names(names)),
        "image_px": IMAGE_PX,
        "crop": CropSettings(store_px=48, quality=85, context=0.1),
        "positive_at": 0.5,
        "precision": "no",
        "channels_last": True,
        "data_fingerprint": "0" * 64,
        "metrics": {},
    }
    save_bundle(folder, model.state_dict(), ModelCard(**{**card, **fields}))
    return folder

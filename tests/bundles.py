"""Small bundles whose weights were drawn, not trained: their scores mean nothing, and differ between crops."""

from pathlib import Path
from typing import Any

import torch

from attrtrain.bundle import Architecture, ModelCard, save_bundle
from attrtrain.models.network import build_network
from attrtrain.shards.manifest import CropSettings, VocabularyRecord
from attrtrain.vocabulary import AttributeVocabulary

IMAGE_PX = 32
NAMES = ("furry", "sleeping", "metal / metallic", 'so-called "new"', "category", "Furry", "round")


def draw_bundle(
    folder: Path, names: tuple[str, ...] = NAMES, *, seed: int = 0, categories: tuple[str, ...] = (), **fields: Any
) -> Path:
    """Writes a ResNet-18 for 32 px with logits spread over about -3 to 3; `fields` are of its card. With categories its
    head reads them.
    """
    torch.manual_seed(seed)
    architecture = Architecture(
        backbone="resnet18", head="category" if categories else "linear", hidden=16, dropout=0.0, categories=categories
    )
    model = build_network(**architecture.model_dump(), attributes=len(names))
    model.eval()
    with torch.no_grad():
        features = model.backbone(torch.randn(64, 3, IMAGE_PX, IMAGE_PX))
        last = model.head
        if categories:
            last, before = model.head.layers[-1], model.head.layers[:-1]
            kinds = model.head.embedding(torch.arange(64) % (len(categories) + 1))
            features = before(torch.cat([features, kinds], dim=1))
        scale = (features - features.mean(0)).norm(dim=1).mean()
        last.weight.copy_(3 * torch.randn(last.weight.shape) / scale)
        last.bias.copy_(-last.weight @ features.mean(0))
    card = {
        "architecture": architecture,
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

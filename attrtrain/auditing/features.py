"""Frozen features of crops, for the linear probe. The only part of the audit that imports torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from attrtrain.data.decode import decode_crop
from attrtrain.device import device_type
from attrtrain.errors import ShardError
from attrtrain.launcher import prepare_cpu
from attrtrain.models.network import AttributeModel, build_network
from attrtrain.models.plain import backbone_of
from attrtrain.models.weights import load_backbone_weights, read_tensors

OBJECTS = 1200
"""Crops looked at; drawn by photograph. More would take longer and change no verdict worth changing."""
IMAGE_PX = 112
_BATCH = 32
_COMPONENTS = 64  # principal components kept: a linear model of 2,048 features would fit a thousand objects by heart
_OBJECTS_PER_COMPONENT = 4


def frozen_backbone(weights: Path) -> AttributeModel:
    """A backbone with weights of its own, to look at crops with.

    Args:
        weights: a ResNet's state dict, .safetensors or .pth.

    Raises:
        WeightsError: they cannot be read or are of no ResNet.
    """
    backbone = backbone_of(read_tensors(weights), str(weights))
    model = build_network(backbone, "linear", hidden=1, dropout=0, attributes=1)
    load_backbone_weights(model, backbone, str(weights))
    return model.eval()


def crop_features(model: AttributeModel, jpeg: Callable[[int], bytes], rows: Sequence[int]) -> NDArray[np.float64]:
    """Features (N, D) of the crops of some rows, D at most 64: the principal components of what a frozen backbone says.

    Components are found without labels, so held-out objects may take part.

    Args:
        model: of `frozen_backbone`.
        jpeg: gives a row's stored crop.
        rows: (N,).

    Raises:
        ShardError: a crop cannot be decoded.
    """
    device = torch.device(device_type())
    if device.type == "cpu":
        prepare_cpu()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    found = []
    with torch.inference_mode():
        for start in tqdm(
            range(0, len(rows), _BATCH), desc="looking at crops", unit=f"×{_BATCH}", disable=None, leave=False
        ):
            crops = torch.stack([_decoded(jpeg(row), row) for row in rows[start : start + _BATCH]])
            images = model.normalise(crops.to(device)).contiguous(memory_format=torch.channels_last)
            found.append(model.backbone(images).float().cpu().numpy())
    return principal_components(np.concatenate(found).astype(np.float64))


def principal_components(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first principal components (N, D) of features (N, F); fewer of fewer objects."""
    keep = max(1, min(_COMPONENTS, len(features) // _OBJECTS_PER_COMPONENT))
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    return np.asarray(left[:, :keep] * values[:keep])


def _decoded(jpeg: bytes, row: int) -> torch.Tensor:
    try:
        return decode_crop(jpeg, IMAGE_PX)
    except ValueError as error:
        raise ShardError(
            f"the crop in row {row} cannot be decoded ({error}); check the folder with `attrtrain verify`"
        ) from None

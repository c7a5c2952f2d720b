import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.decomposition import PCA

from attrtrain.auditing.features import crop_features, frozen_backbone, principal_components
from attrtrain.auditing.shard_table import read_shard_table
from attrtrain.data.decode import decode_crop
from attrtrain.errors import ShardError, WeightsError
from attrtrain.models.network import IMAGE_MEAN, IMAGE_STD


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A ResNet18 as torchvision saves it, classifier and all."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(torchvision.models.resnet18().state_dict(), path)
    return path


def test_components_are_scikit_learns():
    features = np.random.default_rng(0).normal(size=(40, 200)) @ np.diag(np.linspace(3, 0.1, 200))
    ours, theirs = principal_components(features), PCA(10, svd_solver="full").fit_transform(features)
    assert ours.shape == (40, 10)  # a quarter of the objects
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-8)


def test_features_are_those_of_the_frozen_backbone(weights, toy_shards):
    shards, rows = read_shard_table(toy_shards), list(range(5, 45))
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    network.fc = torch.nn.Identity()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    with torch.inference_mode():
        crops = torch.stack([decode_crop(shards.jpeg(row), 112) for row in rows])
        expected = network((crops / 255 - mean) / std).double().numpy()
    found = crop_features(frozen_backbone(weights), shards.jpeg, rows)
    np.testing.assert_allclose(
        np.abs(found), np.abs(PCA(10, svd_solver="full").fit_transform(expected)), rtol=1e-2, atol=1e-3
    )


def test_a_damaged_crop_and_odd_weights_are_one_line(weights, tmp_path):
    with pytest.raises(ShardError, match="row 3 cannot be decoded"):
        crop_features(frozen_backbone(weights), lambda row: b"no picture", [3])
    with pytest.raises(WeightsError, match="no such weights file"):
        frozen_backbone(tmp_path / "none.pth")
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not the weights of a torchvision ResNet"):
        frozen_backbone(tmp_path / "other.safetensors")

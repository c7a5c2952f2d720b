"""Backbones of timm: built by name for a size of picture, filled whole or refused, and timm's own arithmetic."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms import v2

from attrtrain.errors import ConfigError, WeightsError
from attrtrain.models.network import AttributeModel, build_network
from attrtrain.models.timm_backbone import try_out
from attrtrain.models.weights import load_backbone_weights

SIDE = 64


def network(name: str, head: str = "linear", image_px: int = SIDE) -> AttributeModel:
    torch.manual_seed(1)
    return build_network(f"timm:{name}", head, 8, 0.0, 5, image_px=image_px)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "mean"), [("test_resnet", 0.5), ("test_vit", 0.5), ("test_convnext", 0.5), ("test_efficientnet", None)]
)
def test_features_are_those_of_timm_on_pictures_normalised_as_it_normalises(
    tmp_path: Path, name: str, mean: float | None
) -> None:
    """From a file with a classifier, as timm publishes them; for a vision transformer of another size of picture
    too.
    """
    torch.manual_seed(0)
    size = {"img_size": SIDE} if "vit" in name else {}
    theirs = timm.create_model(name, num_classes=1000, **size).eval()
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours = network(name)
    told = load_backbone_weights(ours, f"timm:{name}", str(tmp_path / "theirs.safetensors"))
    assert f"of timm:{name} from {tmp_path}/theirs.safetensors" in told and "its classifier (" in told
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    cfg = theirs.pretrained_cfg
    assert mean is None or cfg["mean"] == (mean,) * 3  # so not ImageNet's
    normalised = v2.functional.normalize(images.float() / 255, cfg["mean"], cfg["std"])
    with torch.inference_mode():
        expected = theirs.forward_head(theirs.forward_features(normalised), pre_logits=True)
        logits, features = ours.eval().outputs(images)
        assert torch.allclose(features, expected, atol=1e-4)
        assert torch.equal(logits, ours(images)) and torch.allclose(logits, ours.head(features))
    assert features.shape == (2, ours.feature_width)


def test_positions_of_another_size_are_resampled_and_other_sizes_may_be_looked_at(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit", num_classes=0, img_size=160)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = network("test_vit")
    load_backbone_weights(ours, "timm:test_vit", str(tmp_path / "w.safetensors"))
    resampled = timm.layers.resample_abs_pos_embed(theirs.pos_embed, new_size=[4, 4])
    assert torch.allclose(ours.backbone.pos_embed, resampled)
    assert ours(torch.rand(1, 3, 96, 96)).shape == (1, 5)


def test_a_bundles_weights_are_a_source_too(tmp_path: Path) -> None:
    other, ours = network("test_convnext"), network("test_convnext")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    told = load_backbone_weights(ours, "timm:test_convnext", str(tmp_path / "w.safetensors"))
    assert "its classifier (head.bias, head.weight) left out" in told
    for name, tensor in ours.backbone.state_dict().items():  # among them head.norm, which is no classifier
        assert torch.equal(tensor, other.backbone.state_dict()[name]), name
    assert not torch.equal(ours.head.weight, other.head.weight)


def test_weights_that_lack_a_tensor_or_are_another_models_are_refused(tmp_path: Path) -> None:
    tensors = timm.create_model("test_resnet", num_classes=0).state_dict()
    gone = "layer3.0.conv1.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=rf"lacks 1 of \d+ tensors \(first: {gone}\), so it is no timm:test_resnet"):
        load_backbone_weights(network("test_resnet"), "timm:test_resnet", str(tmp_path / "a.safetensors"))
    save_file({**tensors, "conv1.0.weight": torch.zeros(1, 3, 3, 3)}, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="do not fit timm:test_resnet") as caught:
        load_backbone_weights(network("test_resnet"), "timm:test_resnet", str(tmp_path / "b.safetensors"))
    assert "\n" not in str(caught.value)
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "c.safetensors")
    told = load_backbone_weights(network("test_resnet"), "timm:test_resnet", str(tmp_path / "c.safetensors"))
    assert "1 unknown tensors not used (first: more)" in told


def test_without_network_the_line_names_the_file_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    with pytest.raises(WeightsError) as caught:
        load_backbone_weights(network("test_vit"), "timm:test_vit", "imagenet")
    message = str(caught.value)
    assert "\n" not in message and "Name or service not known" in message
    assert "copy model.safetensors of https://huggingface.co/timm/test_vit.r160_in1k" in message
    assert "--model.weights PATH" in message and "--model.weights none" in message


def test_imagenet_means_timms_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def give(repository: str, **_: object) -> dict[str, torch.Tensor]:
        asked.append(repository)
        return timm.create_model("test_vit").state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", give)
    told = load_backbone_weights(network("test_vit"), "timm:test_vit.r160_in1k", "imagenet")
    assert asked == ["timm/test_vit.r160_in1k"] and "timm's pretrained weights" in told


def test_a_model_without_pretrained_weights_says_so() -> None:
    with pytest.raises(WeightsError, match="timm has no pretrained weights of lcnet_035") as caught:
        load_backbone_weights(network("lcnet_035"), "timm:lcnet_035", "imagenet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("convnext_tinny", "did you mean timm:convnext_tiny"),
        ("test_vit.r160", "no such tag; there are timm:test_vit.r160_in1k"),
        ("hf-hub:timm/test_vit", "has no model 'hf-hub:timm/test_vit'"),
        ("qqqqqq", r"`timm.list_models\(\)` names those it has"),
    ],
)
def test_a_name_that_timm_does_not_know_is_one_line_with_those_it_may_mean(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        network(name)
    assert "\n" not in str(caught.value) and "model.backbone" in str(caught.value)


def test_a_size_that_the_patches_do_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"data.image_px: timm:test_vit .* 16 pixels, .* 100; take 96 or 112"):
        network("test_vit", image_px=100)


def test_a_size_that_no_layer_takes_is_refused_before_training() -> None:
    model = network("efficientformer_l1")
    with pytest.raises(ConfigError, match="timm:efficientformer_l1 cannot be trained on pictures of 64 x 64") as caught:
        try_out(model, SIDE, "timm:efficientformer_l1")
    assert "\n" not in str(caught.value)


def test_trying_out_changes_no_weight_no_statistic_and_no_generator() -> None:
    model = network("test_resnet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    try_out(model, SIDE, "timm:test_resnet")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator) and model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_torchvisions_backbones_do_without_timm() -> None:
    script = (
        "import sys\nimport attrtrain.bundle, attrtrain.models.timm_backbone, attrtrain.models.weights\nfrom attrtrain.models.network import build_network\n"
        "build_network('resnet18', 'mlp', 8, 0.0, 5)\nprint('timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr

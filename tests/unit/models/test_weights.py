"""Weights: loaded whole, or refused; what a file has too much is told; nothing is left at random in silence."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from attrtrain.errors import WeightsError
from attrtrain.models.network import build_network
from attrtrain.models.weights import load_backbone_weights, read_tensors
from attrtrain.optim import MovingAverage


@pytest.fixture(scope="module")
def resnet18() -> torchvision.models.ResNet:
    torch.manual_seed(0)
    return torchvision.models.resnet18()


def network():
    return build_network("resnet18", "linear", 8, 0.0, 5)


@pytest.mark.parametrize("kind", ["pth", "safetensors", "half", "wrapped", "tutorial", "data_parallel", "lightning"])
def test_every_backbone_tensor_comes_from_the_file(resnet18, tmp_path: Path, kind: str) -> None:
    tensors = {name: tensor.clone() for name, tensor in resnet18.state_dict().items()}
    path = tmp_path / ("w.safetensors" if kind in ("safetensors", "half") else "w.pth")
    match kind:
        case "half":
            save_file({name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}, path)
        case "safetensors":
            save_file(tensors, path)
        case "wrapped":
            torch.save({"state_dict": tensors}, path)
        case "tutorial":
            torch.save({"epoch": 3, "model_state_dict": tensors, "optimizer_state_dict": {"state": {}}}, path)
        case "data_parallel":
            torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
        case "lightning":
            torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}}, path)
        case _:
            torch.save(tensors, path)
    model = network()
    told = load_backbone_weights(model, "resnet18", str(path))
    for name, tensor in model.backbone.state_dict().items():
        assert torch.allclose(tensor.double(), tensors[name].double(), atol=1e-3 if kind == "half" else 0), name
        assert tensor.dtype in (torch.float32, torch.int64)
    assert "fc.weight" in told and "left out" in told


def test_a_file_of_other_names_is_told_by_them(resnet18, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({f"encoder_q.{name}": tensor for name, tensor in resnet18.state_dict().items()}, path)
    with pytest.raises(WeightsError, match=r"such as encoder_q\.bn1\.bias; rename them as torchvision does"):
        load_backbone_weights(network(), "resnet18", str(path))
    torch.save({"net": resnet18.state_dict(), "epoch": 3}, path)
    with pytest.raises(WeightsError, match="no state dict of tensors, but net, epoch; save"):
        read_tensors(path)


def test_an_attrtrain_bundle_is_a_source_too(tmp_path: Path) -> None:
    other = network()
    save_file(other.state_dict(), tmp_path / "weights.safetensors")
    model = network()
    load_backbone_weights(model, "resnet18", str(tmp_path / "weights.safetensors"))
    assert torch.equal(model.backbone.conv1.weight, other.backbone.conv1.weight)
    assert not torch.equal(model.head.weight, other.head.weight)


def test_a_missing_or_misshapen_tensor_is_refused_and_named(resnet18, tmp_path: Path) -> None:
    tensors = dict(resnet18.state_dict())
    torch.save(
        {name: tensor for name, tensor in tensors.items() if name != "layer3.0.conv1.weight"}, tmp_path / "a.pth"
    )
    with pytest.raises(WeightsError, match=r"lacks 1 of \d+ tensors \(first: layer3\.0\.conv1\.weight\)"):
        load_backbone_weights(network(), "resnet18", str(tmp_path / "a.pth"))
    torch.save({**tensors, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"other shapes \(first: conv1\.weight\)"):
        load_backbone_weights(network(), "resnet18", str(tmp_path / "b.pth"))
    torch.save(tensors, tmp_path / "c.pth")
    with pytest.raises(WeightsError, match="so it is no resnet50"):
        load_backbone_weights(build_network("resnet50", "linear", 8, 0.0, 5), "resnet50", str(tmp_path / "c.pth"))


def test_what_the_backbone_does_not_know_is_told(resnet18, tmp_path: Path) -> None:
    torch.save({**resnet18.state_dict(), "extra.weight": torch.zeros(1)}, tmp_path / "w.pth")
    assert "1 unknown tensors not used (first: extra.weight)" in load_backbone_weights(
        network(), "resnet18", str(tmp_path / "w.pth")
    )


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_code_in_a_weights_file_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"conv1.weight": Payload(marker)}, tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    for name in ("w.pth", "plain.pth"):
        with pytest.raises(WeightsError) as caught:
            read_tensors(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_a_download_left_in_place_of_weights_is_told(tmp_path: Path, name: str) -> None:
    for content, told in (
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS's pointer"),
        ("<html>", "a web page"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(WeightsError, match=f"{name}: {told}"):
            read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b"garbage"),
        ("w.pth", b"<!DOCTYPE html><html>moved</html>"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ("t.sh", b"#!/bin/sh\necho hello\n"),
        ("w.safetensors", b"garbage"),
        ("w.safetensors", b""),
    ],
)
def test_an_unreadable_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch advises to turn it off
    with pytest.raises(WeightsError, match="no such weights file"):
        read_tensors(tmp_path / "nowhere.pth")


def test_without_network_imagenet_says_how_to_give_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(WeightsError) as caught:
        load_backbone_weights(network(), "resnet18", "imagenet")
    assert "\n" not in str(caught.value)
    assert "--model.weights PATH" in str(caught.value) and "--model.weights none" in str(caught.value)


def test_a_variance_beyond_half_precision_is_capped_and_told(resnet18, tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in resnet18.state_dict().items()}
    tensors["bn1.running_var"][3] = 1e6
    tensors["bn1.running_var"][4] = 60_000
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, path)
    model = network()
    told = load_backbone_weights(model, "resnet18", str(path))
    assert told.endswith("; 1 of bn1.running_var beyond half precision, taken for 65,504")
    assert model.backbone.bn1.running_var[3:5].tolist() == [65504, 60000]
    average = MovingAverage(model, 0.9)
    for _ in range(3):
        average.update_parameters(model)
    assert all(tensor.isfinite().all() for tensor in average.module.state_dict().values())


@pytest.mark.parametrize(("name", "value"), [("conv1.weight", float("inf")), ("bn1.running_var", float("nan"))])
def test_what_is_no_number_is_refused(resnet18, tmp_path: Path, name: str, value: float) -> None:
    tensors = {
        key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in resnet18.state_dict().items()
    }
    tensors[name].view(-1)[0] = value
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match=f"half.safetensors: {name} holds values that are no finite numbers"):
        load_backbone_weights(network(), "resnet18", str(tmp_path / "half.safetensors"))

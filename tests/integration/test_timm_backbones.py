"""A backbone of timm's through everything that is done with a model: trained, gone on with, judged, used, described,
exported.
"""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import attrtrain
from attrtrain.bundle import read_bundle
from attrtrain.cli import main
from attrtrain.inference.predictor import Predictor
from attrtrain.shards.crop import cut
from attrtrain.shards.image_decode import load_image
from tests.small_training import train


def attrtrain_(*words: object) -> int:
    return main([str(word) for word in words])


VIT = ("--model.backbone", "timm:test_vit", "--model.head", "ml_decoder", "--train.ema", "0.9")


@pytest.fixture(scope="module")
def run(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of a tiny vision transformer under attribute queries; the second gone on with from the checkpoint of
    the first.
    """
    run = tmp_path_factory.mktemp("timm") / "run"
    for epochs in ("1", "2"):
        assert train(run, toy_shards, *VIT, "--train.epochs", epochs) == 0
    return run


def test_the_bundle_remembers_what_the_backbone_was_normalised_with(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads((run / "bundle" / "model.json").read_text())["architecture"]
    assert (told["backbone"], told["mean"], told["std"]) == ("timm:test_vit", [0.5] * 3, [0.5] * 3)
    before, _ = read_bundle(run)
    later = timm.models.get_pretrained_cfg
    monkeypatch.setattr(
        timm.models, "get_pretrained_cfg", lambda name: vars(cfg := later(name)).update(mean=(0.1, 0.1, 0.1)) or cfg
    )
    after, _ = read_bundle(run)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(before(images), after(images))


def test_crops_are_resized_as_the_pictures_were_that_its_weights_know(
    run: Path, toy_coco: Path, toy_shards: Path, tmp_path: Path
) -> None:
    photograph = sorted((toy_coco / "val2017").glob("*.jpg"))[0]
    _, card = read_bundle(run)
    assert card.framing.interpolation == timm.models.get_pretrained_cfg("test_vit").interpolation == "bicubic"
    predictor = Predictor(run, "cpu")
    stored = cut(load_image(photograph), (5, 5, 40, 40), False, card.crop)
    with Image.open(io.BytesIO(stored.jpeg)) as crop:
        resized = np.asarray(crop.resize((card.image_px, card.image_px), Image.Resampling.BICUBIC)).astype(int)
    given = predictor.crop(load_image(photograph), (5, 5, 40, 40)).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(given - resized).max() <= 1
    told = (*VIT, "--train.epochs", "1", "--data.interpolation", "bilinear")
    assert train(tmp_path / "told", toy_shards, *told) == 0
    assert read_bundle(tmp_path / "told")[1].framing.interpolation == "bilinear"


def test_judged_and_described_by_commands_it_gives_what_the_network_gives(
    run: Path, toy_shards: Path, tmp_path: Path
) -> None:
    assert attrtrain_("evaluate", "--model", run, "--shards", toy_shards, "--out", tmp_path / "judged") == 0
    own, again = (
        json.loads((place / "metrics.json").read_text()) for place in (run / "evaluation", tmp_path / "judged")
    )
    assert again["overall"] == own["overall"]
    assert (
        attrtrain_("features", "--model", run, "--shards", toy_shards, "--out", tmp_path / "f.npy", "--workers", 1) == 0
    )
    features = np.load(tmp_path / "f.npy")
    assert features.shape[1] == 64 and features.std() > 0
    assert attrtrain_("card", run, "--out", tmp_path / "README.md") == 0
    text = (tmp_path / "README.md").read_text()
    assert "test_vit of timm" in text and "- timm\n" in text and "random weights" in text


def test_predict_says_what_load_model_says(run: Path, toy_coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph = sorted((toy_coco / "val2017").glob("*.jpg"))[0]
    capsys.readouterr()
    assert attrtrain_("predict", "--model", run, photograph, "--box", "5,5,40,40", "--top", 30, "--json") == 0
    (said,) = json.loads(capsys.readouterr().out)["objects"]
    model, _ = attrtrain.load_model(run, num_attributes=30, device="cpu")
    predictor = Predictor(run, "cpu")
    with torch.inference_mode():
        scores = model(predictor.crop(load_image(photograph), (5, 5, 40, 40))[None]).sigmoid()[0]
    expected = dict(zip(predictor.names, scores.tolist(), strict=True))
    assert {one["name"]: one["score"] for one in said["attributes"]} == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("inside", [(), ("--preprocess",)], ids=["", "resizing inside"])
@pytest.mark.parametrize("kind", ["--onnx", "--torch-export"])
def test_exported_it_computes_the_same(
    run: Path, toy_shards: Path, tmp_path: Path, kind: str, inside: tuple[str, ...]
) -> None:
    out = tmp_path / ("m.onnx" if kind == "--onnx" else "m.pt2")
    assert attrtrain_("export", "--model", run, kind, out, *inside, "--check", toy_shards) == 0
    assert out.is_file()


def test_other_sizes_are_looked_at_where_patches_divide_them_and_else_refused_in_a_line(
    run: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", "--model", run, "--shards", toy_shards, "--out", tmp_path / "views", "--tta-scales")
    assert attrtrain_(*command, "1.5") == 0
    capsys.readouterr()
    assert attrtrain_(*command, "1.1") == 2
    line = capsys.readouterr().err.split("\r")[-1]  # behind what is left of a progress bar
    assert line.startswith("error: --tta-scales 1.1: ") and line.count("\n") == 1 and "35 x 35" in line


def test_a_size_that_is_refused_is_told_before_any_object_is_looked_at(
    run: Path, toy_shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attrtrain.inference.gain.evaluate", lambda *_, **__: pytest.fail("a pass for nothing"))
    command = ("evaluate", "--model", run, "--shards", toy_shards, "--tta-flip", "--tta-scales", "1.5", "1.1")
    assert attrtrain_(*command) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --tta-scales 1.1: ")


def test_weights_of_another_size_of_pictures_are_told(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), weights)
    small = ("--model.backbone", "timm:test_resnet", "--train.epochs", "1", "--model.weights", str(weights))
    line = "data.image_px: timm:test_resnet was trained on 160 px, this run has "
    assert train(tmp_path / "small", toy_shards, *small) == 0
    assert f"\n{line}32\n" in capsys.readouterr().out
    assert train(tmp_path / "own", toy_shards, *small, "--data.image_px", "160") == 0
    assert train(tmp_path / "none", toy_shards, *small, "--model.weights", "none") == 0
    assert line not in capsys.readouterr().out


def test_a_backbone_that_timm_does_not_have_ends_in_one_line(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", toy_shards, "--model.backbone", "timm:test_vitt") == 2
    line = capsys.readouterr().err
    assert line.startswith("error: model.backbone: timm ") and line.count("\n") == 1
    assert "did you mean timm:test_vit" in line


def test_gone_on_with_it_ends_with_the_weights_of_an_undisturbed_run(
    run: Path, toy_shards: Path, tmp_path: Path
) -> None:
    assert train(tmp_path / "run", toy_shards, *VIT, "--train.epochs", "2") == 0
    ends = [sorted((folder / "checkpoints").glob("step-*"))[-1] for folder in (run, tmp_path / "run")]
    for name in ("model.safetensors", "average.safetensors"):
        one, other = (load_file(end / name) for end in ends)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_scaled_sides_that_a_backbone_does_not_take_are_one_line_before_training(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", toy_shards, *VIT, "--train.epochs", "1", "--data.scales", "1.0", "1.1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: data.scales: timm:test_vit takes no pictures of 35 x 35 pixels (")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.slow
def test_a_backbone_that_has_a_layer_in_several_places_is_saved_and_gone_on_with(
    toy_shards: Path, tmp_path: Path
) -> None:
    ends = []
    for name, courses in (("whole", ["2"]), ("in_two", ["1", "2"])):
        for epochs in courses:
            assert (
                train(tmp_path / name, toy_shards, "--model.backbone", "timm:coat_tiny", "--train.epochs", epochs) == 0
            )
        ends.append(load_file(tmp_path / name / "bundle" / "weights.safetensors"))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert torch.equal(ends[0]["backbone.cpe1.proj.weight"], ends[0]["backbone.serial_blocks1.0.cpe.proj.weight"])

"""What `attrtrain predict` shows of a model."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from attrtrain.cli import main
from tests.bundles import NAMES, draw_bundle


def test_a_model_that_has_diverged_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, photograph = draw_bundle(tmp_path / "bundle"), tmp_path / "photo.png"
    Image.new("RGB", (60, 80)).save(photograph)
    weights = load_file(bundle / "weights.safetensors")
    save_file(
        {name: values.fill_(np.nan) if name == "head.bias" else values for name, values in weights.items()},
        bundle / "weights.safetensors",
    )
    for more in ([], ["--json"]):
        assert main(["predict", "--model", str(bundle), str(photograph), *more]) == 1
        told = capsys.readouterr()
        assert told.out == "" and told.err == "error: the model's output is not finite; its training has diverged\n"


def test_attributes_that_had_no_label_in_training_are_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(photograph)

    def shown(**fields: object) -> dict[str, float]:
        bundle = draw_bundle(tmp_path / "bundle", **fields)
        assert main(["predict", "--model", str(bundle), str(photograph), "--top", "4", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["objects"]
        return {attribute["name"]: attribute["score"] for attribute in found["attributes"]}

    everything = shown()
    untrained = list(everything)[1:3]
    rest = shown(untrained=untrained)
    assert len(everything) == len(rest) == 4 < len(NAMES)
    assert not rest.keys() & set(untrained)
    assert [name for name in everything if name not in untrained] == list(rest)[:2]

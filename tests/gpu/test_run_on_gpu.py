"""Whole commands on a CUDA GPU: training and going on, what is left of it in use, and beside what a CPU computes."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState

from attrtrain import checkpoint
from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from attrtrain.framing import Framing
from attrtrain.inference.crops import stored_batches
from attrtrain.inference.predictor import Predictor
from attrtrain.inference.scoring import BATCH, score_batches
from attrtrain.predictions import read_predictions
from tests.bundles import IMAGE_PX, draw_bundle
from tests.small_training import logged, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # of drivers and compilers
]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--optim.name", "sgd", "--labels.unknown", "selective", "--data.augment", "trivial"],
        ["--data.resize_on", "device", "--loss.positive_weight", "3", "--model.head", "category"],
    ],
    ids=["plain", "selective", "category"],
)
@pytest.mark.parametrize("precision", ["bf16", "fp16", "no"])
def test_a_run_goes_on_as_if_it_had_not_ended(
    toy_shards: Path, tmp_path: Path, precision: str, flags: list[str]
) -> None:
    given = ["--train.precision", precision, "--train.ema", "0.9", "--train.micro_batch", "32", *flags]
    assert train(tmp_path / "whole", toy_shards, "--train.epochs", "4", *given) == 0
    for epochs in ("2", "4"):
        assert train(tmp_path / "parts", toy_shards, "--train.epochs", epochs, *given) == 0
    whole, parts = (
        [line for line in logged(tmp_path / name) if line["kind"] == "train"] for name in ("whole", "parts")
    )
    assert all(line["gpu_memory_gib"] > 0 for line in [*whole, *parts])
    # Kernels of a GPU may sum in another order each time, so not to the bit.
    assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], rel=0.05)
    first, second = (
        checkpoint.load(checkpoint.find_latest(tmp_path / name / "checkpoints")[0]) for name in ("whole", "parts")
    )
    assert first.optimizer["scaler"].get("scale") == second.optimizer["scaler"].get("scale")
    assert bool(first.optimizer["scaler"]) == (precision == "fp16")


def test_what_training_judged_evaluate_judges_alike(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", toy_shards, "--train.epochs", "1", "--train.precision", "auto") == 0
    assert "1 x cuda" in capsys.readouterr().out
    given = ["--model", str(tmp_path / "run"), "--shards", str(toy_shards), "--out", str(tmp_path / "judged")]
    assert main(["evaluate", *given]) == 0
    told, again = (
        json.loads((folder / "metrics.json").read_text())["overall"]["map"]
        for folder in (tmp_path / "run" / "evaluation", tmp_path / "judged")
    )
    assert again == pytest.approx(told, abs=1e-3)
    found = ["find", "--out", str(tmp_path / "found.yaml"), "--steps", "20", "--from", "1e-6", "--to", "1e5", "demo"]
    small = ["--data.image_px", "32", "--model.backbone", "resnet18", "--train.global_batch", "8"]
    assert main([*found, "--data.shards", str(toy_shards), *small]) == 0


@pytest.mark.parametrize("categories", [(), ("dog", "cat")], ids=["linear", "category"])
def test_a_gpu_says_of_crops_what_a_cpu_says(toy_shards: Path, tmp_path: Path, categories: tuple[str, ...]) -> None:
    shards = ShardSet([toy_shards], "val")
    folder = draw_bundle(tmp_path / "bundle", shards.vocabulary.names, categories=categories, crop=shards.crop)
    said = {}
    for device in ("cpu", "cuda"):
        predictor = Predictor(folder, device)
        batches = stored_batches(shards, 0, BATCH, IMAGE_PX, Framing(), predictor.device, workers=2)
        scored = list(score_batches(predictor, batches, np.array(shards.categories()), together=2))
        said[device] = np.concatenate([one.logits for one in scored])
    # A GPU convolves float32 in TF32, of ten digits after the binary point.
    np.testing.assert_allclose(said["cuda"], said["cpu"], atol=0.1)
    assert np.ptp(said["cuda"], axis=0).min() > 0.5


def test_commands_tell_on_a_gpu_what_they_tell_on_a_cpu(
    toy_coco: Path,
    toy_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(tmp_path / "run", toy_shards, "--train.epochs", "2", "--train.precision", "no") == 0
    capsys.readouterr()
    photographs, instances = toy_coco / "train2017", toy_coco / "annotations" / "instances_train2017.json"

    def run(name: str, *given: object) -> str:
        assert main([name, "--model", str(tmp_path / "run"), *map(str, given)]) == 0
        return capsys.readouterr().out

    def told(out: Path) -> list[object]:
        run("evaluate", "--tta-flip", "--shards", toy_shards, "--out", out / "evaluation")
        run("annotate", "--instances", instances, "--images", photographs, "--out", out / "table.parquet")
        run("features", "--shards", toy_shards, "--out", out / "features.npy")
        names = ShardSet([toy_shards], "val").vocabulary.names
        predicted = json.loads(
            run("predict", min(photographs.glob("*.jpg")), "--box", "5,5,40,40", "--top", 99, "--json")
        )
        scores = {entry["name"]: entry["score"] for entry in predicted["objects"][0]["attributes"]}
        table = pq.read_table(out / "table.parquet")
        return [
            read_predictions(out / "evaluation" / "predictions.npz").logits,
            np.stack([table[name].to_numpy() for name in names]),
            np.load(out / "features.npy"),
            [scores[name] for name in names],
        ]

    on_gpu = told(tmp_path / "cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    for ours, expected in zip(on_gpu, told(tmp_path / "cpu"), strict=True):
        np.testing.assert_allclose(ours, expected, atol=0.02)

"""A model that reads categories, from training to use: it is told them wherever they are known, and answers without
where they are not.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from attrtrain.bundle import read_bundle
from attrtrain.cli import main
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.exporting import torch_file
from attrtrain.predictions import read_predictions

# Of torch 2.11 about memory of its own, where a test reads a file as its users do.
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

SMALL = [
    "--data.image_px",
    "32",
    "--model.backbone",
    "resnet18",
    "--model.weights",
    "none",
    "--train.global_batch",
    "32",
    "--train.precision",
    "no",
]


@pytest.fixture(scope="module")
def run(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("categories") / "run"
    flags = [
        "--run.dir",
        str(folder),
        "--data.shards",
        str(toy_shards),
        "--train.epochs",
        "1",
        "--track.wandb",
        "disabled",
    ]
    assert main(["train", "demo", *SMALL, "--model.head", "category", "--model.hidden", "16", *flags]) == 0
    return folder


def test_every_use_tells_it_what_is_known(run: Path, toy_shards: Path, toy_coco: Path, tmp_path: Path) -> None:
    model, card = read_bundle(run)
    training, val = (ShardSet([str(toy_shards)], split) for split in ("train", "val"))
    assert list(model.categories) == card.architecture.categories == sorted(set(training.categories()))
    kept = read_predictions(run / "evaluation" / "predictions.npz")
    index = np.arange(40)
    images = CropDataset(val, 32)[BatchRequest(0, index, index)].image
    with torch.inference_mode():
        told = model(images, model.codes([val.categories()[row] for row in index])).numpy()
        blind = model(images).numpy()
    np.testing.assert_allclose(kept.logits[:40], told, rtol=1e-3, atol=1e-3)
    assert np.abs(told - blind).max() > 0.05

    out = tmp_path / "evaluation"
    assert main(["evaluate", "--model", str(run), "--shards", str(toy_shards), "--out", str(out)]) == 0
    np.testing.assert_allclose(read_predictions(out / "predictions.npz").logits, kept.logits, atol=1e-5)

    annotated = tmp_path / "preds.parquet"
    instances = toy_coco / "annotations" / "instances_val2017.json"
    common = ["annotate", "--model", str(run), "--images", str(toy_coco / "val2017"), "--out", str(annotated)]
    assert main([*common, "--instances", str(instances)]) == 0
    rows = {row["object_id"]: row for row in pq.read_table(annotated).to_pylist()}
    name = val.vocabulary.names[0]
    scores = 1 / (1 + np.exp(-kept.logits[:, 0]))
    by_id = {object_id: scores[row] for row, object_id in enumerate(val.object_ids.tolist())}
    both = sorted(set(rows) & set(by_id))
    assert len(both) > 20
    np.testing.assert_allclose([rows[one][name] for one in both], [by_id[one] for one in both], atol=2e-3)


def test_predict_is_told_by_a_flag_and_answers_without(
    run: Path, toy_coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(next((toy_coco / "val2017").glob("*.jpg")))
    category = read_bundle(run)[1].architecture.categories[0]

    def predicted(*words: str) -> dict[str, float]:
        assert main(["predict", "--model", str(run), picture, "--json", "--top", "99", *words]) == 0
        (found,) = json.loads(capsys.readouterr().out)["objects"]
        return {attribute["name"]: attribute["score"] for attribute in found["attributes"]}

    assert predicted() != predicted("--category", category)
    assert main(["predict", "--model", str(run), picture, "--category", "unicorn"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --category unicorn: the model was trained on ") and category in told


@pytest.fixture(scope="module")
def exported(run: Path, toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of each kind."""
    folder = tmp_path_factory.mktemp("exported")
    files = {}
    for name, words in {
        "plain.onnx": ["--check", str(toy_shards)],
        "any_size.onnx": ["--preprocess"],
        "plain.pt2": ["--check", str(toy_shards)],
        "any_size.pt2": ["--preprocess"],
    }.items():
        files[name] = folder / name
        kind = "--onnx" if name.endswith("onnx") else "--torch-export"
        assert main(["export", "--model", str(run), kind, str(files[name]), *words]) == 0
    return files


@pytest.mark.parametrize("name", ["plain.onnx", "any_size.onnx", "plain.pt2", "any_size.pt2"])
def test_an_exported_file_is_told_codes_that_it_lists_itself(run: Path, exported: dict[str, Path], name: str) -> None:
    model, card = read_bundle(run)
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if name.endswith("onnx"):
        session = onnxruntime.InferenceSession(str(exported[name]))
        text = session.get_modelmeta().custom_metadata_map["attrtrain"]
        kinds = {one.name: (one.type, one.shape) for one in session.get_inputs()}
        assert list(kinds) == ["images", "category"] and kinds["category"] == ("tensor(int64)", ["batch"])
    else:
        extra = {"attrtrain.json": ""}
        program = torch.export.load(exported[name], extra_files=extra)
        text = extra["attrtrain.json"]
    record = json.loads(text)
    assert record["categories"] == card.architecture.categories and record["no_category"] == 0
    assert "int64 (batch,); 0 for an object whose category is not known" in record["category_input"]
    places = {name: place for place, name in enumerate(record["categories"], 1)}
    names = [["", "unicorn", *record["categories"], *record["categories"]][row % 9] for row in range(7)]
    codes = torch.tensor([places.get(name, record["no_category"]) for name in names])
    with torch.inference_mode():
        expected, blind = model(images, model.codes(names)).numpy(), model(images).numpy()
        if name.endswith("onnx"):
            found = session.run(["logits"], {"images": images.numpy(), "category": codes.numpy()})[0]
        else:
            found = program.module()(images, codes)[0].numpy()
    assert np.abs(expected - blind)[2:].max() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_quantised_file_is_calibrated_and_judged_on_what_the_crops_are(
    run: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    words = ["--int8", "--calibrate", str(toy_shards)]
    assert main(["export", "--model", str(run), "--onnx", str(out), *words]) == 0
    told = capsys.readouterr().out
    assert "inputs images and category" in told and "category: a second input, codes of " in told
    kept = json.loads((run / "evaluation" / "metrics.json").read_text())["overall"]["map"]
    (judged,) = [float(line.split("mAP ")[1].split()[0]) for line in told.splitlines() if line.startswith("float32")]
    assert judged == pytest.approx(kept, abs=2e-3)
    session = onnxruntime.InferenceSession(str(out))
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8).numpy()
    blind, seen = (session.run(["logits"], {"images": images, "category": np.array([code] * 3)})[0] for code in (0, 1))
    assert np.abs(blind - seen).max() > 0.01


def test_a_check_sees_a_file_whose_codes_are_off_by_one(
    run: Path, toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truly = torch_file.loaded

    def shifted(content: bytes) -> Callable[..., torch.Tensor]:
        logits = truly(content)
        return lambda images, category: logits(images, (category - 1).clamp(min=0))

    monkeypatch.setattr(torch_file, "loaded", shifted)
    out = tmp_path / "model.pt2"
    assert main(["export", "--model", str(run), "--torch-export", str(out), "--check", str(toy_shards)]) == 1
    assert "logits differ from PyTorch's by" in capsys.readouterr().err and not out.exists()


def test_data_without_categories_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], toy_coco: Path) -> None:
    pictures = sorted((toy_coco / "train2017").glob("*.jpg"))[:8]
    rows = [
        f"{pictures[n % 8].name},{'val' if n % 8 > 5 else 'train'},{n // 8},{n % 8},40,40,{n % 2}" for n in range(32)
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(["file_name,split,x,y,w,h,odd", *rows]) + "\n")
    shards = tmp_path / "shards"
    given = ["shard", "--labels", tmp_path / "boxes.csv", "--images", toy_coco / "train2017", "--out", shards]
    assert main([*map(str, given), "--workers", "1"]) == 0
    flags = ["--run.dir", str(tmp_path / "run"), "--data.shards", str(shards), "--model.head", "category"]
    capsys.readouterr()
    assert main(["train", "demo", *SMALL, *flags, "--train.global_batch", "8"]) == 2
    assert "model.head: category reads the objects' categories, and these have none" in capsys.readouterr().err

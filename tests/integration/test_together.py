"""Models that answer together, through the commands people type."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, logit

from attrtrain.annotations import read_labels
from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from attrtrain.predictions import read_predictions
from attrtrain.shards.manifest import VocabularyRecord
from tests.bundles import draw_bundle
from tools.reference_report import write_csv


@pytest.fixture(scope="module")
def models(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    shards, folder = ShardSet([toy_shards], "val"), tmp_path_factory.mktemp("models")
    fields = {"crop": shards.crop, "vocabulary": VocabularyRecord.of(shards.vocabulary)}
    return [str(draw_bundle(folder / str(seed), shards.vocabulary.names, seed=seed, **fields)) for seed in (1, 2)]


def evaluated(capsys: pytest.CaptureFixture[str], shards: Path, out: Path, *flags: str) -> tuple[list[str], Path]:
    capsys.readouterr()
    assert main(["evaluate", *flags, "--shards", str(shards), "--out", str(out)]) == 0
    return capsys.readouterr().out.splitlines(), out


def overall_map(out: Path) -> float:
    return json.loads((out / "metrics.json").read_text())["overall"]["map"]


def test_evaluate_averages_logits_and_tells_gain_beside_cost(
    models: list[str], toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = [
        evaluated(capsys, toy_shards, tmp_path / str(number), "--model", model) for number, model in enumerate(models)
    ]
    assert not any("pass" in line for lines, _ in single for line in lines)
    flags = [word for model in models for word in ("--model", model)]
    lines, out = evaluated(capsys, toy_shards, tmp_path / "both", *flags)
    logits = [read_predictions(folder / "predictions.npz").logits for folder in (tmp_path / "0", tmp_path / "1", out)]
    assert np.abs(logits[0] - logits[1]).max() > 0.5
    np.testing.assert_allclose(logits[2], (logits[0] + logits[1]) / 2, atol=1e-4)
    head, *rows = lines[1:4] + [line for line in lines[4:] if "pass" in line]
    assert head.split("  ")[-1] == "cost" and len(rows) == 3
    maps = [overall_map(folder) for folder in (tmp_path / "0", tmp_path / "1", out)]
    for row, name, value in zip(rows, [*models, "all 2 models"], maps, strict=True):
        assert row.startswith(f"{name} ") and f" {value:.4f} " in row
    assert "1 pass, " in rows[0] and "2 passes, " in rows[2]
    assert f" {maps[1] - maps[0]:+.4f} [" in rows[1] and f" {maps[2] - maps[0]:+.4f} [" in rows[2]
    assert json.loads((out / "metrics.json").read_text())["source"]["model"] == " + ".join(models)


def test_the_protocol_says_that_several_models_and_views_answered(
    models: list[str], toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--protocol", "coco-attributes", "--tta-flip", *(word for model in models for word in ("--model", model))]
    lines, _ = evaluated(capsys, toy_shards, tmp_path / "out", *flags)
    assert "  - 2 models answer together, not one" in lines
    assert "  - 2 views of each crop are averaged; the protocol takes one" in lines


def test_folders_are_judged_in_any_order_and_none_twice(
    models: list[str], toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_labels([toy_coco / "cocottributes.pkl"], sorted((toy_coco / "annotations").glob("instances_*.json")))[
        0
    ]
    folders = {}
    for split in ("train", "val"):
        own = table.take(np.flatnonzero((table.split == split) & ~table.crowd))
        write_csv(tmp_path / f"{split}.csv", own, own.vocabulary.names, own.labels)
        folders[split] = tmp_path / split
        given = ["--labels", tmp_path / f"{split}.csv", "--images", toy_coco / "train2017", toy_coco / "val2017"]
        assert main(["shard", *map(str, given), "--out", str(folders[split]), "--workers", "1"]) == 0
    shards = ShardSet([folders["val"]], "val")
    bundle = draw_bundle(
        tmp_path / "b", shards.vocabulary.names, crop=shards.crop, vocabulary=VocabularyRecord.of(shards.vocabulary)
    )
    found = []
    for order in (("train", "val"), ("val", "train")):
        words = [
            "evaluate",
            "--model",
            bundle,
            "--out",
            tmp_path / "out",
            "--shards",
            *(folders[name] for name in order),
        ]
        assert main([str(word) for word in words]) == 0
        found.append(json.loads((tmp_path / "out" / "metrics.json").read_text()))
    assert found[0]["category_from"] == found[1]["category_from"] == "training split"
    assert found[0]["overall"] == found[1]["overall"]
    twice = f"{folders['val'].parent}/./val"
    assert main(["evaluate", "--model", str(bundle), "--shards", str(folders["val"]), twice]) != 0
    assert "is given twice: " in capsys.readouterr().err


def test_an_out_that_cannot_be_is_told_before_the_work(
    models: list[str],
    toy_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("attrtrain.inference.gain.run_passes", lambda *_: pytest.fail("it worked first"))
    words = ["evaluate", "--model", models[0], "--shards", str(toy_shards), "--out", str(tmp_path / "file" / "out")]
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: --out {tmp_path / 'file'}: Not a directory\n"


def test_every_kind_of_view_is_judged_by_itself(
    models: list[str], toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = models
    flags = ("--model", first, "--model", second, "--tta-flip", "--tta-scales", "0.75", "1.25")
    lines, _ = evaluated(capsys, toy_shards, tmp_path / "all", *flags)
    told = [line.split("  ")[0] for line in lines if "pass" in line]
    expected = [first, second, f"{first}, mirrored too", f"{first}, in 3 sizes", f"{first}, all 6 views"]
    assert told == [*expected, "all 2 models", "all 2 models, all 6 views"]
    assert "12 passes" in lines[-2]


def test_annotate_gives_objects_what_evaluate_gives_them(
    models: list[str], toy_coco: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", models[0], "--model", models[1], "--tta-flip", "--tta-scales", "1.25"]
    _, out = evaluated(capsys, toy_shards, tmp_path / "all", *flags)
    expected = read_predictions(out / "predictions.npz")
    preds = tmp_path / "preds.parquet"
    given = [
        word for split in ("train", "val") for word in (str(toy_coco / "annotations" / f"instances_{split}2017.json"),)
    ]
    images = [str(toy_coco / f"{split}2017") for split in ("train", "val")]
    arguments = ["annotate", "--instances", *given, "--images", *images, "--out", str(preds)]
    assert main([*arguments, *flags]) == 0
    table = pq.read_table(preds)
    place = {object_id: row for row, object_id in enumerate(table.column("object_id").to_pylist())}
    rows = [place[object_id] for object_id in expected.object_id.tolist()]
    scores = np.stack([table.column(name).to_numpy()[rows] for name in expected.names], axis=1)
    np.testing.assert_allclose(scores, expit(expected.logits), atol=1e-5)
    capsys.readouterr()
    assert main([*arguments, "--model", models[0]]) == 1  # not what the file is of
    assert capsys.readouterr().err.count("error:") == 1


def test_a_photograph_is_told_by_both(models: list[str], toy_coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(min((toy_coco / "val2017").glob("*.jpg")))

    def scores(*flags: str) -> dict[str, float]:
        assert main(["predict", *flags, picture, "--json", "--top", "100"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["objects"]
        return {entry["name"]: entry["score"] for entry in found["attributes"]}

    one, other = (scores("--model", model) for model in models)
    both = scores("--model", models[0], "--model", models[1])
    told = [name for name in both if all(0.01 < each[name] < 0.99 for each in (one, other))]  # digits enough to compare
    assert len(told) > 3
    odds = np.mean([logit([each[name] for name in told]) for each in (one, other)], axis=0)
    np.testing.assert_allclose([both[name] for name in told], expit(odds), atol=1e-4)


@pytest.mark.parametrize("scale", ["0", "nan", "9"])
def test_a_scale_out_of_range_is_one_line(
    models: list[str], toy_shards: Path, scale: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["evaluate", "--model", models[0], "--shards", str(toy_shards), "--tta-scales", scale]
    assert main(given) == 2
    assert capsys.readouterr().err == f"error: --tta-scales {float(scale):g}: must be from 0.25 to 4\n"


def test_a_model_that_tells_sides_and_not_how_it_was_trained_is_noted_where_crops_are_mirrored(
    toy_coco: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = ShardSet([toy_shards], "val")
    names = ("left eye", "right eye", *shards.vocabulary.names[2:])
    old = str(draw_bundle(tmp_path / "old", names))
    newer = str(draw_bundle(tmp_path / "newer", names, seed=1, mirrored="kept"))
    images = toy_coco / "val2017"
    instances = toy_coco / "annotations" / "instances_val2017.json"
    told = f"note: {old}: its bundle is of a version that did not say how it was trained on mirrored crops"
    models = ["--model", old, "--model", newer]
    for number, words in enumerate(
        (
            ["predict", str(min(images.glob("*.jpg")))],
            ["annotate", "--instances", str(instances), "--images", str(images), "--out", str(tmp_path / "p.parquet")],
        )
    ):
        assert main([*words, *models, "--tta-flip"]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "mirrored crops" in line]
        assert len(lines) == 1 and lines[0].startswith(told), number
    assert main(["predict", str(min(images.glob("*.jpg"))), *models]) == 0
    assert "mirrored" not in capsys.readouterr().err


def test_a_model_of_a_gpu_without_bf16_is_judged_on_a_cpu(toy_shards: Path, tmp_path: Path) -> None:
    shards = ShardSet([toy_shards], "val")
    given = {"crop": shards.crop, "vocabulary": VocabularyRecord.of(shards.vocabulary)}
    bundle = draw_bundle(tmp_path / "b", shards.vocabulary.names, precision="fp16", **given)
    assert main(["evaluate", "--model", str(bundle), "--shards", str(toy_shards)]) == 0

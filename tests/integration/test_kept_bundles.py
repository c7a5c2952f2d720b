"""Models of a run's newest epochs, kept to answer together."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attrtrain.bundle import read_card
from attrtrain.cli import main
from attrtrain.predictions import read_predictions
from tests.small_training import logged, train

KEPT = ("--train.ema", "0.9", "--checkpoint.keep_bundles", "2", "--checkpoint.keep_last", "3")


@pytest.fixture(scope="module")
def run(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "run"
    assert train(folder, toy_shards, *KEPT, "--train.epochs", "3") == 0
    return folder


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "bundles").iterdir())


def test_each_is_the_average_of_its_epoch_with_the_scores_of_its_epoch(run: Path) -> None:
    assert names(run) == ["epoch-002", "epoch-003"]
    checkpoints = sorted((run / "checkpoints").glob("step-*"))[-2:]
    of_epoch = {line["epoch"]: line["map"] for line in logged(run) if line["kind"] == "val"}
    for epoch, checkpoint in zip((2, 3), checkpoints, strict=True):
        folder = run / "bundles" / f"epoch-{epoch:03d}"
        average = load_file(checkpoint / "average.safetensors")
        for name, tensor in load_file(folder / "weights.safetensors").items():
            assert torch.equal(tensor, average[f"module.{name}"])
        card = json.loads((folder / "model.json").read_text())
        assert card["metrics"]["val.map"] == of_epoch[epoch] and card["thresholds"]


def test_they_answer_together_with_the_mean_of_their_logits(
    run: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [str(run / "bundles" / name) for name in names(run)]

    def logits(*given: str) -> np.ndarray:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        flags = [flag for model in given for flag in ("--model", model)]
        assert main(["evaluate", *flags, "--shards", str(toy_shards), "--out", str(out)]) == 0
        return read_predictions(out / "predictions.npz").logits

    both = logits(*models)
    assert "all 2 models" in capsys.readouterr().out
    mean = (logits(models[0]) + logits(models[1])) / 2
    np.testing.assert_allclose(both, mean, atol=1e-5)
    assert np.abs(mean - logits(models[0])).max() > 1e-3


def test_a_run_taken_up_from_an_older_epoch_keeps_none_of_the_later_ones(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", toy_shards, *KEPT, "--train.epochs", "3") == 0
    first = sorted((tmp_path / "run/checkpoints").glob("step-*"))[0]
    assert train(tmp_path / "run", toy_shards, *KEPT, "--train.epochs", "2", "--checkpoint.resume", str(first)) == 0
    assert "going on from" in capsys.readouterr().out
    assert names(tmp_path / "run") == ["epoch-002"]


def test_what_was_kept_stays_where_no_more_are_kept(toy_shards: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", toy_shards, *KEPT, "--train.epochs", "1") == 0
    more = ("--train.ema", "0.9", "--train.epochs", "2")
    assert train(tmp_path / "run", toy_shards, *more) == 0
    assert names(tmp_path / "run") == ["epoch-001"]


def test_a_bundle_names_as_untrained_what_no_training_object_has_a_label_of(toy_coco: Path, tmp_path: Path) -> None:
    rows = ["file_name,split,x,y,w,h,in both,in train,in val,nowhere"]
    for number, photograph in enumerate(sorted((toy_coco / "train2017").glob("*.jpg"))[:20]):
        value, judges = number // 2 % 2, number % 4 == 0
        labels = f"{value},,{value}," if judges else f"{value},{value},,"
        rows.append(f"{photograph.name},{'val' if judges else 'train'},5,5,40,40,{labels}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    given = ["--labels", tmp_path / "boxes.csv", "--images", toy_coco / "train2017", "--out", tmp_path / "shards"]
    assert main(["shard", *map(str, given), "--workers", "1"]) == 0
    few = ("--train.epochs", "1", "--train.global_batch", "8")
    assert train(tmp_path / "run", tmp_path / "shards", *few) == 0
    assert read_card(tmp_path / "run" / "bundle").untrained == ["in val", "nowhere"]

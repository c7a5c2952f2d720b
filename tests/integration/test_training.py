"""The main job, end to end, through the commands people type: train, evaluate, predict, go on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, f1_score

import attrtrain
from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from attrtrain.engine.judging import decision_thresholds
from attrtrain.errors import WeightsError
from attrtrain.predictions import Predictions, read_predictions
from tests import small_training
from tools.soak_resume import metrics

SMALL = [
    "--data.image_px",
    "32",
    "--model.backbone",
    "resnet18",
    "--model.weights",
    "none",
    "--train.global_batch",
    "16",
    "--track.wandb",
    "disabled",
    "--track.every_steps",
    "2",
]


def train_command(run: Path, shards: Path, *flags: str) -> list[str]:
    return small_training.train_command(run, shards, *SMALL, *flags)


def train(run: Path, shards: Path, *flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        train_command(run, shards, *flags), capture_output=True, text=True, env={**os.environ, **(env or {})}
    )


@pytest.fixture(scope="session")
def trained(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs with a moving average."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    result = train(run, toy_shards, "--train.epochs", "3", "--model.head", "mlp", "--train.ema", "0.9")
    assert result.returncode == 0, result.stderr
    (run / "printed.txt").write_text(result.stdout)
    return run


def test_a_run_directory_is_complete(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert set(result) == {"best_epoch", "val", "seconds"}
    assert set(result["val"]) == {"map", "map_interval", "prior_map", "objects"}
    low, high = result["val"]["map_interval"]
    assert low < result["val"]["map"] < high
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "report.html",
        "audit.json",
        "evaluation/metrics.json",
        "evaluation/predictions.npz",
        "bundle/model.json",
        "bundle/weights.safetensors",
        "checkpoints/latest",
    ):
        assert (trained / name).is_file(), name
    assert not list(trained.rglob("*.partial"))
    best = [line for line in metrics(trained) if line["kind"] == "val" and line["epoch"] == result["best_epoch"]]
    assert result["val"]["map"] == pytest.approx(best[0]["map"], abs=1e-9)
    assert result["val"]["map"] == max(line["map"] for line in metrics(trained) if line["kind"] == "val")


def test_every_epoch_prints_map_beside_its_prior(trained: Path) -> None:
    lines = [line for line in (trained / "printed.txt").read_text().splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3 and all("val mAP" in line and "beside a prior of" in line for line in lines)


def test_evaluate_gives_the_same_numbers_as_training(
    trained: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((trained / "result.json").read_text())
    for number, model in enumerate((trained, trained / "bundle")):
        out = tmp_path / str(number)
        assert main(["evaluate", "--model", str(model), "--shards", str(toy_shards), "--out", str(out)]) == 0
        found = json.loads((out / "metrics.json").read_text())
        assert found["overall"]["map"] == result["val"]["map"]
        assert found["overall"]["prior_map"] == result["val"]["prior_map"]
        assert found["objects"] == result["val"]["objects"]
        assert f"{result['val']['map']:.4f}" in capsys.readouterr().out
        kept = json.loads((trained / "evaluation" / "metrics.json").read_text())
        assert {**found, "source": None} == {**kept, "source": None}
    judged = [entry for entry in found["attributes"] if entry["judged"]]
    assert np.mean([entry["ap"] for entry in judged]) == pytest.approx(result["val"]["map"])


def test_evaluate_by_the_protocol_tunes_elsewhere_and_says_what_differs(
    trained: Path, toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, annotations = tmp_path / "shards", sorted((toy_coco / "annotations").glob("*.json"))
    given = ["--labels", toy_coco / "cocottributes.pkl", "--instances", *annotations, "--out", shards]
    images = ["--images", toy_coco / "train2017", toy_coco / "val2017"]
    sharding = ["shard", *given, *images, "--split", "official", "--dev-share", "0.1", "--workers", "1"]
    assert main([*map(str, sharding)]) == 0
    capsys.readouterr()
    common = ["evaluate", "--model", str(trained), "--shards", str(shards)]
    assert main([*common, "--protocol", "coco-attributes", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("protocol coco-attributes v1, except"))
    told = "\n".join(lines[start:])
    assert "  - the attributes are not the 204 published ones" in told and "not the published pickle" in told
    assert "the epoch was chosen on split 'val', not 'dev'; train with --data.val_split dev" in told
    assert "the split is not" not in told and "thresholds" not in told and "crops" not in told
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["source"]["protocol"] == "\n".join(
        line for line in lines[start:] if line.startswith(("protocol", "  - "))
    )
    assert found["tuned_on"] == "thresholds tuned on split 'dev'" and found["bootstrap"]["replicates"] == 1000
    assert set(found["views"]) == {"masked", "exhaustive", "legacy"}
    assert main([*common, "--protocol", "coco-attributes", "--split", "dev", "--out", str(tmp_path / "dev")]) == 0
    told = capsys.readouterr().out
    assert "split 'dev' is judged, not 'val'" in told and "cross-fitted on the judged split, not tuned on 'dev'" in told
    assert json.loads((tmp_path / "dev" / "metrics.json").read_text())["tuned_on"].startswith("cross-fitted")
    assert main([*common, "--tune-on", "val"]) == 2
    assert "thresholds are tuned on another" in capsys.readouterr().err


def test_the_report_shows_every_attribute_and_needs_no_network(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    names = json.loads((trained / "bundle" / "model.json").read_text())["vocabulary"]["names"]
    assert all(name in page for name in names)
    assert "<script src" not in page and "<link" not in page and "@import" not in page
    assert page.count("data:image/webp;base64,") >= 20
    assert "label audit" in page and "learnable" in page


def test_a_val_split_too_small_to_be_judged_is_said_and_ends_in_a_usable_run(toy_coco: Path, tmp_path: Path) -> None:
    photographs = sorted((toy_coco / "train2017").glob("*.jpg"))[:12]
    rows = [f"{path.name},{'val' if n < 3 else 'train'},0,0,60,60,{n % 2}" for n, path in enumerate(photographs)]
    (tmp_path / "few.csv").write_text("\n".join(["file_name,split,x,y,w,h,round", *rows]) + "\n")
    shards, run = tmp_path / "shards", tmp_path / "run"
    sharding = ["shard", "--labels", tmp_path / "few.csv", "--images", toy_coco / "train2017", "--out", shards]
    assert main([*map(str, sharding), "--workers", "1"]) == 0
    result = train(run, shards, "--train.epochs", "2", "--train.global_batch", "4")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("val has too few known labels for a mAP") == 2
    assert "no attribute has 5 known positives and 5 known negatives among 3 objects" in result.stdout
    assert json.loads((run / "result.json").read_text())["val"]["map"] is None
    assert main(["predict", "--model", str(run), str(photographs[0])]) == 0


def test_labels_that_look_like_noise_are_told_and_refused_only_on_demand(toy_coco: Path, tmp_path: Path) -> None:
    photographs = sorted((toy_coco / "train2017").glob("*.jpg"))[:24]
    coins = np.random.default_rng(0).integers(0, 2, (240, 60))
    rows = [f"{photographs[n % 24].name},{n % 60},{n % 50},40,40,{','.join(map(str, coins[n]))}" for n in range(240)]
    header = "file_name,x,y,w,h," + ",".join(f"coin{n}" for n in range(60))
    (tmp_path / "coins.csv").write_text("\n".join([header, *rows]) + "\n")
    shards = tmp_path / "shards"
    sharding = ["shard", "--labels", tmp_path / "coins.csv", "--images", toy_coco / "train2017", "--out", shards]
    assert main([*map(str, sharding), "--workers", "1"]) == 0
    result = train(tmp_path / "strict", shards, "--audit.strict", "true")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: audit.strict: audit: labels look like NOISE")
    assert not (tmp_path / "strict" / "metrics.jsonl").exists()
    result = train(tmp_path / "told", shards, "--train.epochs", "1")
    assert result.returncode == 0, result.stderr
    assert sum(line.startswith("audit: labels look like NOISE") for line in result.stdout.splitlines()) == 1
    assert json.loads((tmp_path / "told" / "audit.json").read_text())["verdict"] == "noise"


def test_the_bundle_carries_the_thresholds_of_its_own_evaluation(trained: Path, toy_shards: Path) -> None:
    card = json.loads((trained / "bundle" / "model.json").read_text())
    assert card["mirrored"] == "kept"  # what the default does
    predictions = read_predictions(trained / "evaluation" / "predictions.npz")
    assert card["thresholds"] == decision_thresholds(predictions, ShardSet([toy_shards], "train"), card["positive_at"])
    assert any(value not in (None, 1.0) for value in card["thresholds"])


def test_predict_agrees_with_the_model_in_python(
    trained: Path, toy_coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = sorted((toy_coco / "val2017").glob("*.jpg"))[0]
    command = [
        "predict",
        "--model",
        str(trained),
        str(photograph),
        "--box",
        "20,10,60,50",
        "--box",
        "1,2,30,40",
        "--top",
        "3",
    ]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [found["box"] for found in told["objects"]] == [[20, 10, 60, 50], [1, 2, 30, 40]]
    scores = [attribute["score"] for attribute in told["objects"][0]["attributes"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
    assert main(command) == 0
    assert told["objects"][0]["attributes"][0]["name"] in capsys.readouterr().out
    assert main(["predict", "--model", str(trained), str(photograph), "--json"]) == 0  # the whole picture
    assert len(json.loads(capsys.readouterr().out)["objects"][0]["attributes"]) == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.jpg"], "no such picture"),
        (["{photo}", "--box", "1,2,3"], "four numbers"),
        (["{photo}", "--box", "1,2,0,5"], "above 0"),
        (["{photo}", "--box", "9000,9000,5,5"], "outside the picture"),
        (["{photo}", "--top", "0"], "at least 1"),
        (["{text}"], "notes.jpg"),
    ],
)
def test_predict_tells_a_mistake_in_one_line(
    trained: Path, toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    names = {"photo": str(sorted((toy_coco / "val2017").glob("*.jpg"))[0]), "text": str(tmp_path / "notes.jpg")}
    code = main(["predict", "--model", str(trained), *(word.format(**names) for word in arguments)])
    error = capsys.readouterr().err
    assert code != 0 and error.count("\n") == 1 and error.startswith("error: ") and told in error


def test_load_model_takes_a_run_a_bundle_or_a_state_dict(trained: Path, tmp_path: Path) -> None:
    attributes = len(json.loads((trained / "bundle" / "model.json").read_text())["vocabulary"]["names"])
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tensors = load_file(trained / "bundle" / "weights.safetensors")
    torch.save(tensors, tmp_path / "plain.pth")
    outputs = []
    for path in (trained, trained / "bundle", trained / "bundle" / "weights.safetensors", tmp_path / "plain.pth"):
        model, device = attrtrain.load_model(path, num_attributes=attributes)
        assert not model.training
        with torch.inference_mode():
            outputs.append(model(images.to(device)).cpu())
    assert outputs[0].shape == (2, attributes)
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    with pytest.raises(WeightsError, match=f"{attributes} attributes, not 204"):
        attrtrain.load_model(trained, num_attributes=204)
    with pytest.raises(WeightsError, match="no bundle here"):
        attrtrain.load_model(tmp_path)


def test_a_finished_run_is_not_trained_again(trained: Path, toy_shards: Path) -> None:
    before = (trained / "metrics.jsonl").read_bytes(), load_file(trained / "bundle" / "weights.safetensors")
    result = train(trained, toy_shards, "--train.epochs", "3", "--model.head", "mlp", "--train.ema", "0.9")
    assert result.returncode == 0, result.stderr
    assert (trained / "metrics.jsonl").read_bytes() == before[0]
    assert "epoch 1/3" not in result.stdout


@pytest.mark.slow
def test_killed_after_an_epoch_and_started_again_it_ends_with_the_same_weights_and_metrics(
    toy_shards: Path, tmp_path: Path
) -> None:
    flags = ("--train.epochs", "3", "--model.head", "mlp", "--train.ema", "0.9", "--model.dropout", "0.3")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(whole, toy_shards, *flags).returncode == 0
    process = subprocess.Popen(
        train_command(killed, toy_shards, *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (killed / "checkpoints" / "latest").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "result.json").exists()
    (killed / "evaluation").mkdir()
    for name in (".result.json.0123.partial", "evaluation/.predictions.npz.0123.partial"):
        (killed / name).touch()  # as a kill in the middle of writing leaves them
    result = train(killed, toy_shards, *flags)
    assert not list(killed.rglob("*.partial"))
    assert result.returncode == 0, result.stderr
    assert "going on from" in result.stdout
    assert metrics(killed) == metrics(whole)
    for name in ("model.safetensors", "average.safetensors"):
        one, other = (load_file(sorted((run / "checkpoints").glob("step-*"))[-1] / name) for run in (whole, killed))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_a_run_directory_of_another_run_is_refused_with_what_differs(trained: Path, toy_shards: Path) -> None:
    result = train(trained, toy_shards, "--train.epochs", "3", "--train.global_batch", "8", "--train.ema", "0.9")
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert "train.global_batch: 16 → 8" in result.stderr and "model" in result.stderr
    result = train(trained, toy_shards, "--checkpoint.resume", "never")
    assert result.returncode == 1 and "resume is never" in result.stderr


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--data.shards", "/nowhere"], "/nowhere: no such shard folder"),
        (["--data.val_split", "test"], "no sample in split 'test'"),
        (["--model.weights", "/nowhere.pth"], "no such weights file"),
        (["--train.global_batch", "100000"], "train.global_batch"),
        (["--train.micro_batch", "5"], "train.micro_batch"),
        (["--train.precision", "fp16"], "fp16 needs a GPU"),
    ],
)
def test_training_tells_a_mistake_in_one_line(toy_shards: Path, tmp_path: Path, flags: list[str], told: str) -> None:
    result = train(tmp_path / "run", toy_shards, *flags, env={"ACCELERATE_USE_CPU": "true"})
    assert result.returncode in (1, 2)
    assert told in result.stderr and "Traceback" not in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_accelerate_launch_trains_and_wandb_offline_is_written(toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "-m", *train_command(run, toy_shards)[2:]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")} | {
        "HOME": str(tmp_path)
    }
    result = subprocess.run(
        [*command, "--train.epochs", "1", "--track.wandb", "auto", "--train.precision", "bf16", "--train.micro_batch", "4"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (
        "W&B: no API key found" in result.stdout
        and "batch 16 = 1 x 4 x 4" in result.stdout
        and "precision bf16" in result.stdout
    )
    assert list((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert (run / "result.json").exists()


def test_a_diverging_run_ends_with_one_clear_line(toy_shards: Path, tmp_path: Path) -> None:
    result = train(
        tmp_path / "run", toy_shards, "--train.epochs", "2", "--optim.name", "sgd", "--optim.lr", "1e30", "--optim.schedule", "constant",
        "--train.clip_norm", "0",
    )  # fmt: skip
    assert result.returncode == 1
    assert "lower optim.lr" in result.stderr and "Traceback" not in result.stderr


def test_single_objects_that_starve_batch_normalisation_are_refused_before_a_step(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["--train.global_batch", "1"]
    for how in (["--train.micro_batch", "1"], one, ["--data.image_px", "64", "--data.scales", "[0.5,1]", *one]):
        assert small_training.train(tmp_path / "run", toy_shards, *how) == 2
        told = capsys.readouterr()
        assert told.err.startswith("error: train.micro_batch: a single object of 32 x 32 pixels leaves the batch norm")
        assert "backbone.layer4.0.bn" in told.err and told.err.count("\n") == 1 and not told.out
        assert not (tmp_path / "run").exists()
    found = ["find", "--out", str(tmp_path / "found.yaml"), "demo", "--data.shards", str(toy_shards), *SMALL, *one]
    assert main(found) == 2
    assert "error: train.micro_batch: a single object" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_split_without_one_known_label_is_refused(
    toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [path.name for path in sorted((toy_coco / "train2017").glob("*.jpg"))[:20]]
    rows = [
        f"{name},{'val' if number % 4 == 0 else 'train'},5,5,40,40,{number % 2 if number % 4 == 0 else ''}"
        for number, name in enumerate(names)
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(["file_name,split,x,y,w,h,furry", *rows]))
    shards = tmp_path / "shards"
    words = ["shard", "--labels", tmp_path / "boxes.csv", "--images", toy_coco / "train2017", "--out", shards]
    assert main([str(word) for word in (*words, "--workers", "1")]) == 0
    capsys.readouterr()
    flags = ("--train.global_batch", "4", "--train.epochs", "1")
    assert small_training.train(tmp_path / "run", shards, *flags) == 1
    assert f"error: split 'train' of {shards} has not one known label" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert small_training.train(tmp_path / "run", shards, *flags, "--labels.unknown", "negative") == 0


def test_the_look_at_the_labels_reads_them_as_the_run_does(toy_coco: Path, tmp_path: Path) -> None:
    """Votes of at most two in five are labels where positive begins at a third."""
    rows = ["image,category,x,y,w,h,dark,round"]
    for number, photograph in enumerate(sorted((toy_coco / "train2017").glob("*.jpg"))):
        rows += [
            f"{photograph.name},{'cat' if x else 'dog'},{x},5,30,30,{0.4 * (x > 0)},{0.4 * (number % 2)}"
            for x in (0, 20, 40)
        ]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    given = ["--labels", tmp_path / "boxes.csv", "--images", toy_coco / "train2017", "--out", tmp_path / "shards"]
    assert main(["shard", *map(str, given), "--workers", "1"]) == 0
    for positive_at, decided_by in (("0.5", ""), ("0.33", "category and box")):
        run = tmp_path / positive_at
        flags = ("--labels.positive_at", positive_at, "--train.epochs", "1", "--train.global_batch", "8")
        assert small_training.train(run, tmp_path / "shards", *flags) == 0
        assert json.loads((run / "audit.json").read_text())["decided_by"] == decided_by


def test_photographs_that_another_folder_judges_are_told_and_copies_are_refused(
    toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = sorted((toy_coco / "train2017").glob("*.jpg"))
    folders = []
    for name, turned in (("one", 0), ("two", 1)):
        rows = ["image,split,x,y,w,h,dark"]
        for number, photograph in enumerate(photographs):
            rows += [
                f"{photograph.name},{'train' if number % 4 < 3 - turned else 'val'},{x},{5 + turned},30,30,{x % 2}"
                for x in (0, 21, 40)
            ]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        folders.append(tmp_path / name)
        given = ["--labels", tmp_path / f"{name}.csv", "--images", toy_coco / "train2017", "--out", folders[-1]]
        assert main(["shard", *map(str, given), "--workers", "1"]) == 0
    capsys.readouterr()
    both = ("--data.shards", *map(str, folders), "--train.epochs", "1", "--train.global_batch", "8")
    assert small_training.train(tmp_path / "run", folders[0], *both) == 0
    told = capsys.readouterr().out
    shared = sum(number % 4 == 2 for number in range(len(photographs)))
    assert f"warning: {shared} photographs are in split 'train' of one folder and in 'val' of another" in told
    shutil.copytree(folders[0], tmp_path / "copy")
    twice = ("--data.shards", str(folders[0]), str(tmp_path / "copy"))
    assert small_training.train(tmp_path / "other", folders[0], *twice) == 1
    assert "hold the same objects" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def lenient(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to which an attribute is present where one of three says so; with the bundle of each of its epochs."""
    run = tmp_path_factory.mktemp("runs") / "lenient"
    flags = ("--labels.positive_at", "0.3", "--train.epochs", "3", "--checkpoint.keep_bundles", "3")
    assert small_training.train(run, toy_shards, *flags, "--optim.lr", "0.003") == 0
    return run


def map_at(predictions: Predictions, positive_at: float) -> float:
    """Of attributes with five positives and five negatives, by scikit-learn."""
    found = []
    for labels, logits in zip(predictions.labels.T, predictions.logits.T, strict=True):
        truth, scores = labels[~np.isnan(labels)] >= positive_at, logits[~np.isnan(labels)]
        if min(truth.sum(), (~truth).sum()) >= 5:
            found.append(average_precision_score(truth, scores))
    return float(np.mean(found))


def test_a_run_is_judged_from_its_epochs_to_its_end_by_what_counts_as_present(
    lenient: Path, toy_shards: Path, tmp_path: Path
) -> None:
    result = json.loads((lenient / "result.json").read_text())
    predictions = read_predictions(lenient / "evaluation" / "predictions.npz")
    expected = map_at(predictions, 0.3)
    assert abs(expected - map_at(predictions, 0.5)) > 1e-4
    logged = [line for line in small_training.logged(lenient) if line["kind"] == "val"]
    maps = [line["map"] for line in logged]
    assert result["best_epoch"] == 1 + int(np.argmax(maps))
    assert result["val"]["map"] == pytest.approx(expected, abs=1e-6) == max(maps)
    document = json.loads((lenient / "evaluation" / "metrics.json").read_text())
    assert document["positive_at"] == 0.3 and document["overall"]["map"] == pytest.approx(expected, abs=1e-6)
    for epoch, value in enumerate(maps, 1):
        out = tmp_path / str(epoch)
        model = lenient / "bundles" / f"epoch-{epoch:03d}"
        assert main(["evaluate", "--model", str(model), "--shards", str(toy_shards), "--out", str(out)]) == 0
        assert value == pytest.approx(map_at(read_predictions(out / "predictions.npz"), 0.3), abs=1e-6)


def test_its_bundle_says_what_counts_as_present_and_has_thresholds_for_that(lenient: Path) -> None:
    card = json.loads((lenient / "bundle" / "model.json").read_text())
    predictions = read_predictions(lenient / "evaluation" / "predictions.npz")
    assert card["positive_at"] == 0.3
    assert card["metrics"]["val.map"] == pytest.approx(map_at(predictions, 0.3), abs=1e-6)
    other = 0
    for threshold, labels, logits in zip(card["thresholds"], predictions.labels.T, predictions.logits.T, strict=True):
        known = ~np.isnan(labels)
        scores = 1 / (1 + np.exp(-logits[known].astype(float)))
        if threshold is None:
            assert min((labels[known] >= 0.3).sum(), (labels[known] < 0.3).sum()) < 5
            continue
        of = {}
        for positive_at in (0.5, 0.3):
            truth = labels[known] >= positive_at
            best = max(f1_score(truth, scores >= score) for score in scores)
            of[positive_at] = f1_score(truth, scores >= threshold) == pytest.approx(best)
        assert of[0.3]
        other += not of[0.5]
    assert other > 0

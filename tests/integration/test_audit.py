"""`attrtrain audit`, from label files and from shards."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from attrtrain.cli import main


def write_csv(path, labels, *, category=None, split=None, photographs=None, box=None):
    """Boxes and labels (N, A) as people have them; NaN becomes an empty cell."""
    rng = np.random.default_rng(99)
    objects, attributes = labels.shape
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file_name", "split", "category", "x", "y", "w", "h", *(f"a{i}" for i in range(attributes))])
        for row in range(objects):
            where = (rng.random(4) * 100 + 10).round(1) if box is None else box
            out.writerow(
                [
                    photographs[row] if photographs is not None else f"{row}.jpg",
                    split[row] if split is not None else "",
                    category[row] if category is not None else "",
                    *where,
                    *("" if value != value else f"{value:g}" for value in labels[row]),
                ]
            )
    return path


def audit(*arguments):
    return main(["audit", *map(str, arguments)])


def told(folder):
    return json.loads((folder / "audit.json").read_text())


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_coin_flips_are_noise(rate, tmp_path, capsys):
    labels = (np.random.default_rng(8).random((275, 204)) < rate).astype(float)
    path = write_csv(tmp_path / "coins.csv", labels, category=["dog"] * 275)
    assert audit(path, "--out", tmp_path / "out") == 4
    found, said = told(tmp_path / "out"), capsys.readouterr().out
    assert found["verdict"] == "noise" and found["p_value"] > 0.01 and found["effect"] < 0.03
    assert "verdict: noise" in said and f"details: {tmp_path / 'out' / 'audit.html'}" in said
    assert found["rates"]["like_fair_coins"] == (rate == 0.5)
    assert len(found["attributes"]) == 204
    assert found["attributes"][7]["positives"] == labels[:, 7].sum()
    assert "noise" in (tmp_path / "out" / "audit.html").read_text()


def test_toy_labels_are_learnable_and_their_photographs_are_compared(toy_coco, tmp_path):
    annotations = toy_coco / "annotations"
    instances = (annotations / "instances_train2017.json", annotations / "instances_val2017.json")
    images = (toy_coco / "train2017", toy_coco / "val2017")
    labels = toy_coco / "cocottributes.pkl"
    assert audit(labels, "--instances", *instances, "--images", *images, "--out", tmp_path) == 0
    found = told(tmp_path)
    assert found["verdict"] == "learnable" and found["p_value"] <= 0.01 and found["effect"] > 0.03
    assert found["pictures"]["compared"] == "photographs" and found["pictures"]["pictures"] == 40
    assert found["coverage"]["labelled"] == found["objects"] + 7


def test_one_instances_file_of_two_is_told(toy_coco, tmp_path, capsys):
    instances = toy_coco / "annotations" / "instances_val2017.json"
    audit(toy_coco / "cocottributes.pkl", "--instances", instances, "--out", tmp_path)
    assert told(tmp_path)["coverage"]["share"] < 0.5
    assert "serious: only" in (said := capsys.readouterr().out) and "train2017 is missing" in said


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Photographs of one plain square of some colour on noise, and the label table that says which."""
    folder, rng = tmp_path_factory.mktemp("painted"), np.random.default_rng(5)
    (folder / "photos").mkdir()
    red, bright = rng.random(320) < 0.5, rng.random(320) < 0.5
    for row in range(320):
        pixels = rng.integers(90, 160, (64, 64, 3), dtype=np.uint8)
        colour = [200, 60, 40] if red[row] else [40, 60, 200]
        pixels[8:56, 8:56] = np.array(colour) + (50 if bright[row] else 0)
        Image.fromarray(pixels).save(folder / "photos" / f"{row}.png")
    labels = np.column_stack([red, ~red, bright, red & bright]).astype(float)
    torch.manual_seed(0)
    save_file(torchvision.models.resnet18().state_dict(), folder / "weights.safetensors")
    return folder, labels


@pytest.mark.parametrize(("shuffled", "verdict", "code"), [(False, "learnable", 0), (True, "noise", 4)])
def test_pixels_tell_real_labels_from_the_same_shuffled_between_objects(painted, shuffled, verdict, code, tmp_path):
    folder, labels = painted
    if shuffled:
        labels = labels[np.random.default_rng(2).permutation(len(labels))]
    boxes = write_csv(
        tmp_path / "boxes.csv", labels, photographs=[f"{row}.png" for row in range(320)], box=[8, 8, 48, 48]
    )
    arguments = ["--labels", boxes, "--images", folder / "photos", "--out", tmp_path / "shards", "--workers", "1"]
    assert main(["shard", *map(str, arguments)]) == 0
    assert audit(boxes, "--out", tmp_path / "labels") == 3  # the label file alone knows neither
    assert told(tmp_path / "labels")["verdict"] == "weak"
    found = audit(tmp_path / "shards", "--weights", folder / "weights.safetensors", "--out", tmp_path / "out")
    document = told(tmp_path / "out")
    assert (found, document["verdict"], document["decided_by"]) == (code, verdict, "pixels")
    assert document["kind"] == "shards" and document["pictures"]["compared"] == "crops"


def test_the_same_photograph_under_two_names_in_two_splits_is_serious(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for row in range(6):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((200, 150)).save(tmp_path / f"{row}.jpg", quality=90)
    with Image.open(tmp_path / "0.jpg") as image:
        image.resize((120, 90)).save(tmp_path / "5.jpg", quality=60)
    labels = rng.integers(0, 2, (6, 3)).astype(float)
    path = write_csv(tmp_path / "boxes.csv", labels, split=["train"] * 3 + ["val"] * 3)
    audit(path, "--images", tmp_path, "--out", tmp_path / "out")
    pictures = told(tmp_path / "out")["pictures"]
    assert (pictures["groups"], pictures["across_splits"]) == (1, 1)
    assert pictures["examples"] == [{"images": ["0.jpg", "5.jpg"], "splits": ["train", "val"]}]
    assert (
        "serious: 1 picture is in two splits under different names, such as 0.jpg and 5.jpg" in capsys.readouterr().out
    )


@pytest.mark.parametrize("no", [-1.0, np.nan], ids=["-1", "empty"])
def test_who_says_no_by_what_means_unknown_is_told_how_to_say_it(no, tmp_path, capsys):
    labels = np.where(np.random.default_rng(0).random((40, 2)) < 0.5, 1.0, no)
    assert audit(write_csv(tmp_path / "boxes.csv", labels), "--out", tmp_path / "out") == 3
    assert (
        "check: 2 attributes are never negative: a0, a1; there is nothing to learn from that "
        "(a label of 0 says no; -1 and an empty cell say unknown)\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    "labels",
    [
        np.full((50, 5), np.nan),
        np.ones((50, 5)),
        np.random.default_rng(0).integers(0, 2, (30, 3)).astype(float),
        np.random.default_rng(0).integers(0, 2, (275, 1)).astype(float),
        np.zeros((1, 2)),
    ],
    ids=["all unknown", "all present", "30 objects", "one attribute", "one object"],
)
def test_what_cannot_be_told_is_weak(labels, tmp_path):
    assert audit(write_csv(tmp_path / "boxes.csv", labels), "--out", tmp_path / "out") == 3
    found = told(tmp_path / "out")
    assert found["verdict"] == "weak" and 0 < found["p_value"] <= 1


def test_a_mistake_is_one_line_and_leaves_no_audit(toy_shards, toy_coco, tmp_path, capsys):
    coins = write_csv(tmp_path / "coins.csv", np.ones((4, 2)))
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    for arguments, code, words in [
        ((tmp_path / "none.csv",), 1, "no such file"),
        ((tmp_path,), 1, "is no shard folder"),
        ((coins, "--images", tmp_path / "none"), 1, "no such folder"),
        ((coins, "--weights", tmp_path / "w.pth"), 2, "make shards with `attrtrain shard`"),
        ((toy_shards, "--weights", tmp_path / "w.pth"), 1, "no such weights file"),
        ((toy_shards, toy_shards), 2, "one at a time"),
        ((toy_shards, "--instances", coins), 2, "belongs to label files"),
        ((toy_coco / "cocottributes.pkl",), 1, "give --instances"),
    ]:
        assert audit(*arguments, "--out", out) == code
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("error: ") and words in said
        assert not out.exists()
    assert audit(coins, "--out", tmp_path / "file") == 2
    assert f"error: --out {tmp_path / 'file'}: " in capsys.readouterr().err


def test_weights_of_no_resnet_are_told_before_pictures_and_labels_are_looked_at(
    toy_shards, toy_coco, tmp_path, capsys, monkeypatch
):
    def slow(*_):
        raise AssertionError("minutes of work that comes to nothing")

    for name in ("hash_photographs", "label_evidence"):
        monkeypatch.setattr(f"attrtrain.auditing.assemble.{name}", slow)
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    given = (toy_shards, "--images", toy_coco / "train2017", toy_coco / "val2017", "--out", tmp_path / "out")
    for weights, told in [("none.pth", "no such weights file"), ("other.safetensors", "not the weights of a torchvis")]:
        assert audit(*given, "--weights", tmp_path / weights) == 1
        assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_labels_are_audited_without_torch(tmp_path):
    coins = write_csv(tmp_path / "coins.csv", np.random.default_rng(0).integers(0, 2, (40, 5)).astype(float))
    program = (
        "import sys; from attrtrain.cli import main; "
        f"code = main(['audit', {str(coins)!r}, '--out', {str(tmp_path / 'out')!r}]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 3 and done.stderr == ""


@pytest.mark.shared_data
def test_real_labels_are_learnable_and_noise_once_shuffled(shared_data, tmp_path):
    persons = shared_data / "coco_persons"
    weights = next((shared_data / "weights").glob("resnet50*.safetensors"))
    assert audit(persons / "labels.csv", "--out", tmp_path / "labels") == 0
    with (persons / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shuffled = [rows[row] for row in np.random.default_rng(1).permutation(len(rows))]
    kept = ("file_name", "split", "x", "y", "w", "h")
    with (tmp_path / "shuffled.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(other | {name: row[name] for name in kept} for row, other in zip(rows, shuffled, strict=True))
    for name, path, code in (("real", persons / "labels.csv", 0), ("shuffled", tmp_path / "shuffled.csv", 4)):
        sharding = ["--labels", path, "--images", persons / "images", "--out", tmp_path / name]
        assert main(["shard", *map(str, sharding)]) == 0
        assert audit(tmp_path / name, "--weights", weights, "--out", tmp_path / f"{name}-out") == code
    tiny = shared_data / "coco_tiny"
    instances = sorted((tiny / "annotations").glob("instances_*.json"))
    assert audit(tiny / "cocottributes_like.pkl", "--instances", *instances, "--out", tmp_path / "tiny") == 0

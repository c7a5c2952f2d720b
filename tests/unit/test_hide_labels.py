"""Labels made unknown: how many, where, and nothing else."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from attrtrain.annotations import read_labels
from attrtrain.annotations.table import ObjectTable
from tools import hide_labels
from tools.make_toy_coco import draw_toy_coco


def write(path: Path, rows: int = 2000) -> None:
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "split", "x", "y", "w", "h", "furry", "wet"])
        for number in range(rows):
            split = "val" if number % 4 == 0 else "train"
            labels = [draw.choice(["0", "1", "0.25", ""]), draw.choice(["0", "1"])]
            writer.writerow([f'a, "{number}".jpg', split, number % 2, 2.5, 30, 40, *labels])


def hidden(path: Path, share: float, monkeypatch: pytest.MonkeyPatch, *more: str) -> ObjectTable:
    out = path.with_name(f"out{share}.csv")
    monkeypatch.setattr("sys.argv", ["x", str(out), "--labels", str(path), "--share", str(share), *more])
    assert hide_labels.main() == 0
    return read_labels([out], [])[0]


def test_a_share_of_the_training_labels_is_emptied_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "labels.csv")
    before = read_labels([tmp_path / "labels.csv"], [])[0]
    after, more = (hidden(tmp_path / "labels.csv", share, monkeypatch) for share in (0.7, 0.9))
    told = capsys.readouterr().out
    train = before.split == "train"
    for name in ("object_id", "image", "box", "split", "category"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(after.labels[~train], before.labels[~train])
    known, left, fewer = (~np.isnan(table.labels[train]) for table in (before, after, more))
    assert not (left & ~known).any() and not (fewer & ~left).any()
    np.testing.assert_array_equal(after.labels[train][left], before.labels[train][left])
    assert left.sum() / known.sum() == pytest.approx(0.3, abs=0.03)
    ones = before.labels[train] == 1
    assert left[ones].mean() == pytest.approx(0.3, abs=0.05)
    assert f"{left.sum():,} of {known.sum():,} known labels of split 'train' are left" in told


def test_a_photograph_is_hidden_whole_and_thirds_stay_thirds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("a.jpg", "val"), ("a.jpg", "val"), ("a.jpg", "train"), ("b.jpg", "train")]
    lines = [f"{name},{split},0,0,9,9,{1 / 3!r}" for name, split in rows]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,split,x,y,w,h,furry", *lines]))
    before = read_labels([tmp_path / "labels.csv"], [])[0]
    after = hidden(tmp_path / "labels.csv", 1.0, monkeypatch)
    assert after.split.tolist() == ["val", "val", "val", "train"]
    np.testing.assert_array_equal(after.labels[:3], before.labels[:3])
    assert np.isnan(after.labels[3]).all()
    np.testing.assert_array_equal(after.image_id, before.image_id)
    assert "1 photograph was in two splits" in capsys.readouterr().out


def test_crowds_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_toy_coco(tmp_path, photographs=4, seed=0)
    instances = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(instances.read_text())
    content["annotations"][0]["iscrowd"] = 1
    instances.write_text(json.dumps(content))
    labels, out = tmp_path / "cocottributes.pkl", tmp_path / "out.csv"
    given = ["--labels", str(labels), "--instances", str(instances)]
    monkeypatch.setattr("sys.argv", ["x", str(out), *given, "--share", "0"])
    assert hide_labels.main() == 0
    before, after = read_labels([labels], [instances])[0], read_labels([out], [])[0]
    assert before.crowd.sum() == 1
    np.testing.assert_array_equal(after.object_id, before.object_id[~before.crowd])
    np.testing.assert_array_equal(after.labels, before.labels[~before.crowd])


def test_what_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "labels.csv", rows=8)
    for words, told in (
        ((tmp_path / "labels.csv", "--split", "dev"), "no object of split 'dev'; there are: train, val"),
        ((tmp_path / "none.csv",), "none.csv: no such file"),
    ):
        with pytest.raises(SystemExit) as caught:
            hidden(words[0], 0.5, monkeypatch, *map(str, words[1:]))
        assert told in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "out0.5.csv").exists()

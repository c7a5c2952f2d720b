"""Labels made unknown: how many, where, and nothing else."""

import csv
import random
from pathlib import Path

import numpy as np
import pytest

from attrtrain.annotations import read_labels
from attrtrain.annotations.table import ObjectTable
from tools import hide_labels


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

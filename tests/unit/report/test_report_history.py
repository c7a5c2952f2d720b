import json

import pytest

from attrtrain.report.history import best_epoch, read_curves


def written(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_curves_are_over_steps(tmp_path):
    history = written(
        tmp_path / "metrics.jsonl",
        {"kind": "train", "step": 10, "loss": 0.7, "lr": 0.1},
        {"kind": "val", "step": 17, "epoch": 1, "map": 0.3, "prior_map": 0.2, "loss": 0.6},
        {"kind": "train", "step": 20, "loss": 0.5, "lr": 0.05},
    )
    assert read_curves(history) == {
        "train loss": [(10, 0.7), (20, 0.5)],
        "val loss": [(17, 0.6)],
        "val mAP": [(17, 0.3)],
        "prior mAP": [(17, 0.2)],
        "learning rate": [(10, 0.1), (20, 0.05)],
    }


def test_what_is_no_number_is_no_point(tmp_path):
    history = written(
        tmp_path / "metrics.jsonl",
        {"kind": "val", "step": 1, "epoch": 1, "map": None, "loss": 0.5},
        '{"kind": "val", "step": 2, "epoch": 2, "map": NaN}',
        '{"kind": "val", "step": 3, "epo',
        "[1, 2]",
        "",
    )
    assert read_curves(history) == {"val loss": [(1, 0.5)]}
    assert best_epoch(history) is None


def test_a_long_curve_keeps_its_mean(tmp_path):
    lines = [{"kind": "train", "step": step, "loss": 1 / (step + 1)} for step in range(9_000)]
    points = read_curves(written(tmp_path / "m", *lines))["train loss"]
    assert len(points) == 300
    assert sum(y for _, y in points) / 300 == pytest.approx(sum(line["loss"] for line in lines) / 9_000, rel=1e-9)


def test_the_best_epoch_is_the_first_of_equals(tmp_path):
    lines = [
        {"kind": "val", "step": 5 * e, "epoch": e, "map": value}
        for e, value in enumerate([0.2, 0.4, 0.4, 0.3], start=1)
    ]
    assert best_epoch(written(tmp_path / "m", *lines)) == (2, 10)


def test_an_epoch_that_is_no_number_is_not_the_best(tmp_path):
    lines = [{"kind": "val", "step": 5 * n, "epoch": e, "map": n / 10} for n, e in enumerate([1, 2, None, "3", [4]])]
    assert best_epoch(written(tmp_path / "m", *lines)) == (2, 5)


def test_without_training_there_are_no_curves(tmp_path):
    assert read_curves(None) == read_curves(tmp_path / "absent") == {}
    assert best_epoch(None) is None

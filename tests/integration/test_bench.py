"""The benchmarks' structure and fairness. Nothing here looks at how long anything took."""

import csv
import importlib
import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from attrtrain.annotations.coco_attributes import read_coco_attributes
from attrtrain.data.reader import ShardSet
from tools.bench import child, evaluation, step_contenders
from tools.bench.__main__ import main
from tools.bench.contest import BenchError, Contender, Row, run_fresh, take_turns
from tools.bench.data import Source, repeat_shards
from tools.bench.install import environments_apart
from tools.bench.labels import write_labels
from tools.bench.loader import CONVERTERS, OURS, PEERS, Spec, open_batches
from tools.bench.result import Case, Result
from tools.bench.shard import write_boxes

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
MODULES = {"litdata": "litdata", "mosaicml-streaming": "streaming", "ffcv": "ffcv", "dali": "nvidia.dali"}


def say(value: float, **more) -> dict:
    return {"value": value, **more}


def fail() -> dict:
    raise RuntimeError("cannot\ndo it")


def cores() -> list[int]:
    return {"value": 1.0, "cores": sorted(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}


def contender(name: str, role: str, function: str = "say", **settings) -> Contender:
    return Contender(name, role, f"tests.integration.test_bench:{function}", settings)


def test_a_peer_that_is_not_there_or_fails_is_named_with_its_reason(tmp_path):
    contenders = [
        contender("best possible", "limit", value=10.0),
        contender("attrtrain", "attrtrain", value=8.0),
        contender("slow", "peer", value=2.0),
        contender("better", "peer", value=4.0),
        contender("broken", "peer", "fail"),
        Contender("absent", "peer", "no_such_package_at_all:run", {}),
    ]
    case = Case("a case", take_turns(contenders, 2, [0], 60), "things per second")
    path = Result("name", [case], {"size": 1}).write(tmp_path, {"processor": "x"}, {"torch": "1"}, 2)
    written = json.loads(path.read_text())
    assert (written["limit"], written["attrtrain"]) == (10.0, 8.0)
    assert written["peers"] == {"slow": 2.0, "better": 4.0, "broken": None, "absent": None}
    assert written["missing"]["broken"] == "RuntimeError: cannot do it"
    assert "no_such_package_at_all" in written["missing"]["absent"]
    assert (written["ratio_to_limit"], written["ratio_to_best_peer"]) == (0.8, 2.0)
    assert written["best_peer"] == "better"
    assert {"repeats", "machine", "versions", "settings"} <= written.keys()
    assert [row["name"] for row in written["rows"]] == [one.name for one in contenders]
    table = case.table()
    assert "broken" in table and "RuntimeError: cannot do it" in table and "no_such_package_at_all" in table


def test_ratios_come_from_medians_and_their_range_from_rounds():
    rows = [Row("l", "limit", [10, 20, 30]), Row("a", "attrtrain", [9, 10, 30]), Row("p", "peer", [3, 2, 1])]
    summary = Case("c", rows, "things per second").summary()
    assert summary["ratio_to_limit"] == 10 / 20
    assert summary["ratio_to_limit_range"] == [0.5, 1.0]
    assert summary["ratio_to_best_peer"] == 5.0
    assert summary["ratio_to_best_peer_range"] == [3.0, 30.0]


def test_where_less_is_better_the_quickest_peer_is_the_best():
    rows = [Row("a", "attrtrain", [2]), Row("quick", "peer", [1]), Row("slow", "peer", [4])]
    summary = Case("c", rows, "seconds", better="lower").summary()
    assert (summary["best_peer"], summary["ratio_to_best_peer"]) == ("quick", 2)
    assert summary["limit"] is None and summary["ratio_to_limit"] is None


def test_attrtrain_or_the_limit_may_not_be_missing():
    with pytest.raises(BenchError, match="attrtrain: RuntimeError: cannot do it"):
        take_turns([contender("attrtrain", "attrtrain", "fail")], 1, [0], 60)


def test_a_turn_that_takes_too_long_is_ended():
    outcome = run_fresh("time:sleep", {}, [0])
    assert "TypeError" in outcome["missing"]
    outcome = run_fresh("tests.integration.test_bench:sleep", {}, [0], 10)
    assert outcome["missing"] == "took more than 10 s"


def sleep() -> dict:
    time.sleep(60)
    return {}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_turn_is_bound_to_its_cores_with_as_many_threads():
    one = min(os.sched_getaffinity(0))
    outcome = run_fresh("tests.integration.test_bench:cores", {}, [one])
    assert outcome["cores"] == [one]
    assert outcome["threads"] == 1
    assert outcome["peak_mb"] > 10


def test_memory_is_that_of_the_turn_and_not_of_the_benchmark():
    held = np.ones(50_000_000)  # 400 MB
    assert run_fresh("tests.integration.test_bench:hold", {"numbers": 1}, [0])["peak_mb"] < 0.9 * (
        own := child.peak_mb()
    )
    assert own > held.nbytes / 1e6
    assert run_fresh("tests.integration.test_bench:hold", {"numbers": 2 * len(held)}, [0])["peak_mb"] > 800


def hold(numbers: int) -> dict:
    return {"value": float(np.ones(numbers).sum())}


def test_repeated_shards_are_the_same_samples_again(toy_shards, tmp_path):
    once = ShardSet([toy_shards], "train")
    samples = repeat_shards(toy_shards, tmp_path / "again", 3 * len(once) - 1)
    again = ShardSet([tmp_path / "again"], "train")
    assert samples == len(again) == 3 * len(once)
    np.testing.assert_array_equal(again.column("object_id"), np.tile(once.column("object_id"), 3))
    np.testing.assert_array_equal(again.labels(np.arange(samples)), np.tile(once.labels(np.arange(len(once))), (3, 1)))
    assert again.jpeg(2 * len(once) + 5) == once.jpeg(5)
    assert len(ShardSet([tmp_path / "again"], "val")) == len(ShardSet([toy_shards], "val"))


@pytest.fixture(scope="module")
def reference(toy_shards, tmp_path_factory) -> dict[int, np.ndarray]:
    return epoch(OURS, None, Spec(str(toy_shards), (), "", 0, 8, 48), tmp_path_factory.mktemp("ours"))[1]


def epoch(
    function: str, converter: str | None, spec: Spec, work: Path, environment: Path | None = None
) -> tuple[list[int], dict[int, np.ndarray]]:
    """The object ids of one epoch in their order, and the image of each in grey levels; loaded in a fresh process, as
    in a benchmark.
    """
    settings = {"function": function, "converter": converter, "spec": vars(spec), "out": str(work / "epoch.npz")}
    outcome = run_fresh(
        "tests.integration.test_bench:load_epoch", settings, [min(os.sched_getaffinity(0))], 300, environment
    )
    assert "missing" not in outcome, outcome
    content = np.load(work / "epoch.npz")
    return content["ids"].tolist(), dict(zip(content["ids"].tolist(), content["images"], strict=True))


def load_epoch(function: str, converter: str | None, spec: dict, out: str) -> dict:
    if converter is not None:
        module, _, name = converter.partition(":")
        getattr(importlib.import_module(module), name)(spec)
    wanted, ids, images = Spec(**spec), [], []
    for batch, batch_ids in open_batches(function, wanted):
        assert batch.shape == (len(batch_ids), 3, wanted.image_px, wanted.image_px)
        ids += batch_ids.tolist()
        images += [(image * STD + MEAN) * 255 if image.is_floating_point() else image.float() for image in batch]
    np.savez(out, ids=ids, images=torch.stack(images).numpy())
    return {}


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_loads_the_same_objects_with_the_same_pixels(name, toy_shards, toy_coco, reference, tmp_path):
    if name in MODULES and name not in environments_apart():
        pytest.importorskip(
            MODULES[name], reason=f"{name} is not installed; `make bench` does so", exc_type=ImportError
        )
    images = tuple(str(toy_coco / folder) for folder in ("train2017", "val2017"))
    spec = Spec(str(toy_shards), images, str(tmp_path / "converted"), 0, 8, 48)
    ids, own = epoch(PEERS[name], CONVERTERS.get(name), spec, tmp_path, environments_apart().get(name))
    assert sorted(ids) == sorted(ShardSet([toy_shards], "train").column("object_id").tolist())
    # Photographs were never JPEG crops, and FFCV encodes anew: a few of 255 grey levels. Another crop, or another order
    # of colours, is tens away.
    differences = [np.abs(own[one] - reference[one]).mean() for one in own.keys() & reference.keys()]
    assert np.mean(differences) < (4 if name in ("Dataset over photographs", "ffcv") else 1)


def test_a_full_label_file_is_what_python_2_wrote(tmp_path):
    write_labels(tmp_path / "labels.pkl", objects=300, attributes=204)
    content = (tmp_path / "labels.pkl").read_bytes()
    assert abs(len(content) / 300 - 1_261_766_525 / 188_426) < 300  # bytes an object, as published
    vectors = np.stack(list(pickle.loads(content, encoding="latin1")["ann_vecs"].values()))
    expected = np.where(vectors < 0, np.nan, vectors).astype(np.float32)
    np.testing.assert_array_equal(read_coco_attributes(tmp_path / "labels.pkl").labels, expected)
    assert 0.08 < (vectors >= 0).mean() < 0.10


def test_labels_compares_with_a_plain_unpickle(tmp_path):
    assert main(["labels", "--out", str(tmp_path), "--objects", "300", "--repeats", "1"]) == 0
    written = json.loads((tmp_path / "labels.json").read_text())
    assert written["better"] == "lower"
    assert written["ratio_to_limit"] == written["attrtrain"] / written["limit"]
    assert {detail["objects"] for row in written["rows"] for detail in row["details"]} == {300}


def test_every_shard_contender_is_given_the_same_boxes(toy_coco, toy_shards, tmp_path):
    source = Source(toy_shards, tuple(toy_coco / name for name in ("train2017", "val2017")))
    folder = write_boxes(source, tmp_path / "boxes", 250)
    rows = list(csv.DictReader((folder / "boxes.csv").read_text().splitlines()))
    assert len(rows) == 250
    assert all((folder / "photos" / row["file_name"]).is_file() for row in rows)
    for function in ("limit", "loop", "ours"):
        outcome = run_fresh(
            f"tools.bench.shard_contenders:{function}",
            {"folder": str(folder), "out": str(tmp_path / "out"), "cores": [0]},
            [0],
        )
        assert outcome.get("missing") is None and outcome["value"] > 0
    assert not (tmp_path / "out").exists()


def test_eval_writes_equal_scores_side_by_side(tmp_path):
    arguments = ["--objects", "4000", "--attributes", "5", "--repeats", "1"]
    assert main(["eval", "--out", str(tmp_path), *arguments]) == 0
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written["peers"].keys() == {"torchmetrics", "scikit-learn"}
    assert (
        written["largest_difference"].keys() == {evaluation.EVERYTHING, *written["peers"]} - written["missing"].keys()
    )
    assert [
        [row["name"] for row in case["rows"] if row["role"] == "attrtrain"] for case in written["cases"].values()
    ] == [
        [evaluation.OURS],
        [evaluation.EVERYTHING],
    ]
    assert max(written["largest_difference"].values()) <= 1e-6
    assert written["ratio_to_best_peer"] == written["attrtrain"] / max(filter(None, written["peers"].values()))


def test_eval_refuses_a_peer_with_other_scores(tmp_path, monkeypatch):
    columns = {key: np.full(3, 0.5) for key in evaluation.SCORES}
    np.savez(tmp_path / "attrtrain.npz", **columns)
    np.savez(tmp_path / "peer.npz", **{**columns, "f1": np.array([0.5, 0.50001, 0.5])})
    with pytest.raises(BenchError, match="peer: f1 of attribute 1"):
        evaluation.require_equal([Row("peer", "peer", [1.0])], tmp_path)


def test_what_cannot_be_measured_is_one_line_and_an_exit_code(toy_shards, tmp_path, capsys):
    assert main(["shard", "--out", str(tmp_path), "--shards", str(toy_shards)]) == 1
    assert capsys.readouterr().err == "error: shard: the photographs are needed: give --images\n"
    assert main(["loader", "--out", str(tmp_path), "--shards", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(f"error: loader: {tmp_path / 'none'}: no such shard folder")
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.slow
def test_start_resumes_at_the_step_that_was_saved(toy_shards, tmp_path):
    settings = {
        "shards": str(toy_shards),
        "run_folder": str(tmp_path / "run"),
        "backbone": "resnet18",
        "image_px": 32,
        "batch": 8,
    }
    saved = run_fresh("tools.bench.start_contenders:make_checkpoint", settings, [min(os.sched_getaffinity(0))])
    assert saved["last_step"] == 2, saved
    resumed = run_fresh("tools.bench.start_contenders:resume", settings, [min(os.sched_getaffinity(0))])
    assert resumed["last_step"] == 2, resumed
    assert resumed["value"] > resumed["copying_the_run"]


def test_steps_are_timed_to_the_end_of_the_last_one_and_no_further(monkeypatch: pytest.MonkeyPatch):
    """A trainer may take its time to clear up, such as to bring its network back from the GPU."""
    now = 0.0
    monkeypatch.setattr(step_contenders.time, "perf_counter", lambda: now)
    clock = step_contenders.StepClock({"warm_up": 2, "steps": 3, "device": "cpu", "spec": {"batch": 8}})
    for seconds in (50.0, 9.0, 2.0, 2.0, 2.0):
        now += seconds
        assert clock.tick() == (now == 65.0)
    now += 100.0
    assert clock.outcome()["value"] == 8 * 3 / 6

"""A trained model put to use through the commands people type: annotate, features, search."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from attrtrain.bundle import load_model
from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from attrtrain.framing import Framing
from attrtrain.inference import annotating
from attrtrain.inference.predictor import Predictor
from attrtrain.predict import predict
from attrtrain.predictions import read_predictions
from attrtrain.shards.manifest import CropSettings
from tests.bundles import IMAGE_PX, NAMES, draw_bundle

THRESHOLDS = [0.5, 0.3, 0.8, None, 0.5, 0.6, 0.4]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_bundle(tmp_path_factory.mktemp("model") / "bundle", thresholds=THRESHOLDS)


@pytest.fixture(scope="module")
def instances(toy_coco: Path) -> Path:
    return toy_coco / "annotations" / "instances_train2017.json"


def command(name: str, bundle: Path, out: Path, *more: object) -> list[str]:
    return [name, "--model", str(bundle), "--out", str(out), *map(str, more)]


def of_coco(toy_coco: Path, instances: Path) -> tuple[object, ...]:
    return ("--instances", instances, "--images", toy_coco / "train2017")


@pytest.fixture(scope="module")
def annotated(bundle: Path, toy_coco: Path, instances: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """preds.parquet with captions, and labelled.json beside it."""
    folder = tmp_path_factory.mktemp("annotated")
    more = ("--coco-out", folder / "labelled.json", "--captions")
    assert main(command("annotate", bundle, folder / "preds.parquet", *of_coco(toy_coco, instances), *more)) == 0
    return folder


def rows_of(path: Path) -> list[dict[str, object]]:
    """As DuckDB's own reader sees the file."""
    with duckdb.connect() as connection:
        cursor = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


COLUMNS = ["furry", "sleeping", "metal / metallic", 'so-called "new"', "category (2)", "Furry (2)", "round"]


def test_every_object_has_the_scores_that_predict_gives_it(
    annotated: Path, bundle: Path, toy_coco: Path, instances: Path
) -> None:
    rows = rows_of(annotated / "preds.parquet")
    content = json.loads(instances.read_text())
    photographs = {image["id"]: image["file_name"] for image in content["images"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    categories = {category["id"]: category["name"] for category in content["categories"]}
    objects = {one["id"]: one for one in content["annotations"] if not one["iscrowd"]}
    assert {row["object_id"] for row in rows} == set(objects) and len(rows) == len(objects) > 30
    assert list(rows[0]) == ["object_id", "image", "image_size", "box", "category", "caption", *COLUMNS]
    for row in rows:
        one = objects[row["object_id"]]
        assert (row["image"], row["category"]) == (photographs[one["image_id"]], categories[one["category_id"]])
        size = sizes[one["image_id"]]
        assert row["image_size"] == {"width": size[0], "height": size[1]}
        assert list(row["box"].values()) == one["bbox"] and list(row["box"]) == ["x", "y", "width", "height"]
    predictor = Predictor(bundle)
    for image in sorted({row["image"] for row in rows})[::3]:
        mine = [row for row in rows if row["image"] == image]
        boxes = [tuple(objects[row["object_id"]]["bbox"]) for row in mine]
        for row, told in zip(
            mine, predict(predictor, toy_coco / "train2017" / image, boxes, top=len(NAMES)), strict=True
        ):
            scores = {entry["name"]: entry["score"] for entry in told["attributes"]}
            np.testing.assert_allclose([row[column] for column in COLUMNS], [scores[name] for name in NAMES], atol=2e-5)


def test_the_coco_file_has_attributes_and_is_else_as_it_was(annotated: Path, instances: Path) -> None:
    labelled, before = json.loads((annotated / "labelled.json").read_text()), json.loads(instances.read_text())
    rows = {row["object_id"]: row for row in rows_of(annotated / "preds.parquet")}
    least = [0.5 if value is None else value for value in THRESHOLDS]
    for annotation in labelled["annotations"]:
        if annotation["iscrowd"]:
            assert "attributes" not in annotation
            continue
        row = rows[annotation["id"]]
        scores = dict(zip(NAMES, (row[column] for column in COLUMNS), strict=True))
        expected = [name for name, threshold in zip(NAMES, least, strict=True) if scores[name] >= threshold]
        names = annotation.pop("attributes")
        assert sorted(names) == sorted(expected) and [scores[name] for name in names] == sorted(
            (scores[name] for name in names), reverse=True
        )
        line = annotation.pop("caption")
        assert line == row["caption"] and line.endswith(str(row["category"])) and line.startswith(("a ", "an "))
        assert all(name.split(" / ")[0] in line for name in names[:5])
    assert labelled == before
    read = COCO(str(annotated / "labelled.json"))
    assert len(read.getAnnIds()) == len(before["annotations"])
    chosen = [one for one in read.loadAnns(read.getAnnIds(iscrowd=False)) if "round" in one["attributes"]]
    assert len(chosen) == sum(row["round"] >= 0.4 for row in rows.values()) > 0


def test_the_metadata_tell_model_and_thresholds(annotated: Path) -> None:
    info = json.loads(pq.read_schema(annotated / "preds.parquet").metadata[b"attrtrain"])
    assert [(one["name"], one["column"], one["threshold"]) for one in info["attributes"]] == [
        (name, column, 0.5 if value is None else value)
        for name, column, value in zip(NAMES, COLUMNS, THRESHOLDS, strict=True)
    ]
    assert re.fullmatch("[0-9a-f]{64}", info["job"]["model"]) and info["left_out"].keys() == {"crowd"}
    assert info["threshold_note"].startswith("1 of 7 attributes has no threshold")


def killed_after(parts: int, arguments: list[str], out: Path) -> None:
    """Runs a command in a process of its own, four batches a part, and kills it once it has written some parts."""
    script = "import sys\nfrom attrtrain.inference import annotating as a\na._BATCHES, a.PART = 1, a.BATCH\nfrom attrtrain.cli import main\nsys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stderr=subprocess.DEVNULL, start_new_session=True
    )
    folder = out.with_name(f".{out.name}.parts")
    deadline = time.monotonic() + 200
    while len(list(folder.glob("0*.parquet"))) < parts:
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    require_nobody_left(process.pid)


def require_nobody_left(group: int) -> None:
    """Of the processes that were started in this group."""
    deadline = time.monotonic() + 20
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
        pytest.fail("workers go on when the process is gone that they worked for")


@pytest.fixture
def many_boxes(toy_coco: Path, tmp_path: Path) -> Path:
    """A table of 900 boxes, some of which cannot be cut."""
    photographs = sorted((toy_coco / "train2017").glob("*.jpg"))[:30]
    rows = [
        f"{photographs[n % 30].name if n % 50 else 'gone.jpg'},{n % 40},{n % 30},{20 + n % 7},25,thing"
        for n in range(900)
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(["file_name,x,y,w,h,category", *rows]) + "\n")
    return tmp_path / "boxes.csv"


def test_killed_and_run_again_it_goes_on_and_the_bytes_are_those_of_one_run(
    bundle: Path,
    toy_coco: Path,
    many_boxes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(annotating, "_BATCHES", 1)
    monkeypatch.setattr(annotating, "PART", annotating.BATCH)
    inputs = ("--boxes", many_boxes, "--images", toy_coco / "train2017")
    whole, torn = tmp_path / "whole.parquet", tmp_path / "torn.parquet"
    assert main(command("annotate", bundle, whole, *inputs)) == 0
    assert "882 objects, 18 image missing" in capsys.readouterr().out
    killed_after(3, command("annotate", bundle, torn, *inputs), torn)
    killed_after(6, command("annotate", bundle, torn, *inputs, "--workers", "2"), torn)
    other = draw_bundle(tmp_path / "other", seed=3, thresholds=THRESHOLDS)
    assert main(command("annotate", other, torn, *inputs)) == 1
    assert re.search(
        r"(?m)^error: \S+torn\.parquet\.parts: is of other inputs \(differing: model\); .*$", capsys.readouterr().err
    )
    assert main(command("annotate", bundle, torn, *inputs)) == 0
    assert re.search(r"(384|448|512|576|640) of 900 objects are already done", capsys.readouterr().err)
    assert torn.read_bytes() == whole.read_bytes()
    failures = torn.with_suffix(".failures.jsonl")
    assert failures.read_bytes() == whole.with_suffix(".failures.jsonl").read_bytes()
    assert [json.loads(line)["object_id"] for line in failures.read_text().splitlines()] == list(range(0, 900, 50))
    left = {path.name for path in tmp_path.iterdir() if path.is_file() or path.name.startswith(".")}
    assert left == {"boxes.csv"} | {
        f"{name}.{kind}" for name in ("whole", "torn") for kind in ("parquet", "failures.jsonl")
    }
    # A whole result is kept, and is not taken for that of another model or input.
    stamp = torn.stat().st_mtime_ns
    assert main(command("annotate", bundle, torn, *inputs)) == 0
    assert torn.stat().st_mtime_ns == stamp and "already complete" in capsys.readouterr().err
    many_boxes.write_text(many_boxes.read_text().replace(",25,thing", ",26,thing"))
    assert main(command("annotate", bundle, torn, *inputs)) == 1
    assert "differing: objects" in capsys.readouterr().err and torn.stat().st_mtime_ns == stamp


def test_objects_that_were_left_out_of_any_part_are_listed_and_counted(
    bundle: Path, toy_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotating, "BATCH", 4)
    monkeypatch.setattr(annotating, "_BATCHES", 1)
    monkeypatch.setattr(annotating, "PART", 4)
    photograph = min((toy_coco / "train2017").glob("*.jpg")).name
    rows = [f"{photograph},{n},{n},{0 if n in (2, 9) else 25},30" for n in range(12)]
    (tmp_path / "boxes.csv").write_text("\n".join(["file_name,x,y,w,h", *rows]) + "\n")
    inputs = ("--boxes", tmp_path / "boxes.csv", "--images", toy_coco / "train2017", "--max-failure-rate", "1")
    out = tmp_path / "p.parquet"
    assert main(command("annotate", bundle, out, *inputs)) == 0
    listed = [json.loads(line) for line in out.with_suffix(".failures.jsonl").read_text().splitlines()]
    assert [(one["object_id"], one["reason"]) for one in listed] == [(2, "box_empty"), (9, "box_empty")]
    info = json.loads(pq.read_schema(out).metadata[b"attrtrain"])
    assert info["left_out"] == {"box_empty": 2} and info["written"] == 10
    assert [row["object_id"] for row in rows_of(out)] == [n for n in range(12) if n not in (2, 9)]


@pytest.mark.parametrize("whole", [True, False])
def test_a_result_of_other_thresholds_or_categories_is_not_gone_on_with(
    toy_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], whole: bool
) -> None:
    """Thresholds decide what a caption names, and the category what it ends with."""
    photograph = min((toy_coco / "train2017").glob("*.jpg")).name
    table, out = tmp_path / "boxes.csv", tmp_path / "p.parquet"

    def annotate(model: Path, category: str) -> int:
        rows = [f"{photograph},{n},{n},25,30,{category}" for n in range(8)]
        table.write_text("\n".join(["file_name,x,y,w,h,category", *rows]) + "\n")
        inputs = ("--boxes", table, "--images", toy_coco / "train2017", "--captions")
        return main(command("annotate", model, out, *inputs))

    models = [
        draw_bundle(tmp_path / str(number), thresholds=[0.5, 0.3 + number / 10, *THRESHOLDS[2:]]) for number in (0, 1)
    ]
    if whole:
        assert annotate(models[0], "dog") == 0
        place = "p.parquet"
    else:
        with monkeypatch.context() as patch:
            patch.setattr("attrtrain.inference.parts.Parts.merge", lambda *_: pytest.fail("stopped"))
            with pytest.raises(pytest.fail.Exception):
                annotate(models[0], "dog")
        place = r"\.p\.parquet\.parts"
    capsys.readouterr()
    for model, category, differing in ((models[1], "dog", "thresholds"), (models[0], "cat", "objects")):
        assert annotate(model, category) == 1
        told = rf"(?m)^error: \S+{place}: is of other inputs \(differing: {differing}\); .*$"
        assert re.search(told, capsys.readouterr().err)
    assert annotate(models[0], "dog") == 0


def test_too_many_failures_end_with_1_and_a_result_all_the_same(
    bundle: Path, toy_coco: Path, many_boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = ("--boxes", many_boxes, "--images", toy_coco / "train2017", "--max-failure-rate", "0.01")
    for _ in range(2):  # made, and found complete
        assert main(command("annotate", bundle, tmp_path / "p.parquet", *inputs)) == 1
        captured = capsys.readouterr()
        assert "error: 18 of 900 objects (2.0%) were left out, more than --max-failure-rate 0.01" in captured.err
        first = json.loads((tmp_path / "p.failures.jsonl").read_text().splitlines()[0])
        assert f"the first: object {first['object_id']}, {first['detail']}. The result" in captured.err
        assert len(rows_of(tmp_path / "p.parquet")) == 882


@pytest.mark.parametrize(
    ("kind", "split", "framing"),
    [("parquet", "val", Framing()), ("npy", "train", Framing()), ("npy", "val", Framing(fit="pad"))],
)
def test_features_are_what_the_backbone_says_of_shards_and_photographs_alike(
    bundle: Path, toy_coco: Path, toy_shards: Path, tmp_path: Path, kind: str, split: str, framing: Framing
) -> None:
    shards = ShardSet([toy_shards], split)
    same_crops = draw_bundle(tmp_path / "bundle", shards.vocabulary.names, crop=shards.crop, framing=framing)
    stored, cut = tmp_path / f"stored.{kind}", tmp_path / f"cut.{kind}"
    assert main(command("features", same_crops, stored, "--shards", toy_shards, "--split", split)) == 0
    annotations = [toy_coco / "annotations" / f"instances_{split}2017.json" for split in ("train", "val")]
    folders = (toy_coco / "train2017", toy_coco / "val2017")
    assert main(command("features", same_crops, cut, "--instances", *annotations, "--images", *folders)) == 0

    def read(path: Path) -> dict[int, np.ndarray]:
        if kind == "npy":
            rows, features = rows_of(path.with_suffix(".objects.parquet")), np.load(path, allow_pickle=False)
            assert features.dtype == np.float32 and features.shape == (len(rows), 512)
            return {row["object_id"]: feature for row, feature in zip(rows, features, strict=True)}
        return {row["object_id"]: np.array(row["features"], dtype=np.float32) for row in rows_of(path)}

    described, other = read(stored), read(cut)
    model, _ = load_model(same_crops, device="cpu")
    assert list(described) == shards.object_ids.tolist()
    for object_id, feature in described.items():
        np.testing.assert_array_equal(feature, other[object_id])
    from attrtrain.data.decode import decode_crop

    with torch.inference_mode():
        crops = torch.stack([decode_crop(shards.jpeg(row), IMAGE_PX) for row in range(len(shards))])
        expected = model.backbone(model.normalise(crops)).numpy()
    found = np.stack(list(described.values()))
    if framing == Framing():
        np.testing.assert_allclose(found, expected, atol=1e-4)
    else:  # those of squashed crops are others
        assert np.abs(found - expected).max() > 0.1


def test_features_of_several_folders_have_the_ids_that_evaluate_gives_their_objects(
    toy_coco: Path, tmp_path: Path
) -> None:
    """Tables without ids count their rows, so both folders use the same; and they know other categories."""
    photographs = sorted(path.name for path in (toy_coco / "val2017").glob("*.jpg"))
    folders, told = [], []
    for name, mine, kinds in (("a", photographs[:4], ("cat", "dog")), ("b", photographs[4:8], ("ant", "zebra"))):
        rows = [(mine[n % len(mine)], kinds[n % 2], n, n % 3 % 2) for n in range(8)]
        lines = [f"{image},val,{kind},{4 + left},5,30,25,{furry},{1 - furry}" for image, kind, left, furry in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(["file_name,split,category,x,y,w,h,furry,wet", *lines]))
        given = ["--labels", tmp_path / f"{name}.csv", "--images", toy_coco / "val2017", "--out", tmp_path / name]
        assert main(["shard", *map(str, given), "--workers", "1"]) == 0
        folders.append(tmp_path / name)
        told += [(image, kind, 4 + left) for image, kind, left, _ in rows]
    shards = ShardSet([tmp_path / "a"], "val")
    model = draw_bundle(tmp_path / "bundle", ("furry", "wet"), crop=shards.crop)
    out = tmp_path / "features.parquet"
    assert main(command("features", model, out, "--shards", *folders)) == 0
    judged = tmp_path / "judged"
    assert main(command("evaluate", model, judged, "--shards", *folders)) == 0
    rows = rows_of(out)
    ids = [row["object_id"] for row in rows]
    assert len(set(ids)) == len(ids) == 16
    assert ids == read_predictions(judged / "predictions.npz").object_id.tolist()
    assert sorted((row["image"], row["category"], row["box"]["x"]) for row in rows) == sorted(told)


def test_one_object_is_told_as_one(
    bundle: Path, toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = min(path.name for path in (toy_coco / "train2017").iterdir())
    boxes, preds = tmp_path / "boxes.csv", tmp_path / "preds.parquet"
    boxes.write_text(f"file_name,x,y,w,h\n{name},1,1,30,30\n")
    inputs = ("--boxes", boxes, "--images", toy_coco / "train2017")
    assert main(command("annotate", bundle, preds, *inputs)) == 0
    assert capsys.readouterr().out == f"{preds}: 1 object\n"
    assert main(["search", str(preds), "furry >= 0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 object matches"
    boxes.write_text(f"file_name,x,y,w,h\n{name},1,1,30,30\n{name},-9,-9,3,3\n")
    assert main(command("annotate", bundle, tmp_path / "two.parquet", *inputs)) == 1
    assert "error: 1 of 2 objects (50.0%) were left out" in capsys.readouterr().err


def test_search_finds_shows_and_draws(
    annotated: Path, bundle: Path, toy_coco: Path, instances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preds, page = annotated / "preds.parquet", tmp_path / "found.html"
    rows = rows_of(preds)
    chosen = [row for row in rows if row["furry"] >= 0.5 and not row["sleeping"] >= 0.3]
    chosen.sort(key=lambda row: (-row["furry"] * (1 - row["sleeping"]), row["object_id"]))
    assert 5 < len(chosen) < len(rows)
    asked = 'furry AND NOT sleeping and category != "no</title>"'.replace('"', "'")
    images = ("--html", page, "--images", toy_coco / "train2017")
    assert main(["search", str(preds), asked, "--limit", "5", *map(str, images)]) == 0
    lines = capsys.readouterr().out.splitlines()
    scores = [row["furry"] * (1 - row["sleeping"]) for row in chosen[:5]]
    for line, row, score in zip(lines[:5], chosen, scores, strict=False):
        words = [f"{score:.3f}", str(row["object_id"]), row["category"], row["image"]]
        words += ["furry", f"{row['furry']:.3f}", "sleeping", f"{row['sleeping']:.3f}"]
        assert line.split() == " ".join(words).split()
    assert lines[5] == f"{len(chosen)} of {len(rows)} objects match; the best 5 are shown"
    html = page.read_text()
    assert html.count("data:image/webp;base64,") == 5 and "</title>'" not in html and 'src="http' not in html
    text = " ".join(re.sub("<[^>]*>", " ", html.split("<body")[-1]).split())
    assert f"{len(chosen)} objects found; the best 5 are shown. Ranked by joint score." in text
    assert all(
        f"{score:.3f} {row['category']} furry {row['furry']:.3f} sleeping {row['sleeping']:.3f} {row['object_id']} in {row['image']}"
        in text
        for row, score in zip(chosen, scores, strict=False)
    )
    assert main(["search", str(preds), "category = 'unicorn'", "--html", str(page)]) == 0
    assert "0 of" in capsys.readouterr().out and "No object matches" in page.read_text()

    features = tmp_path / "f.parquet"
    assert main(command("features", bundle, features, *of_coco(toy_coco, instances))) == 0
    capsys.readouterr()
    like = rows[3]["object_id"]
    asked_like = ["--like", str(like), "--features", str(features), "--limit", "4", "--html", str(page)]
    assert main(["search", str(preds), *asked_like]) == 0
    assert f"Ranked by likeness to object {like}: the cosine of features." in page.read_text()
    matrix = {
        row["object_id"]: np.array(row["features"]) / np.linalg.norm(row["features"]) for row in rows_of(features)
    }
    nearest = sorted((other for other in matrix if other != like), key=lambda other: -matrix[other] @ matrix[like])
    assert [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()[:4]] == nearest[:4]


def test_an_array_leaves_the_files_of_a_table_beside_it_alone(
    bundle: Path, toy_coco: Path, instances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(instances.read_text())
    content["images"][0]["file_name"] = "gone.jpg"
    (tmp_path / "torn.json").write_text(json.dumps(content))
    torn, whole = (of_coco(toy_coco, one) for one in (tmp_path / "torn.json", instances))
    assert main(command("annotate", bundle, tmp_path / "x.parquet", *torn, "--max-failure-rate", "1")) == 0
    failures = (tmp_path / "x.failures.jsonl").read_bytes()
    assert main(command("features", bundle, tmp_path / "x.npy", *whole)) == 0
    assert (tmp_path / "x.failures.jsonl").read_bytes() == failures
    assert main(command("features", bundle, tmp_path / "y.npy", *torn, "--max-failure-rate", "1")) == 0
    assert (tmp_path / "y.npy.failures.jsonl").read_bytes() == failures

    assert main(command("annotate", bundle, tmp_path / "z.objects.parquet", *whole)) == 0
    before = (tmp_path / "z.objects.parquet").read_bytes()
    assert main(command("features", bundle, tmp_path / "z.npy", *whole)) == 1
    assert "z.objects.parquet: is of other inputs (differing: kind" in capsys.readouterr().err
    assert (tmp_path / "z.objects.parquet").read_bytes() == before

    like = [
        "search",
        str(tmp_path / "z.objects.parquet"),
        "--like",
        "3",
        "--features",
        str(tmp_path / "x.objects.parquet"),
    ]
    assert main(like) == 2
    assert "needs the .parquet file that `attrtrain features` writes" in capsys.readouterr().err


def test_attributes_that_annotations_had_are_not_beside_ours(
    bundle: Path, toy_coco: Path, instances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(instances.read_text())
    for one in content["annotations"]:
        one.update(attributes={"occluded": False}, caption="mine")
    content["annotations"][0]["iscrowd"] = 1
    (tmp_path / "theirs.json").write_text(json.dumps(content))
    more = ("--coco-out", tmp_path / "ours.json", "--max-failure-rate", "1")
    assert (
        main(command("annotate", bundle, tmp_path / "p.parquet", *of_coco(toy_coco, tmp_path / "theirs.json"), *more))
        == 0
    )
    told = capsys.readouterr().err
    assert f"note: {len(content['annotations']):,} annotations of" in told
    assert "had `attributes` of their own" in told and "caption" not in told  # which stay
    written = json.loads((tmp_path / "ours.json").read_text())["annotations"]
    assert all(isinstance(one.get("attributes"), list) != bool(one["iscrowd"]) for one in written)
    assert sum("attributes" in one for one in written) == sum(not one["iscrowd"] for one in written)
    assert {one["caption"] for one in written} == {"mine"}  # no captions were asked for


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["annotate", "--out", "p.parquet"], "--instances or with --boxes"),
        (["annotate", "--out", "p.parquet", "--instances", "{i}", "--boxes", "b.csv"], "--instances or with --boxes"),
        (["annotate", "--out", "p.parquet", "--instances", "{i}"], "--images"),
        (["annotate", "--out", "p.parquet", "--instances", "{i}", "--images", "nowhere"], "--images nowhere: no such folder"),
        (["annotate", "--out", "p.csv", "--instances", "{i}", "--images", "{v}"], "ends in .parquet"),
        (["annotate", "--out", "p.parquet", "--instances", "no.json", "--images", "{v}"], "no.json: no such file"),
        (["annotate", "--out", "p.parquet", "--boxes", "{i}", "--images", "{v}", "--coco-out", "c.json"], "--coco-out"),
        (["annotate", "--out", "{text}", "--instances", "{i}", "--images", "{v}", "--coco-out", "./text.parquet"], "the file of --out"),
        (["annotate", "--out", "p.parquet", "--instances", "{text}", "--images", "{v}", "--coco-out", "{text}"], "the file of --instances"),
        (["annotate", "--out", "p.parquet", "--instances", "{i}", "--images", "{v}", "--coco-out", "{v}"], "is a folder"),
        (["annotate", "--out", "p.parquet", "--instances", "{i}", "--images", "{v}", "--coco-out", "{text}/c.json"], "cannot be written there"),
        (["annotate", "--out", "p.parquet", "--instances", "{i}", "--images", "{v}", "--workers", "-2"], "--workers -2"),
        (["annotate", "--out", "p.parquet", "--instances", "{i}", "--images", "{v}", "--model", "{v}"], "no bundle here"),
        (["annotate", "--out", "{text}", "--instances", "{i}", "--images", "{v}"], "not a file that"),
        (["features", "--out", "f.npy", "--shards", "{v}", "--images", "{v}"], "--shards hold crops already"),
        (["features", "--out", "f.npy", "--shards", "{v}", "--instances", "{i}"], "--shards hold crops already"),
        (["features", "--out", "f.npy", "--shards", "{v}", "--boxes", "b.csv"], "--shards hold crops already"),
        (["features", "--out", "f.npy", "--instances", "{i}", "--images", "nowhere"], "--images nowhere: no such folder"),
        (["features", "--out", "f.npy"], "--instances, --boxes or --shards"),
        (["features", "--out", "f.npy", "--instances", "{i}", "--images", "{v}", "--split", "val"], "--split val chooses among the objects of --shards"),
        (["features", "--out", "f.npy", "--shards", "{v}"], "no shard folder"),
        (["features", "--out", "f.csv", "--shards", "{v}"], "ends in .parquet or .npy"),
        (["search", "{text}", "furry"], "not a file that"),
        (["search", "{p}"], "nothing to search for"),
        (["search", "{p}", " "], "nothing to search for"),
        (["search", "{p}", "furry", "--images", "{v}"], "say where to write it with --html"),
        (["search", "{p}", "furry", "--images", "nowhere", "--html", "x.html"], "--images nowhere: no such folder"),
        (["search", "{p}", "--like", "3", "--features", "{text}", "--html", "./text.parquet"], "would replace what is searched"),
        (["search", "{p}", "furry", "--features", "{text}"], "--like and --features go together"),
        (["search", "{p}", "fury"], "did you mean furry"),
        (["search", "{p}", "furry", "--like", "3"], "--like and --features go together"),
        (["search", "{p}", "furry", "--limit", "0"], "--limit 0"),
        (["search", "{p}", "furry", "--limit", "9" * 30], "between 1 and 1,000,000"),
        (["search", "{p}", "furry", "--html", "{p}"], "would replace what is searched"),
        (["search", "{p}", "furry", "--html", "{v}/no/such/x.html"], "--html"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    bundle: Path, toy_coco: Path, instances: Path, annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, words: list[str], told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.parquet").write_text("mine")
    names = {
        "i": instances,
        "v": toy_coco / "train2017",
        "p": annotated / "preds.parquet",
        "text": tmp_path / "text.parquet",
    }
    given = [word.format(**names) for word in words]
    if words[0] != "search" and "--model" not in words:
        given += ["--model", str(bundle)]
    assert main(given) in (1, 2)
    error = capsys.readouterr().err
    last = error.splitlines()[-1]
    assert last.startswith("error: ") and told in last
    assert all(line.startswith("note: ") for line in error.splitlines()[:-1])
    assert (tmp_path / "text.parquet").read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == [
        "text.parquet"
    ]


def test_help_of_these_commands_imports_nothing_heavy() -> None:
    for name in ("annotate", "features", "search", "predict"):
        script = (
            f"import sys\nfrom attrtrain.cli import main\ntry: main(['{name}', '--help'])\nexcept SystemExit: pass\n"
            "print([name for name in ('torch', 'duckdb', 'pyarrow', 'PIL', 'numpy', 'pydantic') if name in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stderr == "[]\n" and f"attrtrain {name} " in done.stdout.split("examples:")[-1]


def test_a_picture_that_is_gone_costs_its_card_only(annotated: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "other.png")
    page = tmp_path / "p.html"
    assert (
        main(
            [
                "search",
                str(annotated / "preds.parquet"),
                "object_id >= 0",
                "--html",
                str(page),
                "--images",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert page.read_text().count("image missing") == 20 and "data:image/" not in page.read_text()


def test_crops_are_from_where_they_were_annotated_and_a_page_without_any_says_what_to_do(
    annotated: Path, tmp_path: Path
) -> None:
    page, preds = tmp_path / "p.html", annotated / "preds.parquet"
    assert main(["search", str(preds), "object_id >= 0", "--html", str(page)]) == 0
    assert page.read_text().count("data:image/") == 20
    table = pq.read_table(preds)
    info = json.loads(table.schema.metadata[b"attrtrain"])
    info["job"]["images"] = [str(tmp_path / "gone"), "http://127.0.0.1:9/photos"]
    pq.write_table(table.replace_schema_metadata({b"attrtrain": json.dumps(info)}), tmp_path / "moved.parquet")
    assert main(["search", str(tmp_path / "moved.parquet"), "object_id >= 0", "--html", str(page)]) == 0
    assert page.read_text().count("say with --images where") == 20 and "data:image/" not in page.read_text()
    earlier = tmp_path / "earlier.parquet"
    pq.write_table(pq.read_table(preds).drop_columns(["image_size"]), earlier)  # as first versions wrote it
    assert main(["search", str(earlier), "object_id >= 0", "--html", str(page)]) == 0
    assert page.read_text().count("data:image/") == 20


def test_names_that_are_no_text_cost_nothing(
    bundle: Path, toy_coco: Path, toy_shards: Path, instances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of folders and files that were named in another encoding than UTF-8."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(toy_coco / "train2017", folder / "images")
    gone = json.loads(instances.read_text())["images"][0]["file_name"]
    (folder / "images" / gone).unlink()
    (folder / "images" / gone).write_bytes(b"no picture")
    preds, features, page = folder / "preds.parquet", folder / "features.parquet", folder / "found.html"
    of = ("--instances", instances, "--images", folder / "images", "--max-failure-rate", "1")
    assert main(command("annotate", bundle, preds, *of, "--coco-out", folder / "labelled.json")) == 0
    failures = [json.loads(line) for line in preds.with_suffix(".failures.jsonl").read_text().splitlines()]
    assert any(one["image"] == gone and r"caf\udce9/images" in one["detail"] for one in failures)
    info = json.loads(pq.read_schema(io.BytesIO(preds.read_bytes())).metadata[b"attrtrain"])
    assert info["job"]["images"] == [rf"{tmp_path}/caf\udce9/images"]
    again = [sys.executable, "-m", "attrtrain", *command("annotate", bundle, preds, *of)]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0 and r"caf\udce9/preds.parquet is already complete" in done.stderr, done.stderr
    assert main(command("features", bundle, features, *of)) == 0
    assert main(command("features", bundle, folder / "features.npy", *of)) == 0
    shutil.copytree(toy_shards, folder / "shards")
    shards = ShardSet([toy_shards], "val")
    fitting = draw_bundle(tmp_path / "bundle", shards.vocabulary.names, crop=shards.crop)
    assert main(command("features", fitting, folder / "stored.npy", "--shards", folder / "shards")) == 0
    capsys.readouterr()
    like = min(
        annotation["id"]
        for annotation in json.loads((folder / "labelled.json").read_text())["annotations"]
        if "attributes" in annotation
    )
    search = ["search", str(preds), "--like", str(like), "--features", str(features), "--limit", "4"]
    assert main([*search, "--html", str(page), "--images", str(folder / "images")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6 and page.read_text().count("data:image/webp;base64,") == 4
    none = [sys.executable, "-m", "attrtrain", "search", str(folder / "none.parquet"), "furry"]
    done = subprocess.run(none, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, rf"error: {tmp_path}/caf\udce9/none.parquet: no such file" + "\n")


@pytest.mark.parametrize(("context", "corner"), [(None, (40, 90, 40)), (0.0, (250, 10, 10))])
def test_a_found_crop_is_shown_as_the_model_saw_it(
    tmp_path: Path, context: float | None, corner: tuple[int, int, int]
) -> None:
    """The annotation means the frame in which the picture is stored, which its orientation would turn; and of what is
    around the box, the model sees what it was trained to see.
    """
    pixels = np.full((80, 120, 3), (40, 90, 40), dtype=np.uint8)
    pixels[20:60, 10:40] = (250, 10, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.jpg", quality=95, exif=exif)
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 120, "height": 80}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    crop, framing = CropSettings(store_px=48, quality=95, context=0.3), Framing(context=context, fit="pad")
    model = draw_bundle(tmp_path / "bundle", crop=crop, framing=framing)
    of = ("--instances", tmp_path / "boxes.json", "--images", tmp_path / "images")
    assert main(command("annotate", model, tmp_path / "preds.parquet", *of)) == 0
    page = tmp_path / "found.html"
    assert main(["search", str(tmp_path / "preds.parquet"), "object_id = 1", "--html", str(page)]) == 0
    (uri,) = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page.read_text())
    with Image.open(io.BytesIO(base64.b64decode(uri))) as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    height, width = shown.shape[:2]
    assert height == width  # padded
    beside = round((1 - 30 / 40) / 2 * width) + 2
    assert np.abs(shown[height // 2, width // 2] - (250, 10, 10)).max() < 40
    assert np.abs(shown[2, beside] - corner).max() < 40, shown[2, beside]
    assert np.abs(shown[height // 2, 1] - (124, 116, 104)).max() < 40


def test_scores_are_of_the_frame_that_the_annotation_means(bundle: Path, tmp_path: Path) -> None:
    """A turned picture whose annotation gives the size as stored has the scores of the same pixels without an
    orientation.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((120, 80))
    (tmp_path / "images").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, exif in (("plain", Image.Exif()), ("as stored", turned), ("upright", turned)):
        picture.save(tmp_path / "images" / f"{name}.png", exif=exif)
    sizes = {"plain": (120, 80), "as stored": (120, 80), "upright": (80, 120)}
    box = [10, 20, 30, 40]
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.png", "width": width, "height": height}
            for number, (name, (width, height)) in enumerate(sizes.items())
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
            for number in range(len(sizes))
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    of = ("--instances", tmp_path / "boxes.json", "--images", tmp_path / "images")
    assert main(command("annotate", bundle, tmp_path / "preds.parquet", *of)) == 0
    scores = {
        str(row["image"]).removesuffix(".png"): np.array([row[column] for column in COLUMNS])
        for row in rows_of(tmp_path / "preds.parquet")
    }
    np.testing.assert_allclose(scores["as stored"], scores["plain"], atol=1e-6)
    assert np.abs(scores["upright"] - scores["plain"]).max() > 0.05


def test_attributes_may_have_names_that_arrow_gives_to_columns_of_its_own(
    toy_coco: Path, instances: Path, tmp_path: Path
) -> None:
    names = ("__filename", "__fragment_index", "round")
    bundle = draw_bundle(tmp_path / "bundle", names=names)
    assert main(command("annotate", bundle, tmp_path / "preds.parquet", *of_coco(toy_coco, instances))) == 0
    assert set(names) < set(rows_of(tmp_path / "preds.parquet")[0])


def test_a_page_without_pictures_says_so_in_the_terminal(
    annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "found.html"
    more = ("--limit", "2", "--html", str(page), "--images", str(tmp_path))
    assert main(["search", str(annotated / "preds.parquet"), "furry OR NOT furry", *more]) == 0
    assert f"{page} shows them; 2 without a picture: image missing" in capsys.readouterr().out


def test_a_coco_file_that_may_not_be_written_is_told_before_the_work(
    toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "attrtrain.inference.objects.read_objects", lambda *_: pytest.fail("hours that come to nothing")
    )
    monkeypatch.setattr("attrtrain.urls.os.access", lambda *_: False)  # root may write to whatever mode forbids
    given = ["--instances", toy_coco / "annotations" / "instances_val2017.json", "--images", toy_coco / "val2017"]
    outs = ["--out", tmp_path / "preds.parquet", "--coco-out", tmp_path / "labelled.json"]
    assert main(["annotate", "--model", "absent", *map(str, [*given, *outs])]) == 2
    assert capsys.readouterr().err == f"error: --coco-out {tmp_path}: Permission denied\n"

import json
import pickletools
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from attrtrain.annotations.coco import join, read_instances
from attrtrain.annotations.coco_attributes import read_coco_attributes
from attrtrain.annotations.safe_pickle import load_pickle
from attrtrain.annotations.split import check_image_in_one_split
from attrtrain.shards.manifest import read_manifest
from tools.make_toy_coco import draw_toy_coco, main
from tools.toy_scenes import ATTRIBUTES, chances_of_yes, draw_scene, plan_scene

INSTANCES = ("annotations/instances_train2017.json", "annotations/instances_val2017.json")


def read_annotations(folder: Path) -> list[dict]:
    return [annotation for name in INSTANCES for annotation in json.loads((folder / name).read_text())["annotations"]]


def read_table(folder: Path):
    read = read_coco_attributes(folder / "cocottributes.pkl")
    instances = read_instances([folder / name for name in INSTANCES])
    return join(read.vocabulary, read.annotation_ids, read.splits, read.labels, (), instances)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_photograph_is_in_the_folder_whose_json_lists_it(toy_coco):
    listed = 0
    for name in ("train2017", "val2017"):
        images = json.loads((toy_coco / "annotations" / f"instances_{name}.json").read_text())["images"]
        assert sorted(image["file_name"] for image in images) == sorted(p.name for p in (toy_coco / name).iterdir())
        for image in images:
            assert image["file_name"] == f"{image['id']:012d}.jpg"
            with Image.open(toy_coco / name / image["file_name"]) as photograph:
                assert photograph.size == (image["width"], image["height"])
        listed += len(images)
    assert listed == 40


def test_scenes_hold_three_to_seven_objects_whose_boxes_hardly_overlap():
    for number in range(60):
        scene = plan_scene(3, number)
        assert 3 <= len(scene.objects) <= 7
        boxes = np.array([toy.box() for toy in scene.objects])
        near, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        assert (near >= 0).all() and (far <= (scene.width, scene.height)).all()
        shared = np.clip(np.minimum(far[:, None], far) - np.maximum(near[:, None], near), 0, None).prod(axis=2)
        np.fill_diagonal(shared, 0)
        assert (shared / boxes[:, 2:].prod(axis=1)).max() < 0.25


def test_an_object_stands_out_inside_its_outline_and_ends_at_its_box():
    """Photographed without and with an object, a scene differs where the outline says, and nowhere beyond the box."""
    for number in range(12):
        scene = plan_scene(1, number)
        toy = next(toy for toy in scene.objects if not toy.shadow)
        without = scene.__class__(**{**vars(scene), "objects": tuple(o for o in scene.objects if o != toy)})
        pictures = [np.asarray(draw_scene(s), dtype=int) for s in (scene, without)]
        differs = np.abs(pictures[0] - pictures[1]).max(axis=2) > 12
        rows, columns = np.nonzero(differs)
        x, y, width, height = toy.box()
        assert abs(columns.min() - x) <= 2 and abs(columns.max() + 1 - (x + width)) <= 2
        assert abs(rows.min() - y) <= 2 and abs(rows.max() + 1 - (y + height)) <= 2
        outline = Image.new("1", (scene.width, scene.height))
        for polygon in toy.outlines():
            ImageDraw.Draw(outline).polygon(polygon.ravel().tolist(), fill=1)
        expected = 0.4 if toy.category in ("ring", "frame") else 0.8
        assert differs[np.asarray(outline)].mean() > expected, (number, toy)


def test_labels_say_what_is_drawn(toy_coco):
    """Where annotators cannot doubt, the votes follow the object; a column out of place would not."""
    table = read_table(toy_coco)
    toys = {}
    for number in range(40):
        scene = plan_scene(0, number)
        toys |= {scene.image_id * 8 + place: (toy, scene) for place, toy in enumerate(scene.objects)}
    assert table.vocabulary.names == tuple(name for name, _ in ATTRIBUTES)
    for column, name in enumerate(table.vocabulary.names):
        chances = np.array([chances_of_yes(*toys[annotation])[name] for annotation in table.object_id.tolist()])
        votes = table.labels[:, column]
        assert np.nanmean(votes[chances > 0.9]) > 0.85, name
        assert np.nanmean(votes[chances < 0.1]) < 0.1, name


@pytest.mark.parametrize(("name", "channel", "factor"), [("red", 0, 3), ("green", 1, 2), ("blue", 2, 1.5)])
def test_objects_labelled_with_a_colour_have_such_pixels_and_others_have_not(toy_coco, name, channel, factor):
    table = read_table(toy_coco)
    shares = np.empty(len(table))  # of the box's pixels, those where this channel rules
    for row, (x, y, width, height) in enumerate(table.box):
        path = next(p for p in (toy_coco / d / table.image[row] for d in ("train2017", "val2017")) if p.exists())
        with Image.open(path) as photograph:
            pixels = np.asarray(photograph.crop((int(x), int(y), int(x + width), int(y + height))), dtype=float)
        shares[row] = (pixels[..., channel] > factor * np.delete(pixels, channel, axis=2).max(axis=2)).mean()
    votes = table.labels[:, table.vocabulary.names.index(name)]
    assert np.median(shares[votes >= 0.5]) > 0.25
    assert np.median(shares[votes < 0.5]) < 0.01
    assert np.mean(shares[votes >= 0.5] > 0.05) > 0.9
    assert np.mean(shares[votes < 0.5] < 0.05) > 0.9


def test_votes_are_shares_rare_enough_and_a_quarter_unknown(tmp_path):
    draw_toy_coco(tmp_path / "toy", photographs=80, seed=1)
    labels = read_coco_attributes(tmp_path / "toy" / "cocottributes.pkl").labels
    known = ~np.isnan(labels)
    assert 0.2 <= 1 - known.mean() <= 0.3
    assert set(labels[known].astype(float).round(3).tolist()) == {0, 0.2, 0.333, 0.4, 0.6, 0.667, 0.8, 1}
    rates = (labels >= 0.5).sum(axis=0) / known.sum(axis=0)
    assert 0.15 <= rates.mean() <= 0.22
    assert (rates < 0.3).sum() >= 27 and rates.max() < 0.5 and rates.min() > 0.02
    for split in np.unique(splits := read_coco_attributes(tmp_path / "toy" / "cocottributes.pkl").splits):
        positives = (labels[splits == split] >= 0.5).sum(axis=0)
        negatives = (labels[splits == split] < 0.5).sum(axis=0)
        assert (positives > 0).all() and (negatives > 0).all()


def test_the_official_split_goes_by_photograph_and_val2014_lies_in_both_folders(toy_coco):
    table = read_table(toy_coco)
    check_image_in_one_split(table)
    folder_of = {path.name: path.parent.name for path in toy_coco.glob("*2017/*.jpg")}
    places = Counter((split, folder_of[image]) for split, image in zip(table.split, table.image, strict=True))
    assert set(places) == {("train", "train2017"), ("val", "train2017"), ("val", "val2017")}
    assert 0.15 < (table.split == "val").mean() < 0.35


def test_crowds_unlabelled_objects_and_labels_of_no_object_occur(toy_coco):
    table, annotations = read_table(toy_coco), read_annotations(toy_coco)
    ids = [annotation["id"] for annotation in annotations]
    assert len(set(ids)) == len(ids)
    crowds = [annotation for annotation in annotations if annotation["iscrowd"]]
    assert 0 < len(crowds) < 0.04 * len(annotations)
    assert all(isinstance(crowd["segmentation"], dict) for crowd in crowds)
    assert 0 < len(table.unmatched) < 0.06 * len(table)
    assert len(set(ids) - set(table.object_id.tolist())) > len(
        table.unmatched
    )  # more than those whose label points elsewhere


def test_the_label_file_is_laid_out_as_published(toy_coco):
    data = (toy_coco / "cocottributes.pkl").read_bytes()
    assert b"numpy.core.multiarray" in data and b"numpy._core" not in data
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(data)) == 0
    content = load_pickle(toy_coco / "cocottributes.pkl")
    assert set(content) == {"attributes", "ann_vecs", "patch_id_to_ann_id", "split"}
    assert type(content["patch_id_to_ann_id"]) is defaultdict and content["patch_id_to_ann_id"].default_factory is int
    assert set(content["split"].values()) == {"train2014", "val2014"}
    assert all(vector.dtype == np.float64 and vector.min() >= -1 for vector in content["ann_vecs"].values())
    ids = [record["id"] for record in content["attributes"]]
    assert ids != sorted(ids) and max(ids) - min(ids) >= len(ids)  # in no order, with gaps
    assert sum(record["name"] != record["name"].strip() for record in content["attributes"]) == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # pycocotools'
def test_pycocotools_reads_the_annotations(toy_coco):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed").COCO
    for name in INSTANCES:
        api = coco(str(toy_coco / name))
        for annotation in api.loadAnns(api.getAnnIds()):
            mask = api.annToMask(annotation)  # (H, W)
            x, y, width, height = annotation["bbox"]
            rows, columns = np.nonzero(mask)
            assert abs(columns.min() - x) <= 3 and abs(columns.max() + 1 - x - width) <= 3
            assert abs(rows.min() - y) <= 3 and abs(rows.max() + 1 - y - height) <= 3
            assert mask.sum() == pytest.approx(annotation["area"], rel=0.12)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        draw_toy_coco(tmp_path / name, photographs=8, seed=seed)
    one, two, three = (files_of(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert all(one[name] != three[name] for name in one)


def test_a_larger_set_begins_with_the_photographs_of_a_smaller_one(tmp_path, toy_coco):
    draw_toy_coco(tmp_path / "toy", photographs=8, seed=0)
    photographs = {name: data for name, data in files_of(tmp_path / "toy").items() if name.endswith(".jpg")}
    assert len(photographs) == 8
    assert photographs.items() <= files_of(toy_coco).items()


def test_drawing_again_leaves_the_folder_alone_and_prints_the_next_command(tmp_path, capsys):
    out = tmp_path / "my toy"
    assert main([str(out), "--photographs", "8"]) == 0
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main([str(out), "--photographs", "8"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert f"attrtrain shard --labels '{out}'/cocottributes.pkl --instances " in first


@pytest.mark.parametrize(
    "case", ["other arguments", "other files", "a photograph is gone", "a file", "no folder possible"]
)
def test_a_folder_that_cannot_be_used_is_one_clear_line(tmp_path, capsys, case):
    out = tmp_path / "toy"
    match case:
        case "other arguments":
            draw_toy_coco(out, photographs=8, seed=1)
        case "other files":
            out.mkdir()
            (out / "thesis.txt").write_text("years of work")
        case "a photograph is gone":
            draw_toy_coco(out, photographs=8, seed=0)
            next(out.glob("*2017/*.jpg")).unlink()
        case "a file":
            out.write_text("")
        case "no folder possible":
            (tmp_path / "blocked").write_text("")
            out = tmp_path / "blocked" / "toy"
    before = files_of(tmp_path)
    assert main([str(out), "--photographs", "8"]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: {out}: ") and message.count("\n") == 1
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("words", [["--photographs", "7"], ["--seed", "-1"]])
def test_too_few_photographs_are_a_usage_error(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as refused:
        main([str(tmp_path / "toy"), *words])
    assert refused.value.code == 2 and "--photographs must be at least 8, --seed at least 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_stopped_drawing_left_is_replaced(tmp_path):
    (tmp_path / ".toy.partial" / "train2017").mkdir(parents=True)
    (tmp_path / ".toy.partial" / "train2017" / "000000000001.jpg").write_bytes(b"half")
    draw_toy_coco(tmp_path / "toy", photographs=8, seed=0)
    assert len(list(tmp_path.glob("toy/*2017/*.jpg"))) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_the_shards_of_the_toy_hold_every_object_but_the_crowds(toy_coco, toy_shards):
    table, summary = read_table(toy_coco), json.loads((toy_shards / "summary.json").read_text())
    assert summary["left_out"] == {"crowd": int(table.crowd.sum())}
    assert summary["written"] == int((~table.crowd).sum()) and summary["no_annotation"] == len(table.unmatched)
    shards = Counter(shard.split for shard in read_manifest(toy_shards).shards)
    assert shards["train"] > 2 and shards["val"] > 1

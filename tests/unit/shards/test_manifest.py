"""The contract between writing and reading: strict, and clear about what is wrong."""

import json

import numpy as np
import pytest
from drawn import draw_photographs, make_table, shard
from pydantic import ValidationError

from attrtrain.errors import ShardError
from attrtrain.shards.manifest import (
    CropSettings,
    ShardInfo,
    read_manifest,
    split_statistics,
    unlabelled_attributes,
)


@pytest.fixture(scope="module")
def manifest_json(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    table = make_table(photographs=4, objects=2)
    draw_photographs(folder / "images", table)
    shard(folder / "out", table, folder / "images")
    return json.loads((folder / "out" / "manifest.json").read_text())


def read_changed(folder, content):
    (folder / "manifest.json").write_text(json.dumps(content))
    return read_manifest(folder)


def test_what_was_written_is_read(tmp_path, manifest_json):
    manifest = read_changed(tmp_path, manifest_json)
    assert manifest.vocabulary.vocabulary() == make_table().vocabulary
    assert manifest.categories == sorted(manifest.categories)
    assert manifest.sources[0].name == "labels.csv"
    assert manifest.crop == CropSettings(store_px=24)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"shards": [{"name": "x"}]}, "shards.0"),
        ({"index_sha256": 7}, "index_sha256"),
        ({"crop": {"store_px": 1, "quality": 90, "context": 0}}, "crop.store_px"),
    ],
)
def test_another_version_or_content_is_refused_with_the_field(tmp_path, manifest_json, change, named):
    with pytest.raises(ShardError, match=rf"manifest\.json.*{named}"):
        read_changed(tmp_path, {**manifest_json, **change})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"null"])
def test_what_is_no_json_object_is_one_clear_line(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ShardError, match=r"manifest\.json: damaged") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_without_a_manifest_say_which_kind_they_are(tmp_path):
    with pytest.raises(ShardError, match="no such shard folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(ShardError, match="no shard folder"):
        read_manifest(tmp_path)
    (tmp_path / "plan.json").touch()
    with pytest.raises(ShardError, match="not finished; run the same"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("field", ["fingerprint", "index_sha256", "labels_sha256", "shards"])
def test_the_fingerprint_follows_every_checksum(tmp_path, manifest_json, field):
    other = json.loads(json.dumps(manifest_json))
    match field:
        case "fingerprint":
            other["vocabulary"]["names"][0] = "renamed"
            other["vocabulary"]["fingerprint"] = read_changed(tmp_path, other).vocabulary.vocabulary().fingerprint
        case "shards":
            other["shards"][0]["sha256"] = "0" * 64
        case _:
            other[field] = "0" * 64
    assert read_changed(tmp_path, other).fingerprint != read_changed(tmp_path, manifest_json).fingerprint


def test_the_fingerprint_leaves_sources_and_notes_out(tmp_path, manifest_json):
    same = {**manifest_json, "sources": [], "split_note": "otherwise told"}
    assert read_changed(tmp_path, same).fingerprint == read_changed(tmp_path, manifest_json).fingerprint


@pytest.mark.parametrize(
    "bad", [{"store_px": 7}, {"quality": 0}, {"quality": 101}, {"context": -0.1}, {"context": float("nan")}]
)
def test_crop_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValidationError):
        CropSettings(**bad)


def test_statistics_count_a_vote_of_one_half_as_positive():
    index = np.zeros(3, dtype=[("shard", "<i4"), ("image_id", "<i8")])
    labels = np.array([[0.5, np.nan], [0.49, 1], [1, np.nan]], dtype=np.float32)
    info = ShardInfo(name="a.tar", split="train", samples=3, bytes=1, sha256="")
    counts = split_statistics(index, labels, [info])["train"]
    assert (counts.objects, counts.images) == (3, 1)
    assert (counts.positives, counts.negatives, counts.unknowns) == ([2, 1], [1, 0], [0, 2])


def test_attributes_without_a_known_label_are_found_over_all_folders(tmp_path, manifest_json):
    names = manifest_json["vocabulary"]["names"]
    nothing = {"positives": [0] * len(names), "negatives": [0] * len(names), "unknowns": [4] * len(names)}
    assert len(names) > 3
    known = {
        **nothing,
        "positives": [0, 2, 1] + [0] * (len(names) - 3),
        "negatives": [1, 0, 1] + [0] * (len(names) - 3),
    }
    splits = [{"train": {"objects": 4, "images": 2, **counts}} for counts in (nothing, known)]
    manifests = [read_changed(tmp_path, {**manifest_json, "splits": split}) for split in splits]
    assert unlabelled_attributes(manifests[:1], "train") == names
    assert unlabelled_attributes(manifests, "train") == names[3:]

"""Shard folders, read back by the standard library, GNU tar, Pillow, webdataset, and plain loops."""

import io
import json
import pickle
import shutil
import subprocess
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import HEIGHT, WIDTH, changed, content_of, draw_photographs, make_table, read_with_webdataset, shard
from PIL import Image

from attrtrain.errors import ShardError
from attrtrain.files import atomic_write, create_once
from attrtrain.shards import finish, photographs, write
from attrtrain.shards.manifest import INDEX_DTYPE, CropSettings, read_manifest
from attrtrain.shards.plan import make_plan

CROP = CropSettings(store_px=24)


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def images(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("images")
    draw_photographs(folder, table)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, table, images):
    out = tmp_path_factory.mktemp("shards") / "out"
    shard(out, table, images)
    return out


def tars(folder):
    return [folder / info.name for info in read_manifest(folder).shards]


# --- the tars, to other programs


def test_members_are_ustar_without_time_or_owner(folder, table):
    names = []
    for path in tars(folder):
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
        content = path.read_bytes()
        assert content[-1024:] == bytes(1024)
        for member in members:
            header = content[member.offset : member.offset + 512]
            assert header[257:265] == b"ustar\x0000"
            assert header[156:157] == b"0"  # a plain file
            owner = (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode)
            assert owner == (0, 0, 0, "", "", 0o644)
        names += [member.name for member in members]
    assert sorted(names) == sorted(f"{i:012d}.{kind}" for i in table.object_id for kind in ("jpg", "json"))


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs a tar program")
def test_the_tar_program_lists_and_unpacks_them(folder, tmp_path):
    for path in tars(folder):
        listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True)
        with tarfile.open(path) as tar:
            assert listed.stdout.split() == tar.getnames()
        assert listed.stderr == ""
        subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True)
    assert (
        len(list(tmp_path.glob("*.jpg")))
        == read_manifest(folder).splits["train"].objects + read_manifest(folder).splits["val"].objects
    )


def test_plain_webdataset_reads_every_sample_with_the_content_of_the_table(folder, table):
    samples = read_with_webdataset(tars(folder))
    assert [int(sample["__key__"]) for sample in samples] == np.load(folder / "index.npy")["object_id"].tolist()
    assert len(samples) == len(table)
    row_of = {object_id: row for row, object_id in enumerate(table.object_id.tolist())}
    for sample in samples:
        content, row = json.loads(sample["json"]), row_of[int(sample["__key__"])]
        known = {table.vocabulary.names[i]: label for i, label in enumerate(table.labels[row]) if not np.isnan(label)}
        assert max(map(len, map(str, content["labels"].values())), default=0) <= 10  # 0.1, not 0.10000000149011612
        assert content.pop("labels") == known  # equal as float32, to the last bit
        crop = Image.open(io.BytesIO(sample["jpg"]))
        assert content.pop("crop_size") == list(crop.size)
        x, y, width, height = content.pop("box")
        assert 0 <= x <= x + width <= crop.width + 0.002 and 0 <= y <= y + height <= crop.height + 0.002
        assert content == {
            "object_id": table.object_id[row],
            "image_id": table.image_id[row],
            "image": table.image[row],
            "category": table.category[row],
            "split": table.split[row],
            "source_size": [WIDTH, HEIGHT],
            "source_box": table.box[row].tolist(),
        }


def test_keys_of_more_than_twelve_digits_stay_whole_and_apart(tmp_path, table, images):
    wide = [10**12, 10**13, 2**63 - 1, 123456789012345678]
    table = replace(table.take(np.arange(4)), object_id=np.array(wide, dtype=np.int64))
    shard(tmp_path / "out", table, images)
    samples = read_with_webdataset(tars(tmp_path / "out"))
    assert {int(sample["__key__"]) for sample in samples} == set(wide)
    assert sorted(np.load(tmp_path / "out" / "index.npy")["object_id"].tolist()) == sorted(wide)


# --- the arrays beside them


def test_the_index_points_at_the_exact_bytes(folder, table):
    index = np.load(folder / "index.npy", mmap_mode="r", allow_pickle=False)
    assert index.dtype == INDEX_DTYPE
    position, manifest = 0, read_manifest(folder)
    for number, path in enumerate(tars(folder)):
        end = 0
        with tarfile.open(path) as tar:
            for member in tar.getmembers()[::2]:
                entry = index[position]
                picture = tar.extractfile(member).read()
                assert path.read_bytes()[entry["jpeg_offset"] :][: entry["jpeg_bytes"]] == picture
                assert (entry["width"], entry["height"]) == Image.open(io.BytesIO(picture)).size
                assert (entry["shard"], entry["start"]) == (number, end)
                assert entry["start"] == member.offset
                end, position = entry["end"], position + 1
        assert end == path.stat().st_size - 1024
    assert position == len(index) == len(table)
    rows = np.argsort(table.object_id)[np.searchsorted(np.sort(table.object_id), index["object_id"])]
    assert (index["image_id"] == table.image_id[rows]).all()
    assert [manifest.categories[i] for i in index["category"]] == table.category[rows].tolist()


def test_label_rows_match_the_index_and_keep_unknown_apart_from_zero(folder, table):
    index, labels = np.load(folder / "index.npy"), np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
    assert labels.dtype == np.float32 and labels.flags.c_contiguous
    row_of = {object_id: row for row, object_id in enumerate(table.object_id.tolist())}
    for entry, own in zip(index, labels, strict=True):
        expected = table.labels[row_of[int(entry["object_id"])]]
        np.testing.assert_array_equal(own, expected)
        assert entry["known"] == sum(not np.isnan(value) for value in expected)
    assert np.isnan(labels).any() and (labels == 0).any()


@pytest.mark.parametrize("rows_at_once", [5, 4096])
def test_statistics_are_those_of_a_plain_loop(tmp_path, table, images, monkeypatch, rows_at_once):
    monkeypatch.setattr("attrtrain.shards.manifest._COUNTED_ROWS", rows_at_once)
    folder = tmp_path / "out"
    shard(folder, table, images)
    manifest = read_manifest(folder)
    for split in ("train", "val"):
        rows = [row for row in range(len(table)) if table.split[row] == split]
        counts = manifest.splits[split]
        assert counts.objects == len(rows)
        assert counts.images == len({int(table.image_id[row]) for row in rows})
        for attribute in range(len(table.vocabulary)):
            votes = [float(table.labels[row, attribute]) for row in rows]
            assert counts.positives[attribute] == sum(vote >= 0.5 for vote in votes)
            assert counts.negatives[attribute] == sum(vote < 0.5 for vote in votes)
            assert counts.unknowns[attribute] == sum(vote != vote for vote in votes)
    assert sum(info.samples for info in manifest.shards) == len(table)
    assert [info.bytes for info in manifest.shards] == [path.stat().st_size for path in tars(folder)]


# --- what is left out


def test_what_is_left_out_is_listed_once_with_its_reason(tmp_path, table, images):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    missing, broken = sorted(set(table.image.tolist()))[:2]
    (folder / missing).unlink()
    (folder / broken).write_bytes((folder / broken).read_bytes()[:100])
    elsewhere = [row for row in range(len(table)) if table.image[row] not in (missing, broken)][:4]
    table = changed(table, "crowd", elsewhere[0], True)
    table = changed(table, "box", elsewhere[1], (5, 5, 0, 0))
    table = changed(table, "box", elsewhere[2], (np.nan, 5, 6, 7))
    table = changed(table, "box", elsewhere[3], (5000, 5, 6, 7))
    summary = shard(tmp_path / "out", table, folder)
    expected = {int(i): "image_missing" for i in table.object_id[table.image == missing]}
    expected |= {int(i): "image_broken" for i in table.object_id[table.image == broken]}
    reasons = ("crowd", "box_empty", "box_not_finite", "box_outside_image")
    expected |= {int(table.object_id[row]): reason for row, reason in zip(elsewhere, reasons, strict=True)}
    lines = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert len(lines) == len(expected)
    assert {line["object_id"]: line["reason"] for line in lines} == expected
    image_of = dict(zip(table.object_id.tolist(), table.image.tolist(), strict=True))
    assert all(line["image"] == image_of[line["object_id"]] and line["detail"] for line in lines)
    assert summary.left_out == Counter(expected.values()) == read_manifest(tmp_path / "out").left_out
    assert summary.written == len(table) - len(expected) == len(np.load(tmp_path / "out" / "labels.npy"))
    assert summary == finish.Summary.model_validate_json((tmp_path / "out" / "summary.json").read_bytes())
    assert (summary.label_objects, summary.matched, summary.no_annotation) == (len(table) + 1, len(table), 1)
    assert json.loads((tmp_path / "out" / "unmatched.jsonl").read_text()) == {"object_id": 999_999}


def test_a_shard_of_which_nothing_is_left_is_an_empty_tar(tmp_path, table, images):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    for name in set(table.image[table.split == "val"].tolist()):
        (folder / name).unlink()
    summary = shard(tmp_path / "out", table, folder, shard_objects=1000)
    assert summary.splits["val"] == {"objects": 0, "images": 0}
    with tarfile.open(tmp_path / "out" / "val-000000.tar") as tar:
        assert tar.getnames() == []
    assert len(np.load(tmp_path / "out" / "index.npy")) == summary.splits["train"]["objects"]


def test_not_one_crop_still_gives_arrays_of_the_right_shape(tmp_path, table):
    summary = shard(tmp_path / "out", table, tmp_path)
    assert summary.written == 0
    assert np.load(tmp_path / "out" / "labels.npy").shape == (0, len(table.vocabulary))


def test_each_photograph_is_decoded_once_a_shard(tmp_path, table, images, monkeypatch):
    opened = []
    load_image = photographs.load_image
    monkeypatch.setattr(
        photographs, "load_image", lambda path, size: opened.append(path.name) or load_image(path, size)
    )
    shard(tmp_path / "out", table, images)
    assert sorted(opened) == sorted(set(table.image.tolist()))


def test_two_files_under_one_image_id_are_not_taken_for_one_another(tmp_path):
    table = make_table(photographs=1, objects=6)
    table = replace(
        table,
        image=np.array(["red.png", "blue.png"] * 3),
        box=np.tile(np.array([4.0, 4, 20, 20]), (6, 1)),
    )
    for name in ("red", "blue"):
        Image.new("RGB", (WIDTH, HEIGHT), name).save(tmp_path / f"{name}.png")
    shard(tmp_path / "out", table, tmp_path)
    for sample in read_with_webdataset(tars(tmp_path / "out")):
        red, _, blue = Image.open(io.BytesIO(sample["jpg"])).getpixel((5, 5))
        assert json.loads(sample["json"])["image"] == ("red.png" if red > blue else "blue.png")


def test_the_progress_callback_is_called_once_an_object(tmp_path, table, images):
    plan = make_plan(table, CROP, 10)
    write.prepare(tmp_path, plan)
    for job in write.pending_jobs(tmp_path, plan.shards, table, [images], CROP):
        calls = []
        write.write_shard(job, lambda calls=calls: calls.append(1))
        assert len(calls) == len(job.table)


def test_a_job_that_is_sent_away_takes_its_own_objects_along_and_no_others(tmp_path, folder, table, images):
    out = tmp_path / "out"
    write.prepare(out, plan := make_plan(table, CROP, 10))
    for job in write.pending_jobs(out, plan.shards, table, [images], CROP):
        sent = pickle.loads(pickle.dumps(job))
        assert sorted(sent.source.object_id) == sorted(table.object_id[job.rows])
        assert len(sent) == len(job) == len(sent.table)
        write.write_shard(sent)
    finish.finish(out, plan, table, CROP, "split: drawn")
    assert content_of(out) == content_of(folder)


# --- doing it again


def test_the_same_plan_gives_the_same_bytes_in_any_folder(tmp_path, folder, table, images):
    shutil.copytree(images, tmp_path / "other place")
    shuffled = replace(table.take(np.random.default_rng(5).permutation(len(table))), unmatched=table.unmatched)
    shard(tmp_path / "out", shuffled, tmp_path / "other place")
    assert content_of(tmp_path / "out") == content_of(folder)


def test_finished_shards_are_kept_and_others_written_again(tmp_path, folder, table, images):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    names = [path.name for path in tars(out)]
    assert len(names) >= 5
    (out / names[0]).unlink()
    (out / "records" / names[1]).with_suffix(".json").unlink()
    (out / names[2]).write_bytes((out / names[2]).read_bytes()[:-512])
    flipped = bytearray((out / names[3]).read_bytes())
    flipped[700] ^= 1
    (out / names[3]).write_bytes(flipped)
    (out / "records" / names[4]).with_suffix(".json").write_text('{"plan_hash": 3')
    plan = make_plan(table, CROP, 10)
    pending = [f"{job.name}.tar" for job in write.pending_jobs(out, plan.shards, table, [images], CROP)]
    assert pending == names[:5]
    kept = {name: (out / name).stat() for name in names[5:]}
    shard(out, table, images)
    assert content_of(out) == content_of(folder)
    for name, before in kept.items():
        after = (out / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_record_of_another_plan_is_not_trusted(tmp_path, folder, table, images):
    shutil.copytree(folder, tmp_path / "out")
    path = tmp_path / "out" / "records" / "train-000000.json"
    path.write_text(path.read_text().replace('"plan_hash": "', '"plan_hash": "0'))
    pending = write.pending_jobs(tmp_path / "out", make_plan(table, CROP, 10).shards, table, [images], CROP)
    assert [job.name for job in pending] == ["train-000000"]


@pytest.mark.parametrize("before", ["missing", "broken", "other size"])
@pytest.mark.parametrize("after", ["missing", "broken", "other size", "good"])
def test_a_shard_is_written_again_only_when_its_bad_photographs_have_changed(
    tmp_path, table, images, folder, before, after
):
    photographs = tmp_path / "images"
    shutil.copytree(images, photographs)
    victim = photographs / str(table.image[0])

    def become(state):
        victim.unlink(missing_ok=True)
        match state:
            case "broken":
                victim.write_bytes(b"not a picture")
            case "other size":
                Image.new("RGB", (5, 5)).save(victim)
            case "good":
                shutil.copy(images / victim.name, victim)

    become(before)
    shard(tmp_path / "out", table, photographs)
    become(after)
    pending = write.pending_jobs(tmp_path / "out", make_plan(table, CROP, 10).shards, table, [photographs], CROP)
    assert len(pending) == (before != after)
    shard(tmp_path / "out", table, photographs)
    if after == "good":
        assert content_of(tmp_path / "out") == content_of(folder)


@pytest.mark.parametrize("come", [0, 1])
def test_a_shard_is_written_again_though_only_one_of_its_missing_photographs_has_come(tmp_path, table, images, come):
    photographs, shards = tmp_path / "images", make_plan(table, CROP, 10).shards
    shutil.copytree(images, photographs)
    missing = sorted(set(table.image[shards[0].rows]))[:2]
    for name in missing:
        (photographs / name).unlink()
    shard(tmp_path / "out", table, photographs)
    assert write.pending_jobs(tmp_path / "out", shards, table, [photographs], CROP) == []
    shutil.copy(images / missing[come], photographs / missing[come])
    pending = write.pending_jobs(tmp_path / "out", shards, table, [photographs], CROP)
    assert [job.name for job in pending] == [shards[0].name]


def test_another_plan_is_refused_with_what_differs_and_nothing_is_touched(tmp_path, folder, table):
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / ".train-000000.tar.1.partial").touch()
    before = content_of(tmp_path / "out")
    with pytest.raises(ShardError, match=r"another plan \(shard_objects: 10 → 11; store_px: 24 → 256\)"):
        write.prepare(tmp_path / "out", make_plan(table, CropSettings(), 11))
    assert content_of(tmp_path / "out") == before


def test_a_folder_with_somebody_elses_tars_is_refused(tmp_path, table):
    (tmp_path / "photos.tar").touch()
    with pytest.raises(ShardError, match="holds tar files"):
        write.prepare(tmp_path, make_plan(table, CROP, 10))
    assert [path.name for path in tmp_path.iterdir()] == ["photos.tar"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path, table, folder):
    shutil.copytree(folder, tmp_path / "out")
    before = content_of(tmp_path / "out") | {"notes.partial": b"", ".hidden": b""}
    for name in (".val-000000.tar.77.partial", ".manifest.json.77.partial", "records/.val-000000.json.77.partial"):
        (tmp_path / "out" / name).touch()
    for name in ("notes.partial", ".hidden"):
        (tmp_path / "out" / name).touch()
    write.prepare(tmp_path / "out", make_plan(table, CROP, 10))
    assert content_of(tmp_path / "out") == before


def test_records_deleted_by_hand_are_made_again(tmp_path, folder, table, images):
    shutil.copytree(folder, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "records")
    shard(tmp_path / "out", table, images)
    assert content_of(tmp_path / "out") == content_of(folder)


def test_finishing_too_early_is_an_error(tmp_path, table):
    plan = make_plan(table, CROP, 10)
    write.prepare(tmp_path, plan)
    with pytest.raises(ShardError, match="train-000000 has not been written yet"):
        finish.finish(tmp_path, plan, table, CROP, "")
    assert not (tmp_path / "manifest.json").exists()


def test_a_second_run_in_the_same_folder_is_named_as_the_likely_cause(tmp_path, table, images, monkeypatch):
    plan = make_plan(table, CROP, 10)
    write.prepare(tmp_path, plan)
    job = write.pending_jobs(tmp_path, plan.shards, table, [images], CROP)[0]
    with pytest.raises(ShardError, match="is another `attrtrain shard` writing"):
        write.write_shard(job, lambda: write.clean(tmp_path))


def test_out_of_memory_is_one_line(tmp_path, table, images, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    plan = make_plan(table, CROP, 10)
    write.prepare(tmp_path, plan)
    monkeypatch.setattr(photographs, "load_image", out_of_memory)
    with pytest.raises(ShardError, match="out of memory"):
        write.write_shard(write.pending_jobs(tmp_path, plan.shards, table, [images], CROP)[0])
    assert not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob(".*"))


def test_the_manifest_is_written_after_all_it_speaks_of(tmp_path, table, images, monkeypatch):
    written = []

    def note_and_write(path: Path, *buffering: int):
        written.append(path.name)
        return atomic_write(path, *buffering)

    def note_and_create(path: Path, content: bytes):
        written.append(path.name)
        create_once(path, content)

    monkeypatch.setattr("attrtrain.shards.write.create_once", note_and_create)
    monkeypatch.setattr("attrtrain.shards.write.atomic_write", note_and_write)
    monkeypatch.setattr("attrtrain.shards.finish.atomic_write", note_and_write)
    monkeypatch.setattr("attrtrain.contract.atomic_write", note_and_write)
    shard(tmp_path / "out", table, images)
    assert written[0] == "plan.json" and written[-1] == "manifest.json"
    assert written.count("manifest.json") == 1
    for name in (path.stem for path in tars(tmp_path / "out")):
        assert written.index(f"{name}.tar") < written.index(f"{name}.json")

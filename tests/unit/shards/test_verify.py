"""Every kind of damage is found, and named down to the sample."""

import json
import shutil

import numpy as np
import pytest
from drawn import draw_photographs, make_table, shard

from attrtrain.errors import ShardError
from attrtrain.files import sha256_of
from attrtrain.shards.manifest import read_manifest
from attrtrain.shards.verify import verify

NAME = "train-000001.tar"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    table = make_table()
    draw_photographs(root / "images", table)
    shard(root / "out", table, root / "images")
    return root / "out"


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "out")


def samples_of(folder, name=NAME):
    index, manifest = np.load(folder / "index.npy"), read_manifest(folder)
    return index[index["shard"] == [info.name for info in manifest.shards].index(name)]


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_a_whole_folder_has_no_problems(folder):
    assert list(verify(folder)) == []


@pytest.mark.parametrize("gone", [["val"], ["train", "val"]])
def test_shards_of_which_nothing_is_left_are_no_damage(tmp_path, gone):
    table = make_table()
    draw_photographs(tmp_path / "images", table)
    for name in set(table.image[np.isin(table.split, gone)].tolist()):
        (tmp_path / "images" / name).unlink()
    shard(tmp_path / "out", table, tmp_path / "images")
    assert list(verify(tmp_path / "out")) == []


def test_a_flipped_byte_anywhere_in_a_sample_names_shard_and_sample(folder):
    samples = samples_of(folder)
    rng = np.random.default_rng(0)
    for sample in samples:
        position = int(rng.integers(sample["start"], sample["end"]))
        flip(folder / NAME, position)
        assert list(verify(folder)) == [
            f"{folder / NAME}: damaged, its checksum differs",
            f"{folder / NAME}: sample {sample['object_id']:012d} is damaged (bytes {sample['start']} to {sample['end']})",
        ]
        flip(folder / NAME, position)


@pytest.mark.parametrize("part", ["tar header", "jpeg", "second header", "last byte"])
def test_a_flipped_byte_of_each_part_of_a_sample_is_found(folder, part):
    sample = samples_of(folder)[2]
    position = {
        "tar header": sample["start"] + 3,
        "jpeg": sample["jpeg_offset"] + sample["jpeg_bytes"] // 2,
        "second header": sample["jpeg_offset"] + -(-sample["jpeg_bytes"] // 512) * 512 + 3,
        "last byte": sample["end"] - 1,
    }[part]
    flip(folder / NAME, int(position))
    assert [line for line in verify(folder) if f"sample {sample['object_id']:012d} is damaged" in line]


def test_damage_to_two_samples_names_both(folder):
    samples = samples_of(folder)
    for sample in samples[[0, 3]]:
        flip(folder / NAME, int(sample["jpeg_offset"]))
    lines = [line for line in verify(folder) if ": sample " in line]
    assert [int(line.split("sample ")[1].split()[0]) for line in lines] == samples["object_id"][[0, 3]].tolist()


def test_a_flipped_byte_of_the_trailer_is_no_sample(folder):
    flip(folder / NAME, (folder / NAME).stat().st_size - 100)
    assert "no sample is damaged, only what follows" in list(verify(folder))[1]


@pytest.mark.parametrize("name", ["labels.npy", "index.npy"])
@pytest.mark.parametrize("position", [7, 130, -1])
def test_flipped_bytes_of_the_arrays_are_found(folder, name, position):
    flip(folder / name, position)
    assert list(verify(folder)) == [f"{folder / name}: damaged, its checksum differs"]


def test_a_damaged_index_does_not_hide_a_damaged_shard(folder):
    flip(folder / "index.npy", 200)
    flip(folder / NAME, 600)
    assert [line.split(":")[0] for line in verify(folder)] == [str(folder / "index.npy"), str(folder / NAME)]


@pytest.mark.parametrize("where", ["within a sample", "between samples", "before all"])
def test_a_cut_tar_names_every_sample_that_is_gone(folder, where):
    samples, content = samples_of(folder), (folder / NAME).read_bytes()
    length, first_gone = {
        "within a sample": (int(samples["start"][4]) + 700, 4),
        "between samples": (int(samples["start"][4]), 4),  # what plain tar readers do not notice
        "before all": (0, 0),
    }[where]
    (folder / NAME).write_bytes(content[:length])
    first, *rest = verify(folder)
    assert first == f"{folder / NAME}: damaged, {length:,} bytes instead of {len(content):,}"
    gone = [int(line.split("sample ")[1].split()[0]) for line in rest]
    assert gone == samples["object_id"][first_gone:].tolist()


def test_a_longer_tar_is_damaged_after_its_last_sample(folder):
    with (folder / NAME).open("ab") as file:
        file.write(bytes(512))
    assert "only what follows" in list(verify(folder))[1]


@pytest.mark.parametrize("name", [NAME, "labels.npy", "index.npy"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert list(verify(folder)) == [f"{folder / name}: missing"]


def test_an_extra_tar_is_named_because_plain_webdataset_would_read_it(folder):
    shutil.copy(folder / NAME, folder / "train-000099.tar")
    [line] = verify(folder)
    assert line.startswith(f"{folder / 'train-000099.tar'}: not in the manifest")


def change_manifest(folder, change):
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m["shards"][0].update(samples=m["shards"][0]["samples"] + 1), "samples in train-000000.tar, the index has"),
        (lambda m: m["splits"]["val"]["positives"].__setitem__(0, 0), "counts of split 'val'"),
        (lambda m: m["splits"].pop("val"), "counts of split 'val'"),
        (lambda m: m["splits"].update(test=m["splits"]["val"]), "counts of split 'test'"),
        (lambda m: m["vocabulary"]["names"].reverse(), "attribute names"),
        (lambda m: m.update(categories=[]), "lists 0 categories, the index is of 3 or more"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_index_and_labels_is_named(folder, change, told):
    change_manifest(folder, change)
    [line] = verify(folder)
    assert line.startswith(f"{folder / 'manifest.json'}: ") and told in line


def test_a_manifest_without_a_shard_is_named(folder):
    change_manifest(folder, lambda m: m["shards"].pop())
    lines = list(verify(folder))
    assert any("shards, the index is of" in line for line in lines) and any(
        "not in the manifest" in line for line in lines
    )


def test_a_photograph_in_two_splits_is_named(folder):
    change_manifest(folder, lambda m: m["shards"][0].update(split="val"))
    assert not [line for line in verify(folder) if "two splits" in line]  # every photograph is in one shard
    index = np.load(folder / "index.npy")
    index["image_id"][-1] = index["image_id"][20]
    np.save(folder / "index.npy", index)
    change_manifest(folder, lambda m: m.update(index_sha256=sha256_of(folder / "index.npy")))
    assert f"{folder}: photograph {index['image_id'][20]} is in two splits" in list(verify(folder))


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100])
def test_a_damaged_manifest_is_one_line(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ShardError, match=r"manifest\.json: damaged"):
        list(verify(folder))

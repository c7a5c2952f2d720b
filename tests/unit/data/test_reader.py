"""Random access: the same samples that plain webdataset reads, and the labels that were written."""

import gc
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray

from attrtrain.data import shard_files
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ShardError


def plain_samples(folder: Path, split: str) -> dict[int, tuple[bytes, dict]]:
    """Every sample of a split as webdataset's own reader gives it."""
    paths = [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files to the garbage collector
        samples = list(webdataset.WebDataset(paths, shardshuffle=False))
        gc.collect()
    return {int(sample["__key__"]): (sample["jpg"], json.loads(sample["json"])) for sample in samples}


@pytest.mark.parametrize("split", ["train", "val"])
def test_reads_the_bytes_and_labels_that_webdataset_reads(toy_shards: Path, split: str) -> None:
    shards = ShardSet([toy_shards], split)
    plain = plain_samples(toy_shards, split)
    ids = shards.column("object_id")
    assert len(shards) == len(plain) > 20 and set(ids.tolist()) == set(plain)
    labels = shards.labels(np.arange(len(shards)))
    for position, object_id in enumerate(ids):
        jpeg, content = plain[int(object_id)]
        assert shards.jpeg(position) == jpeg
        known = {
            shards.vocabulary.names[column]: labels[position, column]
            for column in np.flatnonzero(~np.isnan(labels[position]))
        }
        assert known == pytest.approx(content["labels"], abs=1e-6)
        assert shards.column("known", np.array([position]))[0] == len(known)
        assert shards.categories()[position] == content["category"]
    some = np.array([3, 0, len(ids) - 1])
    assert shards.categories(some) == [shards.categories()[position] for position in some]


@pytest.mark.parametrize("positive_at", [0.5, 0.3, 1.0])
@pytest.mark.parametrize("folders", [1, 2])
def test_labels_are_counted_from_any_vote_share_on(toy_shards: Path, positive_at: float, folders: int) -> None:
    shards = ShardSet([toy_shards] * folders, "train")
    labels = shards.labels(np.arange(len(shards)))
    positives, negatives = shards.counts(positive_at)
    with np.errstate(invalid="ignore"):
        assert positives.tolist() == (labels >= positive_at).sum(axis=0).tolist()
        assert negatives.tolist() == (labels < positive_at).sum(axis=0).tolist()


def test_several_folders_are_one_data_set_in_order(toy_shards: Path) -> None:
    one, two = ShardSet([toy_shards], "train"), ShardSet([toy_shards, toy_shards], "train")
    assert len(two) == 2 * len(one)
    positions = np.array([0, len(one), len(one) - 1, len(two) - 1, 3])
    assert two.column("object_id", positions).tolist() == one.column("object_id", positions % len(one)).tolist()
    assert np.array_equal(two.labels(positions), one.labels(positions % len(one)), equal_nan=True)
    assert two.jpeg(len(one) + 2) == one.jpeg(2)
    assert two.jpegs(positions) == [one.jpeg(int(position) % len(one)) for position in positions]
    assert two.fingerprint != one.fingerprint


def test_categories_are_named_by_the_folder_that_a_sample_lies_in(toy_shards: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(toy_shards, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["categories"] = [f"other {name}" for name in manifest["categories"]]
    (other / "manifest.json").write_text(json.dumps(manifest))
    both = ShardSet([toy_shards, other], "val")
    plain = plain_samples(toy_shards, "val")
    ids = both.column("object_id").tolist()
    here = [plain[object_id][1]["category"] for object_id in ids[: len(plain)]]
    expected = [*here, *(f"other {name}" for name in here)]
    assert both.categories() == expected
    some = np.array([len(both) - 1, 2, len(plain), len(plain) - 1])
    assert both.categories(some) == [expected[position] for position in some]


def test_travels_to_another_process_without_its_arrays(toy_shards: Path) -> None:
    shards = ShardSet([toy_shards], "val")
    sent = pickle.dumps(shards)
    assert len(sent) < 1000
    assert pickle.loads(sent).jpeg(1) == shards.jpeg(1)


def test_what_is_no_finished_shard_folder_says_what_to_do(toy_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no such shard folder; make one with `attrtrain shard"):
        ShardSet([tmp_path / "nowhere"], "train")
    with pytest.raises(ShardError, match=r"manifest\.json"):
        ShardSet([tmp_path], "train")
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ShardError, match="has not finished"):
        ShardSet([tmp_path], "train")
    with pytest.raises(ShardError, match="no sample in split 'test'; there are: train, val"):
        ShardSet([toy_shards], "test")


def test_a_tar_that_ends_early_names_the_sample(toy_shards: Path, tmp_path: Path) -> None:
    for path in toy_shards.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes() if path.suffix != ".tar" else path.read_bytes()[:2000])
    shards = ShardSet([tmp_path], "train")
    with pytest.raises(
        ShardError, match=r"train-000000\.tar: ends inside sample \d{12}; check it with `attrtrain verify"
    ):
        shards.jpeg(3)


@pytest.mark.parametrize("name", ["index.npy", "labels.npy"])
@pytest.mark.parametrize(
    "content", [b"", b"\x93NUM", "header", np.zeros(3), np.zeros((2000, 2)), np.array(["x"] * 2000)]
)
def test_arrays_that_are_damaged_or_others_are_one_line(
    toy_shards: Path, tmp_path: Path, name: str, content: bytes | str | NDArray[Any]
) -> None:
    copy = Path(shutil.copytree(toy_shards, tmp_path / "copy"))
    match content:
        case bytes():
            (copy / name).write_bytes(content)
        case str():
            (copy / name).write_bytes((copy / name).read_bytes().replace(b", }", b"(, ", 1))
        case _:
            np.save(copy / name, content)
    with pytest.raises(ShardError, match=rf"{name}: damaged; check it with `attrtrain verify"):
        ShardSet([copy], "train")


def test_shard_samples_are_those_of_the_tars_in_order(toy_shards: Path) -> None:
    sizes = []
    for path in sorted(toy_shards.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            sizes.append(len(tar.getnames()) // 2)
    assert ShardSet([toy_shards], "train").shard_samples == tuple(sizes) and len(sizes) > 2
    twice = ShardSet([toy_shards, toy_shards], "train")
    assert twice.shard_samples == (*sizes, *sizes) and sum(twice.shard_samples) == len(twice)
    assert np.repeat(np.arange(len(sizes)), sizes).tolist() == ShardSet([toy_shards], "train").column("shard").tolist()


def test_more_shards_than_files_may_be_open_are_read_all_the_same(
    toy_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = ShardSet([toy_shards], "train")
    expected = [free.jpeg(position) for position in range(len(free))]
    assert len(free.shard_samples) > 4
    monkeypatch.setattr(shard_files, "_open_files_allowed", lambda: 2)
    bounded = ShardSet([toy_shards], "train")
    before = len(list(Path("/proc/self/fd").iterdir()))
    order = np.random.default_rng(0).permutation(len(bounded))
    for position in order:
        assert bounded.jpeg(int(position)) == expected[position]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_threads_share_the_files_that_may_be_open(toy_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = ShardSet([toy_shards], "train")
    expected = [shards.jpeg(position) for position in range(len(shards))]
    monkeypatch.setattr(shard_files, "_open_files_allowed", lambda: 2)
    bounded = ShardSet([toy_shards], "train")
    del shards
    before, most = len(list(Path("/proc/self/fd").iterdir())), 0

    def read(seed: int) -> None:
        nonlocal most
        for position in np.random.default_rng(seed).permutation(len(bounded)):
            assert bounded.jpeg(int(position)) == expected[position]
            most = max(most, len(list(Path("/proc/self/fd").iterdir())) - before)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(12)))
    assert most <= 2 + 4 + 4  # those that stay open, what each thread reads from, and the listing that each counts by


def test_folders_share_the_files_that_may_be_open(toy_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "_open_files_allowed", lambda: 4)
    sets = [ShardSet([toy_shards], "train") for _ in range(4)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for shards in sets:
        for position in range(len(shards)):
            shards.jpeg(position)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4


def test_the_limit_on_open_files_is_raised_and_a_quarter_of_it_is_used() -> None:
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 400))\n"
        "from attrtrain.data.shard_files import _open_files_allowed\n"
        "assert _open_files_allowed() == 100\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, 400)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

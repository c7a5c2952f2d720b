"""Checkpoints: complete or absent, read without running anything, pruned only after the new one is there."""

import hashlib
import json
import pickle
import resource
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from attrtrain import checkpoint
from attrtrain.errors import CheckpointError
from tests.disk_events import events_of_the_disk, refuse_the_name, require_sealed_before_it_was_named


def save(folder: Path, step: int) -> Path:
    model = {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}
    content = checkpoint.Checkpoint(
        tensors={"model": model},
        optimizer={"optimizer": {"state": {0: torch.ones(2) * step}}},
        state={"position": step},
        ranks=[{"sum": torch.ones(2)}],
    )
    checkpoint.save(folder, step, content, rank=0, barrier=lambda: None)
    return folder / f"step-{step:08d}"


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    loaded = checkpoint.load(save(tmp_path, 7))
    assert loaded.tensors["model"]["w"].tolist() == [7.0] * 3 and int(loaded.tensors["model"]["n"]) == 7
    assert loaded.optimizer["optimizer"]["state"][0].tolist() == [7.0, 7.0]
    assert loaded.state == {"position": 7}
    assert (tmp_path / "latest").read_text() == "step-00000007"


def test_it_is_sealed_when_every_rank_has_written_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank comes late, so the others must wait for the folder, and the last one's part takes long."""
    ranks, together, write = 12, threading.Barrier(12, timeout=30), torch.save

    def slowly(content: object, path: Path) -> None:
        time.sleep(0.3 if path.name == f"rank-{ranks - 1:05d}.pt" else 0)
        write(content, path)

    def save_part(rank: int) -> None:
        time.sleep(0.3 if rank == 0 else 0)
        own = checkpoint.Checkpoint({"model": {"w": torch.ones(2)}}, optimizer={}, state={}, ranks=[{"rank": rank}])
        checkpoint.save(tmp_path, 3, own, rank, together.wait)

    monkeypatch.setattr(torch, "save", slowly)
    with ThreadPoolExecutor(ranks) as pool:
        list(pool.map(save_part, range(ranks)))
    loaded = checkpoint.load(checkpoint.of_step(tmp_path, 3))
    assert [part["rank"] for part in loaded.ranks] == list(range(ranks))


def test_what_is_no_fault_of_the_disk_is_not_put_down_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        save(tmp_path, 1)


def test_a_weight_that_a_network_has_in_several_places_is_saved_for_each(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    model = {"first": weight, "second": weight, "part": weight[1], "turned": weight.T}
    content = checkpoint.Checkpoint({"model": model}, optimizer={}, state={}, ranks=[{}])
    checkpoint.save(tmp_path, 1, content, rank=0, barrier=lambda: None)
    loaded = checkpoint.load(checkpoint.of_step(tmp_path, 1)).tensors["model"]
    assert loaded.keys() == model.keys() and all(torch.equal(loaded[name], model[name]) for name in model)


@pytest.mark.parametrize(
    "harm", ["flip", "cut", "delete", "no_marker", "marker_garbage", "marker_empty", "marker_deep", "marker_short"]
)
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_taken(tmp_path: Path, harm: str) -> None:
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    victim = newest / "model.safetensors"
    match harm:
        case "flip":
            data = bytearray(victim.read_bytes())
            data[-1] ^= 1
            victim.write_bytes(data)
        case "cut":
            victim.write_bytes(victim.read_bytes()[:-4])
        case "delete":
            victim.unlink()
        case "no_marker":
            (newest / "complete.json").unlink()
        case "marker_garbage":
            (newest / "complete.json").write_text("[1]")
        case "marker_empty":
            (newest / "complete.json").write_text("{}")
        case "marker_deep":
            (newest / "complete.json").write_text("[" * 100_000)
        case "marker_short":
            marker = json.loads((newest / "complete.json").read_text())
            del marker[victim.name]
            (newest / "complete.json").write_text(json.dumps(marker))
    found, complaints = checkpoint.find_latest(tmp_path)
    assert found == tmp_path / "step-00000005"
    assert len(complaints) == 1 and str(newest) in complaints[0]
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(newest)


def test_leftovers_of_killed_saves_are_no_checkpoints_and_are_cleaned(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-00000009.partial"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert checkpoint.find_latest(tmp_path) == (None, [])
    checkpoint.clean(tmp_path)
    assert not leftover.exists()


def test_what_killed_saves_of_the_same_step_left_behind_gets_into_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 9)
    for leftover in (".step-00000009.partial", ".step-00000009.replaced.partial"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "rank-00001.pt").write_bytes(b"of a world of two")
    again = save(tmp_path, 9)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [again.name]
    assert len(checkpoint.load(again).ranks) == 1 and not (again / "rank-00001.pt").exists()


def test_a_checkpoint_that_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    """As a kill between two renames leaves it: the old one has gone aside, the new one has not got its name."""
    whole = save(tmp_path, 9)
    replaced, partial = tmp_path / ".step-00000009.replaced.partial", tmp_path / ".step-00000009.partial"
    shutil.copytree(whole, partial)
    whole.rename(replaced)
    checkpoint.clean(tmp_path)
    assert checkpoint.find_latest(tmp_path) == (whole, []) and not replaced.exists() and not partial.exists()
    shutil.copytree(whole, replaced)  # killed after the second rename
    checkpoint.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [whole.name]


@pytest.mark.parametrize("replaces", [False, True])
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_one_that_it_replaces_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: bool
) -> None:
    if replaces:
        save(tmp_path, 7)
    events = events_of_the_disk(monkeypatch)
    place = save(tmp_path, 7)
    require_sealed_before_it_was_named(events, place)
    named = events.index(("move", place.name))
    assert not [what for kind, what in events[:named] if kind == "delete"]
    assert [what for kind, what in events[named:] if kind == "delete"] == [".step-00000007.replaced.partial"] * replaces
    assert events.index(("move", "latest")) > named  # what it points at is there


def test_a_checkpoint_that_cannot_be_replaced_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(tmp_path, 9)
    content = {path.name: path.read_bytes() for path in before.iterdir()}
    with monkeypatch.context() as patched:
        refuse_the_name(patched, before.name)
        with pytest.raises(CheckpointError, match="Input/output error; free space and run the same command again"):
            save(tmp_path, 9)
    checkpoint.clean(tmp_path)
    assert checkpoint.find_latest(tmp_path) == (before, [])
    assert {path.name: path.read_bytes() for path in before.iterdir()} == content
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [before.name]


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
        checkpoint.prune(tmp_path, keep_last=2, keep_steps={10, step})
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000010", "step-00000030", "step-00000040"]
    save(tmp_path, 5)  # of a course that has gone back
    checkpoint.prune(tmp_path, keep_last=2, keep_steps={5})
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000005", "step-00000030", "step-00000040"]


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    (folder / "optimizer.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2))
    marker = json.loads((folder / "complete.json").read_text())
    data = (folder / "optimizer.pt").read_bytes()
    marker["optimizer.pt"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "complete.json").write_text(json.dumps(marker))
    with pytest.raises(CheckpointError, match=r"optimizer\.pt"):
        checkpoint.load(folder)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path / "file" / "checkpoints", 1)
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_room():
    """No file may grow past 64 KB, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("big", ["model", "optimizer"])
def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path: Path, no_room: None, big: str) -> None:
    before = save(tmp_path, 1)
    large, small = torch.zeros(1 << 16), torch.zeros(1)
    content = checkpoint.Checkpoint(
        tensors={"model": {"w": large if big == "model" else small}},
        optimizer={"state": large if big == "optimizer" else small},
        state={},
        ranks=[{}],
    )
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(tmp_path, 2, content, rank=0, barrier=lambda: None)
    assert "\n" not in str(caught.value) and "free space" in str(caught.value)
    assert checkpoint.find_latest(tmp_path) == (before, [])
    assert not list(tmp_path.glob(".*"))

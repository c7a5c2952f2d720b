"""A name holds the whole content or what it held before, whatever happens in between."""

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from attrtrain.files import atomic_folder, atomic_write, create_once, fsync, legible, remove_partials, sha256_of
from tests.disk_events import events_of_the_disk, on_disk, refuse_the_name, require_sealed_before_it_was_named


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_name_appears_with_the_whole_content(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"])
def test_after_an_exception_the_name_is_what_it_was(tmp_path, error, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"new")
        raise error
    assert (path.read_bytes() if path.exists() else None) == before
    assert names_in(tmp_path) == ([] if before is None else ["file"])


def test_a_name_that_cannot_be_replaced_leaves_no_partial(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), atomic_write(tmp_path / "folder") as file:
        file.write(b"new")
    assert names_in(tmp_path) == ["folder"]


def test_the_content_is_on_the_disk_before_the_name_moves(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(("fsync", os.fstat(descriptor).st_size)))
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: calls.append(("replace", None)))
    with atomic_write(tmp_path / "file") as file:
        file.write(b"1234")
    assert calls == [("fsync", 4), ("replace", None)]


def test_readers_of_the_old_file_keep_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        with atomic_write(path) as file:
            file.write(b"new")
        assert reader.read() == b"old"


WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from attrtrain.files import atomic_folder, atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_a_partial_that_can_be_cleared_away(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "own.partial").touch()
    (tmp_path / ".hidden").touch()
    killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, path])
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names_in(tmp_path)) == 4
    remove_partials(tmp_path)
    assert names_in(tmp_path) == [".hidden", "file", "own.partial"]


FILL_AND_DIE = """
import os, signal, sys
from pathlib import Path
from attrtrain.files import atomic_folder

with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_bytes(b"new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_that_a_kill_left_half_filled_can_be_cleared_away_too(tmp_path):
    killed = subprocess.run([sys.executable, "-c", FILL_AND_DIE, tmp_path / "bundle"])
    assert killed.returncode == -signal.SIGKILL
    assert names_in(tmp_path) == [".bundle.partial"]
    remove_partials(tmp_path, {"bundle"})  # files, says who gives names
    assert names_in(tmp_path) == [".bundle.partial"]
    remove_partials(tmp_path)
    assert names_in(tmp_path) == []


def test_sha256_is_the_known_one(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 1_000_000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_folder_can_be_synced(tmp_path):
    fsync(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync(tmp_path / "nowhere")


def test_a_folder_appears_whole_and_replaces_the_one_before(tmp_path):
    folder = tmp_path / "deep" / "folder"
    for content in (b"first", b"second"):
        with atomic_folder(folder) as partial:
            (partial / "file").write_bytes(content)
            assert not folder.exists() or (folder / "file").read_bytes() == b"first"
        assert (folder / "file").read_bytes() == content
        assert names_in(folder.parent) == ["folder"] and names_in(folder) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_exception_a_folder_is_what_it_was(tmp_path, error):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    with pytest.raises(error), atomic_folder(folder) as partial:
        (partial / "file").write_bytes(b"new")
        raise error
    assert (folder / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["folder"]


def test_a_folder_that_a_killed_writer_had_moved_aside_is_put_back(tmp_path):
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old" / "file").write_bytes(b"old")
    with pytest.raises(ValueError), atomic_folder(tmp_path / "folder"):
        raise ValueError
    assert (tmp_path / "folder" / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["folder"]


@pytest.mark.parametrize("replaces", [False, True])
def test_a_folder_is_on_the_disk_before_it_has_its_name_and_the_one_before_goes_last(tmp_path, monkeypatch, replaces):
    folder = tmp_path / "folder"

    def write(content):
        with atomic_folder(folder) as partial:
            (partial / "one").write_bytes(content)
            (partial / "other").write_bytes(content * 2)

    if replaces:
        write(b"old")
    events = events_of_the_disk(monkeypatch)
    write(b"newer")
    require_sealed_before_it_was_named(events, folder)
    parent = max(number for number, (kind, _) in enumerate(events) if kind == "fsync")  # the name is on the disk too
    assert [event for event in events if event[0] == "delete"] == [("delete", ".folder.old")] * replaces
    assert not replaces or events.index(("delete", ".folder.old")) > parent


def test_a_folder_that_cannot_be_replaced_is_put_back_by_the_next_writer(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    with atomic_folder(folder) as partial:
        (partial / "file").write_bytes(b"old")
    with monkeypatch.context() as patched:
        refuse_the_name(patched, "folder")
        with pytest.raises(OSError, match="Input/output"), atomic_folder(folder) as partial:
            (partial / "file").write_bytes(b"new")
    with pytest.raises(ValueError), atomic_folder(folder):
        raise ValueError
    assert (folder / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["folder"]


@pytest.mark.parametrize("has_links", [True, False])
def test_what_is_created_once_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, has_links):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    events = events_of_the_disk(monkeypatch)
    if not has_links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    create_once(tmp_path / "plan.json", b"first")
    assert events == [on_disk(tmp_path / "plan.json"), ("move", "plan.json")]
    assert (tmp_path / "plan.json").read_bytes() == b"first"


def test_a_name_in_another_encoding_is_spelled_out_and_any_other_is_itself(tmp_path):
    assert legible(tmp_path / os.fsdecode(b"caf\xe9.jpg")) == rf"{tmp_path}/caf\udce9.jpg"
    assert legible("café 日本") == "café 日本"

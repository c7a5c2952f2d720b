"""A run directory belongs to one training at a time, and to the next one when that is gone."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attrtrain import run_lock
from attrtrain.errors import CheckpointError, ConfigError
from attrtrain.run_layout import LOCK
from attrtrain.run_lock import locked, require_held

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(sys.argv[2]); file.flush()
print("held", flush=True)
sys.stdin.read()
"""


def runtime(is_main: bool = True, others: bool = False, told: str = "") -> Any:
    """One process, whose fellow processes have nothing or something to complain of, and whose main one told it this."""
    return SimpleNamespace(
        is_main=is_main,
        any_rank=lambda *flags: [flag or others for flag in flags],
        from_main=lambda *texts: [told or text for text in texts],
    )


@pytest.fixture
def hold(tmp_path: Path) -> Any:
    """Starts a process that holds the lock in somebody's name."""
    started = []

    def holding(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(tmp_path / LOCK), name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield holding
    for process in started:
        process.kill()
        process.communicate()


def test_it_is_free_again_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "run", runtime()):
            text = (tmp_path / "run" / LOCK).read_text()
            assert text == f"process {os.getpid()} on {socket.gethostname()}\n"
            (tmp_path / "run" / "config.yaml").touch()
            raise ZeroDivisionError


def test_a_holder_that_died_leaves_nothing_of_its_name(tmp_path: Path) -> None:
    """All processes look for the whole text; a rest of a longer name would be taken for another folder."""
    (tmp_path / LOCK).write_text("process 99999999 on a-machine-with-a-name-that-is-longer-than-anybody-else-has\n")
    with locked(tmp_path, runtime()):
        assert (tmp_path / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        require_held(tmp_path)


def test_a_lock_that_its_last_holder_took_along_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that wrote nothing removes its folder: perhaps between our opening the file in it and our locking it."""
    take, taken = run_lock._try_lock, []

    def too_late(descriptor: int) -> bool:
        if not taken:
            (tmp_path / "run" / LOCK).unlink()
            (tmp_path / "run").rmdir()
        taken.append(descriptor)
        return take(descriptor)

    monkeypatch.setattr(run_lock, "_try_lock", too_late)
    with locked(tmp_path / "run", runtime()):
        require_held(tmp_path / "run")


def test_a_run_that_wrote_nothing_leaves_no_folder_but_one_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, stays in (("new", False), ("mine", True)):
        with locked(tmp_path / name, runtime()):
            pass
        assert (tmp_path / name).exists() == stays


def test_a_lock_file_that_its_holder_removed_is_not_taken_for_the_lock(tmp_path: Path, hold: Any) -> None:
    holder = hold("process 7 on elsewhere\n")
    told = threading.Timer(0.3, lambda: ((tmp_path / LOCK).unlink(), holder.kill()))
    told.start()
    with locked(tmp_path, runtime(), patience_seconds=60):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} ")
    told.join()


def test_a_holder_on_this_machine_is_refused_at_once(tmp_path: Path, hold: Any) -> None:
    holder = hold(f"process 7 on {socket.gethostname()}\n")
    with (
        pytest.raises(CheckpointError, match=rf"{tmp_path} is in use by process 7 on .*; stop that first, or choose"),
        locked(tmp_path, runtime(), patience_seconds=3600),
    ):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path, runtime()):
        pass


def test_a_holder_on_another_machine_is_waited_for(tmp_path: Path, hold: Any, capfd: Any) -> None:
    hold("process 7 on elsewhere\n")
    with pytest.raises(CheckpointError, match="process 7 on elsewhere"), locked(tmp_path, runtime(), 0.05):
        pass
    assert "is in use by process 7 on elsewhere; waiting up to 0 s" in capfd.readouterr().err


def test_the_other_ranks_leave_too_and_take_no_lock(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="main process could not"), locked(tmp_path, runtime(False, others=True)):
        pass
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("is_main", [True, False])
def test_a_folder_that_is_not_the_same_for_all_processes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_main: bool
) -> None:
    """Seen from either side; the other process's machine has an own folder of that name, of an earlier run."""
    monkeypatch.setattr(run_lock, "_LAG_SECONDS", 0.05)
    (tmp_path / LOCK).write_text("process 7 on elsewhere\n")
    seen = runtime(True, others=False) if is_main else runtime(False, told="process 8 on elsewhere\n")
    answers = iter([False, True])  # the main process has the lock; some other does not see it
    if is_main:
        seen.any_rank = lambda *_: [next(answers)]
    with pytest.raises(ConfigError, match=rf"run\.dir: {tmp_path} is not one folder for all"), locked(tmp_path, seen):
        pytest.fail("it was taken")


def test_what_the_main_process_wrote_may_be_seen_a_while_later(tmp_path: Path) -> None:
    told = "process 8 on elsewhere\n"
    late = threading.Timer(0.3, lambda: (tmp_path / LOCK).write_text(told))
    late.start()
    with locked(tmp_path, runtime(False, told=told)):
        assert (tmp_path / LOCK).read_text() == told
    late.join()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"run\.dir: .*file.*: Not a directory"),
        locked(tmp_path / "file" / "run", runtime()),
    ):
        pass
    told = r"run\.dir: .*file: is a file; give the run a folder of its own"
    with pytest.raises(ConfigError, match=told), locked(tmp_path / "file", runtime()):
        pass


def test_a_machine_that_is_renamed_keeps_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path / "run", runtime()):
        monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
        require_held(tmp_path / "run")


def test_a_folder_that_was_removed_or_begun_anew_is_no_longer_ours(tmp_path: Path, hold: Any) -> None:
    with locked(tmp_path, runtime()):
        require_held(tmp_path)
        (tmp_path / LOCK).unlink()
        with pytest.raises(CheckpointError, match="was removed, or begun anew by another training"):
            require_held(tmp_path)
        hold(f"process 7 on {socket.gethostname()}\n")
        with pytest.raises(CheckpointError, match="was removed, or begun anew by another training"):
            require_held(tmp_path)

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


def runtime(is_main: bool = True, others: bool = False) -> Any:
    """One process, whose fellow processes have nothing or something to complain of."""
    return SimpleNamespace(is_main=is_main, any_rank=lambda *flags: [flag or others for flag in flags])


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


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"run\.dir: .*file.*: Not a directory"),
        locked(tmp_path / "file" / "run", runtime()),
    ):
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

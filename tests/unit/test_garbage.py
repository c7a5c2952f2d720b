"""The collector rests in a block, and afterwards does what it did before, but for what was imported to stay."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from attrtrain.garbage import lasting_imports, no_garbage_collection


@pytest.fixture(autouse=True)
def collector_as_before():
    was_enabled = gc.isenabled()
    yield
    (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("was_enabled", [True, False])
def test_it_rests_and_is_then_as_it_was(was_enabled):
    (gc.enable if was_enabled else gc.disable)()
    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled() == was_enabled


def test_it_works_again_after_an_error():
    gc.enable()
    with pytest.raises(ImportError), no_garbage_collection():
        raise ImportError
    assert gc.isenabled()


LASTING = """
import os


class Told:
    def __init__(self, what):
        self.itself, self.what = self, what

    def __del__(self, write=os.write):
        write(1, self.what)


of_the_module = Told(b"of the module ")
"""
PROGRAM = """
import sys

from attrtrain.garbage import lasting_imports

with lasting_imports():
    from lasting import Told

since = Told(b"since ")
left_open = open(sys.argv[1], "w")
left_open.write("all of it")
"""


def test_python_ends_without_taking_lasting_imports_apart_but_closes_what_was_opened_since(tmp_path: Path) -> None:
    (tmp_path / "lasting.py").write_text(LASTING)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-W", "always", str(tmp_path / "program.py"), str(tmp_path / "file")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "since "
    assert (tmp_path / "file").read_text() == "all of it"
    assert result.stderr.count("ResourceWarning: unclosed file") == 1


def test_where_all_is_imported_already_garbage_stays_garbage() -> None:
    gc.collect()
    before = gc.get_freeze_count()
    with lasting_imports():
        import json  # noqa: F401
    assert gc.get_freeze_count() == before
    assert gc.isenabled()

"""A program ends at once, but not before all is done that was to be done at its end."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit
import os
import sys
import threading
import time

from attrtrain.process_exit import run_program


class Told:
    def __init__(self, what):
        self.itself, self.what = self, what

    def __del__(self, write=os.write):
        write(1, self.what)


taken_apart = Told(b"taken apart")


def later():
    time.sleep(0.2)
    print("thread")


def main():
    atexit.register(print, "registered")
    threading.Thread(target=later).start()
    print("main")
    {end}


run_program(main)
"""


def run(end: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *flags, "-c", PROGRAM.replace("{end}", end)]
    return subprocess.run(command, capture_output=True, text=True)


def test_threads_and_what_is_registered_come_first_and_nothing_is_taken_apart() -> None:
    result = run("return 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "main\nthread\nregistered\n", "")


@pytest.mark.parametrize("flags", [("-W", "always"), ("-X", "dev")])
def test_who_asks_for_warnings_sees_what_is_left_open(flags: tuple[str, ...]) -> None:
    result = run("global left; left = open(__import__('os').devnull); return 3", *flags)
    assert result.returncode == 3
    assert result.stdout == "main\nthread\nregistered\ntaken apart"
    assert result.stderr.count("ResourceWarning: unclosed file") == 1


@pytest.mark.parametrize(
    ("end", "code", "told"), [("raise SystemExit(2)", 2, ""), ("raise KeyError('defect')", 1, "KeyError: 'defect'")]
)
def test_a_program_that_leaves_in_another_way_has_its_own_exit_code(end: str, code: int, told: str) -> None:
    result = run(end)
    assert result.returncode == code
    assert result.stdout == "main\nthread\nregistered\ntaken apart"
    assert told in result.stderr and bool(told) == bool(result.stderr)


def test_output_that_cannot_be_written_is_not_taken_for_written() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", PROGRAM.replace("{end}", "return 0")]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode != 0
    assert "No space left on device" in result.stderr

"""The command line: quick, and never a traceback for a user's mistake."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attrtrain import __version__, cli
from attrtrain.errors import ConfigError, ShardError

ATTRTRAIN = [sys.executable, "-W", "error", "-m", "attrtrain"]


def run(*arguments):
    return subprocess.run([*ATTRTRAIN, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_command():
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    for name, (_, text) in cli.COMMANDS.items():
        assert f"  {name:<10}{text}" in done.stdout


def test_evaluating_by_the_name_of_its_module_is_refused_and_not_silent():
    done = subprocess.run([sys.executable, "-m", "attrtrain.evaluate", "--model", "x"], capture_output=True, text=True)
    assert done.returncode == 1 and "-m attrtrain evaluate" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["shard", "verify"])
def test_a_commands_help_has_every_option_and_an_example(name):
    done = run(name, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert f"usage: attrtrain {name}" in done.stdout
    assert cli.COMMANDS[name][1] in done.stdout
    assert f"attrtrain {name} " in done.stdout.split("example")[-1]
    if name == "shard":
        for option in (
            "labels",
            "instances",
            "images",
            "out",
            "workers",
            "store-px",
            "quality",
            "context",
            "split",
            "max-failure-rate",
        ):
            assert f"--{option} " in done.stdout
        assert "default: 256" in done.stdout


_SLOW = (
    "torch",
    "numpy",
    "scipy",
    "pydantic",
    "PIL",
    "pyarrow",
    "yaml",
    "jsonargparse",
    "fsspec",
    "jinja2",
    "tqdm",
    "timm",
    "multiprocessing.connection",
)


@pytest.mark.parametrize("words", [[], *([name] for name in cli.COMMANDS)], ids=" ".join)
def test_help_waits_for_no_library(words):
    """Each of these takes longer to import than help may take to appear."""
    script = (
        "import sys\nfrom attrtrain.cli import main\n"
        f"try: main({[*words, '--help']})\nexcept SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {_SLOW} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "[]\n" and "usage: " in done.stdout


def test_sharding_and_verifying_import_no_torch():
    script = (
        "import sys, attrtrain.shard, attrtrain.verify, attrtrain.shards.write, attrtrain.shards.verify, tools.shard_coco\n"
        "print([name for name in ('torch', 'torchvision', 'accelerate', 'webdataset') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert done.stdout == "[]\n", done.stderr


def test_version():
    assert run("--version").stdout == f"attrtrain {__version__}\n"


def test_without_a_command_the_help_is_shown_as_a_usage_error():
    done = run()
    assert done.returncode == 2 and "commands:" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["shrad"], ["--surprise"], ["shard"], ["shard", "--labels", "x.csv"], ["verify"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]


def test_an_unknown_command_names_those_that_exist():
    assert all(f"'{name}'" in run("shrad").stderr or name in run("shrad").stderr for name in cli.COMMANDS)


class Failing:
    """Stands in for a command's module."""

    EXAMPLES = ""

    def __init__(self, error):
        self.error = error

    def add_arguments(self, parser):
        pass

    def run(self, arguments):
        raise self.error


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (ShardError("no space"), 1, "error: no space\n"),
        (ConfigError("--workers 0"), 2, "error: --workers 0\n"),
        (ShardError("column 're\nerror: all fine\x1b[2J'"), 1, "error: column 're\\nerror: all fine\\x1b[2J'\n"),
        (PermissionError(13, "Permission denied", "shards/locked"), 1, "error: shards/locked: Permission denied\n"),
        (
            OSError(28, "No space left on device"),
            1,
            "error: No space left on device: make room where files, or this output, go\n",
        ),
        (
            MemoryError("Unable to allocate 9 GiB"),
            1,
            "error: out of memory: Unable to allocate 9 GiB; give this machine more, or fewer --workers\n",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has 1.00 MiB free.\nmore"),
            1,
            "error: out of memory: CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has 1.00 MiB free.; end what else holds it "
            "(`nvidia-smi` tells, on a GPU), give smaller pictures or batches, or compute on the CPU: ACCELERATE_USE_CPU=true\n",
        ),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to go on\n"),
        (KeyboardInterrupt(signal.SIGTERM), 143, "stopped; run the same command again to go on\n"),
    ],
)
def test_what_a_user_can_meet_is_one_line_with_its_exit_code(monkeypatch, capsys, error, exit_code, line):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Failing(error))
    assert cli.main(["shard"]) == exit_code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "train"])  # it has flags of its own
def test_who_stops_a_command_is_told_whether_it_goes_on(monkeypatch, capsys, command):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Failing(KeyboardInterrupt()))
    assert cli.main([command]) == 130
    goes_on = command in ("shard", "annotate", "features")  # as README's table of commands has it
    told = "run the same command again to go on" if goes_on else "the same command begins anew"
    assert capsys.readouterr().err == f"stopped; {told}\n"


@pytest.mark.parametrize(("local_rank", "lines"), [("0", 1), ("1", 0)])
def test_of_several_processes_one_of_a_machine_tells_what_is_wrong(monkeypatch, capsys, local_rank, lines):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert cli.main(["evaluate", "--model", "nowhere", "--shards", "nowhere"]) == 1
    assert capsys.readouterr().err.count("error: nowhere") == lines


class Printing(Failing):
    def run(self, arguments):
        print("█ 1.0 é")
        return 0


def test_characters_that_a_terminal_lacks_end_no_command(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Printing(None))
    assert cli.main(["shard"]) == 0
    assert terminal.buffer.getvalue().decode("latin-1") == "? 1.0 é\n"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), OSError(5, "nobody knows where"), RuntimeError("shapes do not match")]
)
def test_a_defect_of_ours_keeps_its_traceback(monkeypatch, error):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Failing(error))
    with pytest.raises(type(error)):
        cli.main(["shard"])


@pytest.mark.parametrize("command", [["verify"], ["train", "--data.shards"]])
def test_a_name_that_no_file_can_have_is_one_line(capsys, command):
    assert cli.main([*command, "x" * 300]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1


def test_a_reader_that_has_gone_is_no_news(tmp_path):
    """As in `attrtrain verify … | head -0`."""
    script = (
        "import sys, types\nfrom attrtrain import cli\n"
        "command = types.SimpleNamespace(EXAMPLES='', add_arguments=lambda parser: None, run=lambda _: print('x' * 10) or 0)\n"
        "cli.importlib.import_module = lambda name: command\n"
        "sys.exit(cli.main(['shard']))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


_PRINTING = (
    "import sys, types\nfrom attrtrain import cli\n"
    "def run(_):\n    print('x' * 10)\n    print('y', file=sys.stderr)\n    sys.stderr.isatty()\n    return open('/dev/null').fileno() < 3\n"
    "command = types.SimpleNamespace(EXAMPLES='', add_arguments=lambda parser: None, run=run)\n"
    "cli.importlib.import_module = lambda name: command\n"
    "sys.exit(cli.main(['shard']))"
)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_command_and_no_file_gets_their_number(closed):
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, _PRINTING], capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_goes_to_a_full_disk_is_one_line(unbuffered):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _PRINTING.replace("print('y', file=sys.stderr)", "pass")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device: make room where files, or this output, go\n"


def coco_folder(root, *names):
    for name in names:
        path = root / name
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True)
    return root


YEAR_2017 = ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017", "val2017")
YEAR_2014 = tuple(name.replace("2017", "2014") for name in YEAR_2017)


@pytest.mark.parametrize(
    ("names", "year", "splits"),
    [
        (YEAR_2017, "2017", ("train", "val")),
        (YEAR_2014, "2014", ("train", "val")),
        (YEAR_2014 + YEAR_2017, "2017", ("train", "val")),
        (YEAR_2014 + YEAR_2017[:2], "2014", ("train", "val")),  # 2017 without its photographs
        (YEAR_2017[1::2], "2017", ("val",)),
    ],
)
def test_shard_coco_finds_what_a_coco_folder_holds(tmp_path, names, year, splits):
    from tools.shard_coco import arguments_for

    coco = coco_folder(tmp_path, *names)
    assert arguments_for(coco, "labels.jbl", "out", ["--quality", "80"]) == [
        "shard", "--labels", "labels.jbl",
        "--instances", *(str(coco / "annotations" / f"instances_{split}{year}.json") for split in splits),
        "--images", *(str(coco / f"{split}{year}") for split in splits),
        "--out", "out", "--quality", "80",
    ]  # fmt: skip


def test_shard_coco_says_what_is_missing_and_how_it_is_used(tmp_path):
    script = Path(__file__).parents[2] / "tools" / "shard_coco.py"
    done = subprocess.run([sys.executable, script, tmp_path, "labels.jbl", "out"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: no annotations/") and len(done.stderr.splitlines()) == 1
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 1 and "python tools/shard_coco.py COCO_FOLDER" in done.stderr

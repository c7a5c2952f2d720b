"""`attrtrain shard` and `attrtrain verify` as a user runs them: from nothing, again, killed, on a full disk, with
mistakes.
"""

import csv
import fcntl
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from attrtrain.cli import main
from attrtrain.shards.execute import _follow
from attrtrain.shards.manifest import INDEX_DTYPE

ATTRTRAIN = [sys.executable, "-W", "error", "-m", "attrtrain"]
PHOTOGRAPHS, OBJECTS = 40, 8
HEADER = ["file_name", "split", "x", "y", "w", "h", "object_id", "category", "striped", "parked"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """labels.csv with 320 objects, and images/ with 40 photographs of noise."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(PHOTOGRAPHS):
        Image.fromarray(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.jpg")
        for _ in range(OBJECTS):
            x, y, w, h = rng.integers(0, 150), rng.integers(0, 100), rng.integers(20, 170), rng.integers(20, 140)
            labels = rng.choice(["0", "1", "0.25", "", "-1"], 2)
            split = "val" if number % 4 == 0 else "train"
            rows.append([f"{number}.jpg", split, x, y, w, h, 1000 + len(rows), "thing", *labels])
    write_csv(folder / "labels.csv", rows)
    return folder


@pytest.fixture(scope="module")
def much_data(data, tmp_path_factory):
    """The same photographs with twenty times the objects, which three workers need a second for."""
    folder = tmp_path_factory.mktemp("much_data")
    (folder / "images").symlink_to(data / "images")
    rows = [row for _ in range(20) for row in read_csv(data)]
    number_of_id = HEADER.index("object_id")
    write_csv(
        folder / "labels.csv", [[*row[:number_of_id], 1000 + n, *row[number_of_id + 1 :]] for n, row in enumerate(rows)]
    )
    return folder


@pytest.fixture(scope="module")
def undisturbed(data):
    run(data, data / "undisturbed", "--workers", "1")
    return content_of(data / "undisturbed")


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def read_csv(data):
    with (data / "labels.csv").open() as file:
        return list(csv.reader(file))[1:]


def command(data, out, *options):
    paths = ["--labels", data / "labels.csv", "--images", data / "images", "--out", out]
    return [*ATTRTRAIN, "shard", *paths, "--shard-objects", "24", *options]


def run(data, out, *options, exit_code=0, **how):
    """In this process where one is enough: a tenth of a second in place of one."""
    if "--workers" not in options:
        options = ("--workers", "1", *options)
    if how or options[options.index("--workers") + 1] != "1":
        done = subprocess.run(command(data, out, *options), capture_output=True, text=True, timeout=120, **how)
    else:
        done = main_here(command(data, out, *options)[len(ATTRTRAIN) :])
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def main_here(arguments):
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        try:
            exit_code = main([str(argument) for argument in arguments])
        except SystemExit as usage:  # argparse
            exit_code = usage.code
    return subprocess.CompletedProcess(arguments, exit_code, output.getvalue(), errors.getvalue())


def content_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def identities_of(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.tar")}


def partials_below(folder):
    return [path.name for path in folder.rglob(".*")]


def last_lines(text):
    """What stands on the terminal after a progress bar has been redrawn in place."""
    return [line.split("\r")[-1] for line in text.splitlines()]


def error_line(done):
    lines = [line for line in last_lines(done.stderr) if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def start(data, out, *options):
    return subprocess.Popen(
        command(data, out, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(condition, process=None, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.005)


def started_writing(out):
    return lambda: any(out.glob("*.tar")) or any(out.glob(".*.tar.*"))


def workers_of(process):
    """Ids of the worker processes, which are forks of multiprocessing's fork server, itself no worker."""
    return [worker for server in fork_servers_of(process) for worker in children_of(server)]


def has_begun(worker):
    """Whether a worker process is ready for work: its start ends with that of a thread, its second."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{worker}/task").iterdir())) > 1
    return False


def fork_servers_of(process):
    return [child for child in children_of(process.pid) if b"multiprocessing.forkserver" in command_line_of(child)]


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def ended(process):
    """Waits for what `start` started, and gives its standard error."""
    try:
        return process.communicate(timeout=30)[1]
    finally:
        end_session(process)


def end_session(process):
    """Ends what `start` started, so that a test that fails leaves nobody behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds worker processes through Linux's /proc"
)


# --- from nothing


@pytest.mark.parametrize("workers", ["2", "3"])
def test_any_number_of_workers_gives_the_same_bytes(data, tmp_path, undisturbed, workers):
    run(data, tmp_path / "out", "--workers", workers)
    assert content_of(tmp_path / "out") == undisturbed


def test_summary_on_the_screen_and_in_the_file(data, tmp_path):
    done = run(data, tmp_path / "new" / "out", "--workers", "1")
    summary = json.loads((tmp_path / "new" / "out" / "summary.json").read_text())
    assert summary == {
        "label_objects": 320, "matched": 320, "no_annotation": 0, "written": 320, "left_out": {},
        "splits": {"train": {"objects": 240, "images": 30}, "val": {"objects": 80, "images": 10}},
    }  # fmt: skip
    assert done.stdout.splitlines()[:4] == [
        "labelled objects               320",
        "without annotation               0",
        "matched                        320",
        "written                        320",
    ]
    assert "14 shards" in done.stdout.splitlines()[-1] and str(tmp_path / "new" / "out") in done.stdout


def test_one_is_told_as_one(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text("file_name,x,y,w,h,red\na.png,1,1,9,9,1\n")
    assert run(tmp_path, tmp_path / "part", "--part", "0/1").stdout == "part 0/1: 1 of 1 shard, 1 crop\n"
    *_, split, last = run(tmp_path, tmp_path / "out").stdout.splitlines()
    assert split.split() == ["train:", "1", "photograph", "1"]
    again = run(tmp_path, tmp_path / "out").stderr
    assert "1 of 1 shard is already written, and is kept: its photographs are not looked at again\n" in again
    assert last.startswith("1 shard, ") and last.endswith(f" 1 attribute in {tmp_path / 'out'}")
    assert verify(tmp_path / "out").stdout == f"{tmp_path / 'out'}: 1 shard, 1 sample, every byte as written\n"
    (tmp_path / "images" / "a.png").unlink()
    assert "not one crop was written: 1 image missing" in error_line(run(tmp_path, tmp_path / "none", exit_code=1))


def test_objects_whose_box_another_has_are_counted(tmp_path):
    """As tables with one row a label have them, which say of the same crop that it is red and that it is not."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / "images" / name)
    rows = ["a.png,1,1,9,9,1", "b.png,1,1,9,9,1", "a.png,1,1,9,8,0", "./a.png,1.0,1,9,9,0"]
    for count, told in (
        (3, []),
        (4, ["note: 2 objects have the same box of the same photograph as another: an object is one row, with all of its labels; `attrtrain audit` names some"]),
    ):  # fmt: skip
        (tmp_path / "labels.csv").write_text("\n".join(["file_name,x,y,w,h,red", *rows[:count]]))
        done = run(tmp_path, tmp_path / str(count))
        assert [line for line in done.stderr.splitlines() if "same box" in line] == told


def test_a_photograph_named_from_the_root_and_from_its_folder_is_one(tmp_path, capsys):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    Image.new("RGB", (60, 40)).save(photographs / "a.png")
    labels = tmp_path / "boxes.csv"
    labels.write_text(f"file_name,split,x,y,w,h,red\na.png,train,1,1,9,9,1\n{photographs / 'a.png'},val,20,1,9,9,0\n")
    arguments = ["shard", "--labels", str(labels), "--images", str(photographs), "--split", "official"]
    assert main([*arguments, "--out", str(tmp_path / "shards")]) == 1
    assert "is in two splits, 'val' and 'train'" in capsys.readouterr().err


def test_a_photograph_named_from_a_folder_and_from_the_one_around_it_is_one(tmp_path, capsys):
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(tmp_path / "outer" / "inner" / "a.png")
    labels = tmp_path / "boxes.csv"
    labels.write_text("file_name,split,x,y,w,h,red\ninner/a.png,train,1,1,9,9,1\na.png,val,20,1,9,9,0\n")
    folders = [str(tmp_path / "outer"), str(tmp_path / "outer" / "inner")]
    for images in (folders, folders[::-1]):
        arguments = ["shard", "--labels", str(labels), "--images", *images, "--split", "official"]
        assert main([*arguments, "--out", str(tmp_path / "shards")]) == 1
        assert "is in two splits, 'val' and 'train'" in capsys.readouterr().err


def test_a_log_file_gets_few_progress_lines_with_rate_and_time_left(data, tmp_path):
    done = run(data, tmp_path / "out", "--workers", "2")
    bars = [line for line in done.stderr.replace("\r", "\n").splitlines() if "sharding:" in line]
    assert 1 <= len(bars) <= 4
    assert "320/320" in bars[-1] and "objects/s" in bars[-1] and "<00:00" in bars[-1]


def test_on_a_terminal_the_bar_moves_during_a_shard(data, tmp_path):
    """Two shards, two workers: without a count from within, the bar could only show none, one of the shards, or all."""
    header, *rows = (data / "labels.csv").read_text().splitlines()
    many = [row.replace(",thing", f"{copy:02d},thing") for copy in range(20) for row in rows]  # seconds of work
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "labels.csv").write_text("\n".join([header, *many]))
    (tmp_path / "many" / "images").symlink_to(data / "images")
    val, total = sum(",val," in row for row in many), len(many)
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    shards = command(tmp_path / "many", tmp_path / "out", "--workers", "2", "--shard-objects", "100000")
    process = subprocess.Popen(shards, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:  # how a terminal says that its last writer has gone
        pass
    os.close(master)
    assert process.wait() == 0
    whole = f"/{total}".encode()
    counts = {int(text.split(whole)[0].split()[-1]) for text in shown.split(b"\r") if whole in text}
    assert counts - {0, val, total - val, total}, shown


def test_row_order_and_folder_names_do_not_change_the_shards(data, tmp_path, undisturbed):
    shutil.copytree(data / "images", tmp_path / "elsewhere" / "images")
    rows = read_csv(data)
    random.Random(0).shuffle(rows)
    write_csv(tmp_path / "elsewhere" / "labels.csv", rows)
    run(tmp_path / "elsewhere", tmp_path / "out", "--workers", "1")
    differing = {name for name, content in content_of(tmp_path / "out").items() if undisturbed[name] != content}
    assert differing == {"manifest.json"}  # the checksum of the label file


# --- stopped and started again


@needs_proc
@pytest.mark.parametrize(("workers", "kills"), [("1", 7), ("3", 5)])
def test_killed_at_any_moments_it_ends_with_the_same_bytes(data, tmp_path, undisturbed, workers, kills):
    out, rng, finished = tmp_path / "out", random.Random(workers), {}
    for _ in range(kills):
        process = start(data, out, "--workers", workers)
        wait_until((out / "plan.json").exists, process)
        time.sleep(rng.uniform(0, 0.5 if workers == "1" else 1.2))
        children = workers_of(process)
        process.kill()
        process.wait()
        try:
            wait_until(lambda children=children: not any(map(is_alive, children)), seconds=5)
        finally:
            end_session(process)
        recorded = {path.stem for path in (out / "records").glob("[!.]*.json")}
        now = {name: i for name, i in identities_of(out).items() if Path(name).stem in recorded}
        assert finished.items() <= now.items()  # what a run had finished, none after it wrote again
        finished = now
        for name in finished:
            assert (out / name).read_bytes() == undisturbed[name]
    run(data, out, "--workers", workers)
    assert content_of(out) == undisturbed
    assert finished.items() <= identities_of(out).items()


def test_killed_while_finishing_it_ends_with_the_same_bytes(data, tmp_path, undisturbed):
    """Stopped before each file that `finish` moves into place, in turn."""
    script = (
        "import os, sys, attrtrain.files as files, pathlib\n"
        "replace = pathlib.Path.replace\n"
        "def die_at(path, target):\n"
        "    if target.name == sys.argv[1]: os.kill(os.getpid(), 9)\n"
        "    return replace(path, target)\n"
        "pathlib.Path.replace = die_at\n"
        "from attrtrain.cli import main\n"
        "main(sys.argv[2:])\n"
    )
    arguments = command(data, tmp_path / "out", "--workers", "1")[len(ATTRTRAIN) :]
    for name in ("train-000003.tar", "train-000003.json", "index.npy", "manifest.json"):
        killed = subprocess.run([sys.executable, "-c", script, name, *arguments], capture_output=True)
        assert killed.returncode == -signal.SIGKILL
        assert not (tmp_path / "out" / "manifest.json").exists()
        assert partials_below(tmp_path / "out")
    run(data, tmp_path / "out", "--workers", "1")
    assert content_of(tmp_path / "out") == undisturbed


@needs_proc
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", ["1", "3"])
@pytest.mark.parametrize("to", ["everyone", "parent"])
def test_stopped_by_a_signal_it_says_so_in_one_line(data, tmp_path, undisturbed, number, exit_code, workers, to):
    """To everyone, as a terminal's Ctrl-C and job schedulers send it, or to the one process a user names."""
    out = tmp_path / "out"
    process = start(data, out, "--workers", workers)
    wait_until(started_writing(out), process)
    children = workers_of(process)
    assert (len(children) > 0) == (workers != "1")
    (os.killpg if to == "everyone" else os.kill)(process.pid, number)
    errors = ended(process)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors and "Exception" not in errors
    assert last_lines(errors)[-1] == "stopped; run the same command again to go on"
    assert not any(map(is_alive, children))
    assert not partials_below(out)
    assert len(list(out.glob("*.tar"))) < 14  # at once, and not when all is done
    run(data, out)
    assert content_of(out) == undisturbed


@needs_proc
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_whose_files_another_takes_away_leaves_the_folder_to_it(data, tmp_path, workers):
    out = tmp_path / "out"
    process = start(data, out, "--workers", str(workers))
    wait_until(started_writing(out), process)
    others = out / ".train-000003.tar.0123456789ab.partial"  # of a run of the same command that has just begun
    others.write_bytes(b"half")
    while process.poll() is None:
        for partial in out.glob(".*.tar.*"):
            if partial != others:
                partial.unlink(missing_ok=True)
    _, errors = process.communicate()
    assert process.returncode == 1 and "the unfinished file was taken away; is another" in errors
    assert others.exists() and (out / "plan.json").exists() and (out / "records").is_dir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_though_a_photograph_never_comes(data, tmp_path, number):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)  # connections are taken, and nothing is ever said
        place = f"http://127.0.0.1:{server.getsockname()[1]}/photographs"
        process = start(data, tmp_path / "out", "--workers", "1", "--images", place)
        wait_until(started_writing(tmp_path / "out"), process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode in (130, 143) and "Traceback" not in errors


# Stops the process in the middle of an import that runs a text as code, as those of dataclasses and namedtuples do.
STOPPED_IN_AN_IMPORT = """
import signal, sys

class Stop:
    def find_spec(self, name, path, target=None):
        if name == "attrtrain.shards.plan":
            exec("signal.raise_signal(signal.SIGINT)")

sys.meta_path.insert(0, Stop())
"""


def test_stopped_in_an_import_it_ends_with_an_exit_code_and_not_by_the_signal(data, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(STOPPED_IN_AN_IMPORT)
    folders = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command(data, tmp_path / "out"), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": folders}
    )
    assert done.returncode == 130 and done.stderr == "stopped; run the same command again to go on\n"
    assert not (tmp_path / "out").exists()


@needs_proc
@pytest.mark.parametrize(
    ("begun", "delay", "number", "exit_code"),
    [
        *((fork_servers_of, delay, signal.SIGINT, 130) for delay in (0.0, 0.1, 0.3)),
        (workers_of, 0.0, signal.SIGINT, 130),
        (workers_of, 0.0, signal.SIGTERM, 143),
    ],
)
def test_a_signal_while_workers_start_gives_no_traceback_either(much_data, tmp_path, begun, delay, number, exit_code):
    process = start(much_data, tmp_path / "out", "--workers", "3")
    wait_until(lambda: begun(process), process)
    time.sleep(delay)
    os.killpg(process.pid, number)
    errors = ended(process)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors and "Exception" not in errors
    assert last_lines(errors)[-1] == "stopped; run the same command again to go on"


@needs_proc
def test_workers_are_deaf_to_an_interrupt_from_their_first_instruction_on(data, tmp_path, undisturbed):
    """Only the parent decides what Ctrl-C means; a worker that is still importing would answer with a traceback."""
    process = start(data, tmp_path / "out", "--workers", "3")
    wait_until(lambda: workers_of(process), process)
    for _ in range(60):
        for child in workers_of(process):
            os.kill(child, signal.SIGINT)
        time.sleep(0.01)
    errors = ended(process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert content_of(tmp_path / "out") == undisturbed


@needs_proc
def test_a_worker_killed_by_the_system_is_one_clear_line(data, tmp_path, undisturbed):
    out = tmp_path / "out"
    process = start(data, out, "--workers", "3")
    wait_until(started_writing(out), process)
    children = workers_of(process)
    os.kill(children[0], signal.SIGKILL)
    errors = ended(process)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert last_lines(errors)[-1].startswith("error: a worker process died (out of memory?); finished shards are kept")
    assert not any(map(is_alive, children))
    assert not partials_below(out)
    run(data, out)
    assert content_of(out) == undisturbed


@needs_proc
def test_a_fork_server_killed_by_the_system_is_one_clear_line(much_data, tmp_path):
    """Its forks end with the command, which no longer knows them: what one of them was writing is removed next time."""
    out = tmp_path / "out"
    process = start(much_data, out, "--workers", "3")
    # Python itself prints a traceback of a fork that has not begun when the command ends.
    wait_until(lambda: sum(has_begun(worker) for worker in workers_of(process)) == 3, process)
    os.kill(fork_servers_of(process)[0], signal.SIGKILL)
    errors = ended(process)
    assert process.returncode == 1 and "Traceback" not in errors
    assert last_lines(errors)[-1].startswith("error: a worker process died (out of memory?); finished shards are kept")
    run(much_data, out)
    run(much_data, tmp_path / "undisturbed")
    assert content_of(out) == content_of(tmp_path / "undisturbed")


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux only")
def test_a_fork_server_that_dies_while_a_worker_starts_is_one_clear_line(data, tmp_path, monkeypatch):
    def without_answer(descriptors):
        raise EOFError

    monkeypatch.setattr("multiprocessing.forkserver.connect_to_new_process", without_answer)
    done = main_here(command(data, tmp_path / "out", "--workers", "2")[len(ATTRTRAIN) :])
    assert done.returncode == 1 and error_line(done).startswith("error: a worker process died (out of memory?)")


def test_a_folder_being_written_again_does_not_count_as_complete(data, tmp_path, undisturbed):
    """Were the old manifest left, a run stopped half-way would look like a finished one with damaged shards."""
    out = tmp_path / "out"
    shutil.copytree(data / "undisturbed", out)
    (out / "train-000002.tar").unlink()
    limited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))}
    run(data, out, exit_code=1, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, **limited)
    assert "sharding has not finished; run the same `attrtrain shard` command again" in verify(out).stderr


def test_a_worker_killed_while_it_counts_does_not_hold_the_progress_bar():
    done = multiprocessing.get_context("spawn").Value("q", 0)
    finished = threading.Event()

    def follow():
        with _follow(tqdm(total=1, disable=True), done):
            pass
        finished.set()

    with done.get_lock():  # as a worker that was killed holds it, for ever
        threading.Thread(target=follow, daemon=True).start()
        assert finished.wait(10)


def test_a_finished_folder_is_left_as_it_is(data, tmp_path, undisturbed):
    run(data, tmp_path / "out", "--workers", "1")
    before = identities_of(tmp_path / "out")
    done = run(data, tmp_path / "out")
    assert "14 of 14 shards are already written" in done.stderr
    assert identities_of(tmp_path / "out") == before
    assert content_of(tmp_path / "out") == undisturbed


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--store-px", "64"], "store_px: 256 → 64"),
        (["--context", "0.1", "--quality", "80"], "quality: 90 → 80; context: 0.0 → 0.1"),
        (["--shard-objects", "21"], "shard_objects: 24 → 21"),
        (["--split", "image"], "splits: "),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(data, undisturbed, options, told):
    done = run(data, data / "undisturbed", *options, exit_code=1)
    assert told in error_line(done) and "another plan" in error_line(done)
    assert content_of(data / "undisturbed") == undisturbed


@pytest.mark.parametrize(("column", "told"), [("striped", "labels: "), ("w", "boxes: "), ("category", "boxes: ")])
def test_a_changed_label_file_in_the_same_folder_is_refused(data, tmp_path, undisturbed, column, told):
    rows = read_csv(data)
    rows[17][HEADER.index(column)] = "0.75"
    write_csv(tmp_path / "labels.csv", rows)
    (tmp_path / "images").symlink_to(data / "images")
    done = run(tmp_path, data / "undisturbed", exit_code=1)
    assert told in error_line(done)
    assert content_of(data / "undisturbed") == undisturbed


def test_a_photograph_supplied_later_gets_in(data, tmp_path, undisturbed):
    shutil.copytree(data / "images", tmp_path / "images")
    shutil.copy(data / "labels.csv", tmp_path)
    (tmp_path / "images" / "7.jpg").unlink()
    (tmp_path / "images" / "9.jpg").write_bytes(b"half a downlo")
    out = tmp_path / "out"
    run(tmp_path, out, "--max-failure-rate", "0.1")
    before = identities_of(out)
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert Counter((line["image"], line["reason"]) for line in failures) == {
        ("7.jpg", "image_missing"): OBJECTS,
        ("9.jpg", "image_broken"): OBJECTS,
    }
    for name in ("7.jpg", "9.jpg"):
        shutil.copy(data / "images" / name, tmp_path / "images")
    run(tmp_path, out)
    assert content_of(out) == undisturbed
    rewritten = {name for name, identity in identities_of(out).items() if before[name] != identity}
    assert 1 <= len(rewritten) <= 2


# --- no space


def test_a_full_disk_is_one_line_and_more_space_mends_it(data, tmp_path, undisturbed):
    out = tmp_path / "mount" / "out"
    (tmp_path / "mount").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "attrtrain-test", tmp_path / "mount"]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small file system")
    try:
        for workers in ("1", "2"):
            done = run(data, out, "--workers", workers, exit_code=1)
            assert "No space left on device; finished shards are kept" in error_line(done)
            assert not partials_below(out) and not (out / "manifest.json").exists()
            assert all(path.read_bytes() == undisturbed[path.name] for path in out.glob("*.tar"))
        subprocess.run(["mount", "-o", "remount,size=100m", tmp_path / "mount"], check=True)
        run(data, out, "--workers", "1")
        assert content_of(out) == undisturbed
    finally:
        subprocess.run(["umount", tmp_path / "mount"], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("limit", [50_000, 100], ids=["within a shard", "at once"])
def test_a_file_size_limit_is_one_line_too(data, tmp_path, undisturbed, workers, limit):
    out = tmp_path / "out"
    limited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}
    done = run(
        data, out, "--workers", workers, exit_code=1, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, **limited
    )
    assert "File too large" in error_line(done)
    assert not partials_below(out) and not list(out.glob("*.tar")) and not (out / "manifest.json").exists()
    run(data, out, "--workers", "1")
    assert content_of(out) == undisturbed


def test_no_space_for_the_last_files_keeps_the_shards(data, tmp_path):
    out = tmp_path / "out"
    shards = command(data, out, "--workers", "1", "--store-px", "8", "--shard-objects", "5")
    limit = 320 * INDEX_DTYPE.itemsize  # the index has a header too, and no shard is as large
    done = subprocess.run(
        shards,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert "File too large; the shards are kept" in error_line(done)
    assert not partials_below(out) and not (out / "manifest.json").exists()
    before = identities_of(out)
    assert len(before) == 40
    assert main_here(shards[len(ATTRTRAIN) :]).returncode == 0
    assert identities_of(out) == before


# --- mistakes


def test_out_may_not_be_a_file(data, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert str(tmp_path / "out") in error_line(run(data, tmp_path / "out", exit_code=1))
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("before", ["empty", "half written"])
def test_a_read_only_folder_is_one_line(data, tmp_path, before):
    """By a read-only mount, because root may write into any folder."""
    out = tmp_path / "mount" / "out"
    (tmp_path / "mount").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "attrtrain-test", tmp_path / "mount"]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a file system")
    try:
        if before == "half written":
            run(data, out, "--workers", "1")
            (out / "train-000002.tar").unlink()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "mount"], check=True)
        assert "Read-only file system" in error_line(run(data, out, "--workers", "1", exit_code=1))
    finally:
        subprocess.run(["umount", tmp_path / "mount"], check=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--images": "nowhere"}, "--images nowhere: no such folder"),
        ({"--labels": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"--labels": "labels.docx"}, "unknown kind of label file '.docx'"),
        ({"--labels": "empty.csv"}, "empty.csv: holds no objects"),
        ({"--labels": "none.json"}, "none.json"),
        ({"--labels": "bad_split.csv"}, "split '../up'"),
        ({"--labels": "labels.pkl"}, "give --instances"),
    ],
)
def test_a_wrong_path_is_one_line_and_makes_no_folder(data, tmp_path, monkeypatch, change, told):
    (tmp_path / "labels.docx").touch()
    (tmp_path / "labels.pkl").touch()
    (tmp_path / "none.json").write_text("[]")
    write_csv(tmp_path / "empty.csv", [])
    write_csv(tmp_path / "bad_split.csv", [["7.jpg", "../up", 1, 2, 30, 40, 5, "thing", 1, 0]])
    arguments = {"--labels": data / "labels.csv", "--images": data / "images", "--out": "out", **change}
    flat = [text for pair in arguments.items() for text in pair]
    monkeypatch.chdir(tmp_path)
    done = main_here(["shard", *flat])
    assert done.returncode == 1, done.stderr
    assert told in error_line(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "0"], "--workers 0"),
        (["--store-px", "2"], "--store-px 2"),
        (["--quality", "101"], "--quality 101"),
        (["--context", "nan"], "--context nan"),
        (["--val-share", "1"], "--val-share 1.0"),
        (["--shard-objects", "0"], "--shard-objects 0"),
        (["--max-failure-rate", "-0.1"], "--max-failure-rate -0.1"),
        (["--quality", "high"], "--quality"),
        (["--surprise"], "--surprise"),
    ],
)
def test_a_setting_out_of_range_is_a_usage_error(data, tmp_path, options, told):
    done = run(data, tmp_path / "out", *options, exit_code=2)
    assert told in last_lines(done.stderr)[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rate", "exit_code"), [("0.02", 1), ("0.025", 0), ("0", 1), ("1", 0)])
def test_the_failure_rate_decides_the_exit_code(data, tmp_path, rate, exit_code):
    rows = read_csv(data)
    for row in rows[:OBJECTS]:  # 8 of 320: 2.5 %
        row[HEADER.index("w")] = "0"
    write_csv(tmp_path / "labels.csv", rows)
    (tmp_path / "images").symlink_to(data / "images")
    done = run(tmp_path, tmp_path / "out", "--workers", "1", "--max-failure-rate", rate, exit_code=exit_code)
    assert ("8 of 320 objects (2.5%) were left out" in done.stderr) == bool(exit_code)
    assert any(line.split() == ["left", "out:", "box", "empty", "8"] for line in done.stdout.splitlines())
    failures = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert sorted(line["object_id"] for line in failures) == list(range(1000, 1008))
    first = f"the first: object {failures[0]['object_id']}, {failures[0]['detail']}. "
    assert (first in done.stderr) == bool(exit_code)
    assert {(line["image"], line["reason"]) for line in failures} == {("0.jpg", "box_empty")}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["left_out"] == {"box_empty": 8}
    assert verify(tmp_path / "out").returncode == 0


def test_not_one_crop_is_an_error_at_any_rate(data, tmp_path):
    (tmp_path / "images").mkdir()
    shutil.copy(data / "labels.csv", tmp_path)
    for out in (tmp_path / "out", tmp_path / "new" / "out"):
        done = run(tmp_path, out, "--max-failure-rate", "1", exit_code=1)
        told = error_line(done)
        assert "not one crop was written: 320 image missing; the first: object" in told
        assert f".jpg is in none of {tmp_path / 'images'}" in told and done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "labels.csv"]  # and no folder of ours


def test_what_comes_to_nothing_leaves_alone_what_was_there(data, tmp_path):
    (tmp_path / "images").mkdir()
    shutil.copy(data / "labels.csv", tmp_path)
    (tmp_path / "out").mkdir()
    run(tmp_path, tmp_path / "out", exit_code=1)
    assert not any((tmp_path / "out").iterdir())
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run(tmp_path, tmp_path / "out", exit_code=1)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


# --- verify


def verify(*folders):
    return main_here(["verify", *folders])


def test_damage_is_named_and_the_told_way_mends_it(data, tmp_path, undisturbed):
    out = tmp_path / "out"
    shutil.copytree(data / "undisturbed", out)
    assert verify(out).stdout == f"{out}: 14 shards, 320 samples, every byte as written\n"
    sample = np.load(out / "index.npy")[30]
    damaged = bytearray((out / "train-000001.tar").read_bytes())
    damaged[sample["jpeg_offset"] + 99] ^= 1
    (out / "train-000001.tar").write_bytes(damaged)
    (out / "val-000000.tar").unlink()
    (out / "labels.npy").write_bytes(undisturbed["labels.npy"][:-1])
    done = verify(out)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert f"{out}/train-000001.tar: sample {sample['object_id']:012d} is damaged" in done.stderr
    assert f"{out}/val-000000.tar: missing" in lines
    assert f"{out}/labels.npy: damaged, its checksum differs" in lines
    assert "`attrtrain shard` command that wrote it" in lines[-1]
    before = identities_of(out)
    assert "12 of 14 shards are already written" in run(data, out).stderr
    assert verify(out).returncode == 0
    assert content_of(out) == undisturbed
    kept = {name: identity for name, identity in before.items() if name != "train-000001.tar"}
    assert kept.items() <= identities_of(out).items()


def test_every_folder_is_looked_at_whatever_the_first_is_like(data, tmp_path, undisturbed):
    (tmp_path / "other").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{}")
    done = verify(tmp_path / "nowhere", tmp_path / "other", tmp_path / "damaged", data / "undisturbed")
    assert done.returncode == 1
    assert "every byte as written" in done.stdout
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error"] * 3


# --- real photographs


@pytest.mark.shared_data
def test_real_photographs_with_both_label_files(shared_data, tmp_path):
    coco = shared_data / "coco_tiny"
    for name, workers in (("jbl", "2"), ("pkl", "1")):
        paths = ["--labels", coco / f"cocottributes_like.{name}", "--images", coco / "train2017", coco / "val2017"]
        instances = ["--instances", *sorted((coco / "annotations").glob("*.json"))]
        options = ["--out", tmp_path / name, "--workers", workers]
        subprocess.run([*ATTRTRAIN, "shard", *paths, *instances, *options], check=True)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        splits = summary.pop("splits")
        assert summary == {"label_objects": 1230, "matched": 1190, "no_annotation": 40, "written": 1190, "left_out": {}}
        assert sum(split["objects"] for split in splits.values()) == 1190
        assert verify(tmp_path / name).returncode == 0
    jbl, pkl = content_of(tmp_path / "jbl"), content_of(tmp_path / "pkl")
    assert {name for name in jbl if jbl[name] != pkl[name]} == {"manifest.json"}  # which names the label file
    assert jbl.keys() == pkl.keys()

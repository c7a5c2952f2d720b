"""`attrtrain shard --part I/N` and `--merge`: several machines, one folder, the bytes of one run."""

import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_shard import (
    ATTRTRAIN,
    command,
    content_of,
    data,
    end_session,
    error_line,
    identities_of,
    main_here,
    partials_below,
    run,
    start,
    undisturbed,
    wait_until,
)

from attrtrain.files import create_once
from attrtrain.shards import finish, write

__all__ = ["data", "undisturbed"]  # fixtures
PARTS = 3


def parts_of(shards, number):
    """Names of the tars of one part; the plan is in the order of the names."""
    return sorted(name for name in shards if name.endswith(".tar"))[number::PARTS]


def test_a_part_writes_every_nth_shard_and_nothing_but_the_plan(data, tmp_path, undisturbed):
    out = tmp_path / "out"
    done = run(data, out, "--part", "1/3")
    tars = parts_of(undisturbed, 1)
    assert content_of(out).keys() == {"plan.json", *tars, *(f"records/{name[:-4]}.json" for name in tars)}
    assert all(undisturbed[name] == content for name, content in content_of(out).items())
    assert done.stdout == "part 1/3: 5 of 14 shards, 104 crops\n"


def test_parts_at_the_same_time_and_a_merge_give_the_bytes_of_one_run(data, tmp_path, undisturbed):
    out = tmp_path / "new" / "out"
    processes = [start(data, out, "--workers", "1", "--part", f"{number}/{PARTS}") for number in range(PARTS)]
    for process in processes:
        assert process.wait(60) == 0, process.stderr.read()
        end_session(process)
    assert not (out / "manifest.json").exists()
    assert "320" in run(data, out, "--merge").stdout
    assert content_of(out) == undisturbed


def test_parts_that_are_killed_and_started_again_beside_each_other(data, tmp_path, undisturbed):
    """Each part is killed at random moments and started again at once, as a cluster does it, while others write."""
    out, failures = tmp_path / "out", []

    def keep_starting(number):
        rng = random.Random(number)
        for kill in (True, True, False):
            process = start(data, out, "--workers", "1", "--part", f"{number}/{PARTS}")
            try:
                if kill:
                    wait_until((out / "plan.json").exists, process)
                    time.sleep(rng.uniform(0, 0.4))
                    process.kill()
                    process.wait()
                elif process.wait(60):
                    failures.append(process.stderr.read())
            finally:
                end_session(process)

    threads = [threading.Thread(target=keep_starting, args=(number,)) for number in range(PARTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    run(data, out, "--merge")
    assert content_of(out) == undisturbed


@pytest.mark.parametrize("where", ["plan.json", "train-000003.tar", "train-000003.json"])
def test_what_a_killed_part_left_is_removed_by_itself_or_the_merge(data, tmp_path, undisturbed, where):
    """Killed before it moves one file into place: the other parts leave its unfinished file alone."""
    script = (
        "import os, sys, pathlib\n"
        "def dying(move):\n"
        "    def die_at(path, target):\n"
        "        if sys.argv[1] in (path.name, getattr(target, 'name', '')): os.kill(os.getpid(), 9)\n"
        "        return move(path, target)\n"
        "    return die_at\n"
        "pathlib.Path.replace = dying(pathlib.Path.replace)\n"
        "pathlib.Path.hardlink_to = dying(pathlib.Path.hardlink_to)\n"
        "from attrtrain.cli import main\n"
        "main(sys.argv[2:])\n"
    )
    out = tmp_path / "out"
    arguments = command(data, out, "--workers", "1", "--part", "0/3")[len(ATTRTRAIN) :]
    killed = subprocess.run([sys.executable, "-c", script, where, *arguments], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = partials_below(out)
    assert len(left) == 1
    for number in (1, 2):
        run(data, out, "--part", f"{number}/3")
        assert partials_below(out) == left
    run(data, out, "--part", "0/3")
    assert partials_below(out) == (left if where == "plan.json" else [])
    run(data, out, "--merge")
    assert content_of(out) == undisturbed


def test_the_merge_names_what_is_missing_and_the_command_that_writes_it(data, tmp_path, undisturbed):
    out = tmp_path / "out"
    assert "14 of 14 shards are not written" in error_line(run(data, out, "--merge", exit_code=1))
    assert not out.exists()
    for number in (0, 2):
        run(data, out, "--part", f"{number}/3")
    (out / parts_of(undisturbed, 0)[0]).write_bytes(b"half a cop")
    before = content_of(out)
    line = error_line(run(data, out, "--merge", exit_code=1))
    missing = sorted(name[:-4] for name in [parts_of(undisturbed, 0)[0], *parts_of(undisturbed, 1)])
    assert f"6 of 14 shards are not written: {', '.join(missing)}; write them with `" in line
    assert content_of(out) == before
    told = shlex.split(line.split("`")[1])
    assert told[:2] == ["attrtrain", "shard"] and main_here(told[1:]).returncode == 0
    assert content_of(out) == undisturbed
    (out / f"{missing[0]}.tar").unlink()
    assert f"1 of 14 shards is not written: {missing[0]}; " in error_line(run(data, out, "--merge", exit_code=1))


def test_finished_shards_and_a_valid_manifest_are_kept(data, tmp_path, undisturbed):
    out = tmp_path / "out"
    shutil.copytree(data / "undisturbed", out)
    before = identities_of(out)
    for number in range(PARTS):
        run(data, out, "--part", f"{number}/3")
    assert identities_of(out) == before and content_of(out) == undisturbed


def test_a_manifest_does_not_outlive_a_shard_that_is_written_again(data, tmp_path, undisturbed):
    out = tmp_path / "out"
    shutil.copytree(data / "undisturbed", out)
    (out / parts_of(undisturbed, 1)[0]).unlink()
    run(data, out, "--part", "0/3")
    assert (out / "manifest.json").exists()  # not this part's shard
    run(data, out, "--part", "1/3")
    assert not (out / "manifest.json").exists()
    run(data, out, "--merge")
    assert content_of(out) == undisturbed


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_shard_discarded_while_the_manifest_is_written_leaves_no_manifest(
    data, tmp_path, undisturbed, monkeypatch, when
):
    """The two orders in which `discard`, on one machine, and the last write of a merge, on another, can meet."""
    out = tmp_path / "out"
    shutil.copytree(data / "undisturbed", out)
    record = write.record_path(out, parts_of(undisturbed, 1)[0][:-4])
    write_contract = finish.write_contract

    def meet(content, path):
        if path.name != "manifest.json":
            return write_contract(content, path)
        if when == "before":  # discard has run whole
            record.unlink()
            path.unlink()
        write_contract(content, path)
        if when == "after":  # discard has taken the record away, and will take the manifest
            record.unlink()
        return None

    monkeypatch.setattr(finish, "write_contract", meet)
    assert "is being written again" in error_line(run(data, out, "--merge", exit_code=1))
    assert not (out / "manifest.json").exists()


def test_parts_of_two_plans_at_once_do_not_mix(tmp_path):
    """The first to create the plan wins, whoever was first to look."""
    create_once(tmp_path / "plan.json", b"first")
    create_once(tmp_path / "plan.json", b"second")
    assert (tmp_path / "plan.json").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_file_is_created_once_without_hard_links_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    create_once(tmp_path / "plan.json", b"first")
    create_once(tmp_path / "plan.json", b"second")
    assert (tmp_path / "plan.json").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_another_plan_is_refused_by_parts_too(data, tmp_path):
    run(data, tmp_path / "out", "--part", "0/3")
    before = content_of(tmp_path / "out")
    done = run(data, tmp_path / "out", "--part", "1/3", "--store-px", "64", exit_code=1)
    assert "store_px: 256 → 64" in error_line(done)
    assert content_of(tmp_path / "out") == before


def test_more_parts_than_shards(data, tmp_path):
    assert run(data, tmp_path / "out", "--part", "19/20").stdout == "part 19/20: 0 of 14 shards, 0 crops\n"


def test_how_much_may_be_left_out_is_judged_of_the_whole_by_the_merge(data, tmp_path):
    shutil.copytree(data / "images", tmp_path / "images")
    shutil.copy(data / "labels.csv", tmp_path)
    (tmp_path / "images" / "0.jpg").unlink()
    output = "".join(
        run(tmp_path, tmp_path / "out", "--workers", "1", "--part", f"{number}/3").stdout for number in range(PARTS)
    )
    assert "8 image missing" in output  # 8 of some 107, more than 5 %
    run(tmp_path, tmp_path / "out", "--merge")  # 8 of all 320: 2.5 %
    done = run(tmp_path, tmp_path / "out", "--merge", "--max-failure-rate", "0.02", exit_code=1)
    assert "8 of 320 objects (2.5%) were left out" in done.stderr


def test_a_part_without_one_crop_is_an_error(data, tmp_path):
    (tmp_path / "images").mkdir()
    shutil.copy(data / "labels.csv", tmp_path)
    done = run(tmp_path, tmp_path / "out", "--workers", "1", "--part", "0/3", exit_code=1)
    assert "not one crop was written" in error_line(done)


def test_a_merge_with_other_settings_than_the_parts_is_refused(data, tmp_path, undisturbed):
    for number in range(PARTS):
        run(data, tmp_path / "out", "--part", f"{number}/3")
    before = content_of(tmp_path / "out")
    done = run(data, tmp_path / "out", "--merge", "--quality", "80", exit_code=1)
    assert "quality: 90 → 80" in error_line(done) and "give the labels and settings" in error_line(done)
    fewer = tmp_path / "fewer.csv"
    lines = (data / "labels.csv").read_text().splitlines()
    fewer.write_text("\n".join(line for line in lines if ",val," not in line) + "\n")
    done = main_here([*command(data, tmp_path / "out", "--merge", "--labels", str(fewer))[len(ATTRTRAIN) :]])
    assert done.returncode == 1 and "objects: 320 → 240" in done.stderr
    assert content_of(tmp_path / "out") == before
    run(data, tmp_path / "out", "--merge")
    assert content_of(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("part", ["3/3", "-1/3", "1", "1/0", "a/b", "1/3/4"])
def test_a_part_that_cannot_be_is_a_usage_error(data, tmp_path, part):
    done = main_here([*command(data, tmp_path / "out")[len(ATTRTRAIN) :], f"--part={part}"])
    assert done.returncode == 2 and "give I/N with I from 0 to N-1" in done.stderr
    assert not (tmp_path / "out").exists()

"""Shards written by executors of other makers, Dask's among them: the same bytes, and one line when they fail."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import LocalCluster
from test_shard import content_of, data, error_line, partials_below, run, undisturbed, wait_until

from attrtrain.annotations import read_labels
from attrtrain.errors import ConfigError, ShardError
from attrtrain.shards import finish, on_dask, write
from attrtrain.shards.execute import write_with
from attrtrain.shards.manifest import CropSettings
from attrtrain.shards.plan import make_plan

__all__ = ["data", "undisturbed"]  # fixtures
CROP = CropSettings()


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of one thread, as `dask scheduler` and two `dask worker` give."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def jobs(data, tmp_path):
    """The jobs of the whole plan, in a folder that is ready for them, and what `finish` needs."""
    table, _ = read_labels([data / "labels.csv"], [])
    plan = make_plan(table, CROP, 24)
    write.prepare(tmp_path / "out", plan)
    return write.pending_jobs(tmp_path / "out", plan.shards, table, [data / "images"], CROP), plan, table


def test_threads_give_the_same_bytes(jobs, tmp_path, undisturbed):
    todo, plan, table = jobs
    written = []
    with ThreadPoolExecutor(4) as executor:
        write_with(executor, todo, on_shard=lambda job: written.append(job.name))
    assert sorted(written) == [shard.name for shard in plan.shards]
    finish.finish(tmp_path / "out", plan, table, CROP, "split: the label file's own")
    assert content_of(tmp_path / "out") == undisturbed


def test_the_first_failure_ends_the_wait(jobs):
    def fail(job):
        raise ShardError(f"no space for {job.name}")

    with ThreadPoolExecutor(1) as executor, pytest.raises(ShardError, match="no space for train-000000"):
        write_with(executor, jobs[0], task=fail)


def test_dask_gives_the_same_bytes(data, tmp_path, undisturbed, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)  # workers were started elsewhere
    done = run(data, Path("out"), "--dask", cluster.scheduler_address)
    assert "320/320" in done.stderr
    assert content_of(tmp_path / "out") == undisturbed


def test_dask_writes_a_part_too(data, tmp_path, undisturbed, cluster):
    for part in ("0/2", "1/2"):
        run(data, tmp_path / "out", "--dask", cluster.scheduler_address, "--part", part)
    run(data, tmp_path / "out", "--merge")
    assert content_of(tmp_path / "out") == undisturbed


def test_a_worker_killed_within_a_shard_is_made_up_for(data, tmp_path, undisturbed, cluster):
    out = tmp_path / "out"
    killed = []

    def kill_one_that_writes():
        wait_until(lambda: list(out.glob(".*.tar.*")))
        worker = next(iter(cluster.workers.values()))
        killed.append(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_one_that_writes)
    thread.start()
    run(data, out, "--dask", cluster.scheduler_address, "--store-px", "256")
    thread.join()
    assert killed
    assert content_of(out) == undisturbed and not partials_below(out)


def test_workers_that_keep_dying_are_one_line_and_running_again_completes(
    data, tmp_path, undisturbed, cluster, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(
            on_dask,
            "write_with",
            lambda executor, jobs, on_shard, on_idle: write_with(
                executor, jobs[:3], on_shard, on_idle, task=lambda job: os._exit(1)
            ),
        )
        line = error_line(run(data, out, "--dask", cluster.scheduler_address, exit_code=1))
    assert "workers keep dying" in line and "run the same command again" in line
    run(data, out)
    assert content_of(out) == undisturbed


def test_a_scheduler_that_goes_away_is_one_line(data, tmp_path):
    code = (
        "import sys\n"
        "from distributed import LocalCluster\n"
        "cluster = LocalCluster(n_workers=1, processes=False, protocol='tcp://', dashboard_address=':0')\n"
        "print(cluster.scheduler_address, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        address = process.stdout.readline().strip()

        def kill_when_it_writes():
            wait_until(lambda: any((tmp_path / "out").glob("*.tar")))
            process.kill()

        thread = threading.Thread(target=kill_when_it_writes)
        thread.start()
        done = run(data, tmp_path / "out", "--dask", address, "--shard-objects", "1", exit_code=1)
        thread.join()
    assert f"--dask {address}: the scheduler has gone; finished shards are kept" in error_line(done)


def test_a_cluster_without_workers_is_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setattr(on_dask, "_WORKER_SECONDS", 0.1)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty:
        line = error_line(run(data, tmp_path / "out", "--dask", empty.scheduler_address, exit_code=1))
    assert "it has had no worker" in line and "dask worker" in line


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_no_scheduler_there_is_one_line(data, tmp_path, monkeypatch, address):
    monkeypatch.setattr(on_dask, "_CONNECT_SECONDS", 0.5)
    line = error_line(run(data, tmp_path / "out", "--dask", address, exit_code=1))
    assert f"--dask {address}: no scheduler answers there" in line


def test_without_dask_it_says_what_to_install(jobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'attrtrain\[dask\]'"):
        on_dask.write_on_dask(jobs[0], "tcp://127.0.0.1:9")


@pytest.mark.parametrize("gone", ["images", "out"])
def test_a_worker_that_does_not_see_a_folder_says_which(data, tmp_path, gone):
    """Else every photograph would count as missing."""
    table, _ = read_labels([data / "labels.csv"], [])
    folders = {"images": data / "images", "out": tmp_path} | {gone: tmp_path / "not mounted here"}
    job = write.pending_jobs(folders["out"], make_plan(table, CROP, 24).shards, table, [folders["images"]], CROP)[0]
    with pytest.raises(ShardError, match=f"not mounted here: no such folder on {os.uname().nodename}"):
        write.write_shard(job)

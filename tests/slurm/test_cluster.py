"""The batch scripts that users submit, on a real SLURM cluster of two nodes."""

import filecmp
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import ROOT, Cluster, read

from tools.soak_resume import metrics

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "slurm/train_multinode.sbatch")
# About 8 steps an epoch over the toy COCO.
TRAINING = (
    "demo", "--data.image_px=32", "--model.backbone=resnet18", "--model.weights=none", "--train.global_batch=16",
    "--train.epochs=2", "--track.every_steps=1", "--train.precision=no",
)  # fmt: skip


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def assert_same_run(run: Path, other: Path) -> None:
    """Both have ended with the same weights, bit for bit, and have logged the same numbers."""
    for name in ("bundle/weights.safetensors", f"checkpoints/{latest(other)}/model.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert metrics(run) == metrics(other)


def latest(run: Path) -> str:
    return (run / "checkpoints" / "latest").read_text().strip()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two nodes that nothing has happened to, and its log beside it."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    log = run.with_suffix(".log")
    job = cluster.submit(*TWO_NODES, *TRAINING, "--data.shards", toy_shards, "--run.dir", run, log=log)
    assert cluster.wait(job, log)["JobState"] == "COMPLETED", read(log)
    return run


@pytest.fixture
def frozen(cluster: Cluster, toy_shards: Path, tmp_path: Path) -> Callable[[Path], str]:
    """Submits the same run into a folder, and returns its job as it stands still in the middle of it."""

    def submit(run: Path) -> str:
        log = run.with_suffix(".log")
        job = cluster.submit(*TWO_NODES, *TRAINING, "--data.shards", toy_shards, "--run.dir", run, log=log)
        cluster.until(lambda: read(run / "metrics.jsonl").count('"train"') >= 3, log)
        cluster.run("scancel", "--signal=STOP", f"{job}.0")  # its tasks
        return job

    return submit


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_script_is_accepted_as_it_is(cluster: Cluster, script: Path) -> None:
    done = cluster.run("sbatch", "--test-only", script)
    assert re.fullmatch(r"sbatch: Job \d+ to start at .* in partition batch", done.stderr.strip()), done.stderr


def test_an_array_and_its_merge_write_the_bytes_of_one_local_run(
    cluster: Cluster, toy_coco: Path, toy_shards: Path, tmp_path: Path
) -> None:
    arguments = (
        "--labels", toy_coco / "cocottributes.pkl",
        "--instances", *sorted((toy_coco / "annotations").glob("instances_*.json")),
        "--images", toy_coco / "train2017", toy_coco / "val2017",
        "--workers", "1", "--shard-objects", "25", "--out", tmp_path / "shards",
    )  # fmt: skip
    environment = {"PARTS": "3", "ATTRTRAIN_HOME": str(ROOT)}
    done = cluster.run(ROOT / "slurm" / "submit_sharding.sh", *arguments, cwd=tmp_path, env=environment)
    merge = done.stdout.strip()
    log = tmp_path / f"merge-{merge}.log"
    job = cluster.wait(merge, log)
    parts = sorted(tmp_path.glob("shard-*.log"))
    assert job["JobState"] == "COMPLETED", read(log) + "".join(map(read, parts))
    assert len(parts) == 3
    assert files(tmp_path / "shards") == files(toy_shards)
    _, differing, unreadable = filecmp.cmpfiles(toy_shards, tmp_path / "shards", files(toy_shards), shallow=False)
    assert differing == unreadable == []


def test_no_merge_after_a_part_that_failed(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.run(
        ROOT / "slurm" / "submit_sharding.sh", "--labels", "none.csv", "--images", tmp_path, "--out", tmp_path / "out",
        cwd=tmp_path, env={"PARTS": "2", "ATTRTRAIN_HOME": str(ROOT)},
    )  # fmt: skip
    merge = done.stdout.strip()
    job = cluster.wait(merge, tmp_path / f"merge-{merge}.log", 60)
    assert job["JobState"] == "CANCELLED" and not (tmp_path / "out").exists()


def test_two_nodes_train_one_model(undisturbed: Path) -> None:
    result = json.loads((undisturbed / "result.json").read_text())
    assert result["val"]["objects"] > 0
    log = read(undisturbed.with_suffix(".log"))
    assert "2 x cpu" in log and "on n[1-2], restart 0" in log and log.count("epoch 2/2 ") == 1


def test_a_preempted_run_comes_back_and_ends_with_the_same_weights(
    cluster: Cluster, undisturbed: Path, frozen: Callable[[Path], str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    log = run.with_suffix(".log")
    job = frozen(run)
    # SLURM wakes what it preempts: CONT, then TERM.
    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=true", cwd=tmp_path
    ).stdout.strip()
    cluster.wait_for_requeue(job, log)
    assert not (run / "result.json").exists()
    assert cluster.wait(urgent, log)["JobState"] == "COMPLETED"
    ended = cluster.wait(job, log)
    assert ended["JobState"] == "COMPLETED" and ended["Restarts"] == "1", read(log)
    assert "stopped with exit code 85; back into the queue" in read(log) and "restart 1 of" in read(log)
    assert_same_run(run, undisturbed)


def test_a_run_that_reaches_its_time_limit_comes_back_and_ends_with_the_same_weights(
    cluster: Cluster, undisturbed: Path, frozen: Callable[[Path], str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    log = run.with_suffix(".log")
    job = frozen(run)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=2")  # the warning comes two minutes before: now
    cluster.until(lambda: "told to stop" in read(log), log)  # SLURM looks at time limits twice a minute
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    cluster.run("scancel", "--signal=CONT", f"{job}.0")
    ended = cluster.wait(job, log)
    assert ended["JobState"] == "COMPLETED" and ended["Restarts"] == "1", read(log)
    assert "stopped with exit code 85; back into the queue" in read(log)
    assert_same_run(run, undisturbed)


def test_a_run_that_loses_a_node_comes_back_when_there_is_a_node_for_it(
    cluster: Cluster, undisturbed: Path, frozen: Callable[[Path], str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    log = run.with_suffix(".log")
    job = frozen(run)
    cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    try:
        cluster.wait_for_requeue(job, log)
    finally:
        cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME")
    ended = cluster.wait(job, log)
    assert ended["JobState"] == "COMPLETED" and ended["Restarts"] == "1", read(log)
    assert_same_run(run, undisturbed)


def test_a_cancelled_run_does_not_come_back(cluster: Cluster, frozen: Callable[[Path], str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = frozen(run)
    cluster.run("scancel", job)
    ended = cluster.wait(job, run.with_suffix(".log"))
    cluster.until(lambda: "with exit code 85; " in read(run.with_suffix(".log")), run.with_suffix(".log"))
    assert "with exit code 85; SLURM decides" in read(run.with_suffix(".log"))
    assert ended["JobState"] == "CANCELLED" and ended["Restarts"] == "0"
    assert int(latest(run).removeprefix("step-")) >= 3  # what it had learnt is kept


def test_a_run_gives_up_after_so_many_restarts(cluster: Cluster, toy_shards: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = cluster.submit(
        *TWO_NODES, *TRAINING, "--data.shards", toy_shards, "--run.dir", tmp_path / "run",
        "--train.epochs", "100",  # srun may lose the first telling, and the second comes after ten seconds
        log=log, env={"ATTRTRAIN_MAX_RESTARTS": "0"},
    )  # fmt: skip
    cluster.until(lambda: cluster.job(job)["JobState"] == "RUNNING" and "restart 0 of at most 0" in read(log), log)
    cluster.run("scancel", "--batch", "--signal=USR1", job)
    ended = cluster.wait(job, log)
    assert ended["JobState"] == "FAILED" and ended["Restarts"] == "0", read(log)
    assert "not requeued" in read(log)


@pytest.fixture
def echo(cluster: Cluster, tmp_path: Path) -> Callable[..., str]:
    """Submits a script whose python tells what it was started with; returns the job's log."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    told = (
        "rank=$RANK/$WORLD_SIZE local=$LOCAL_RANK/$LOCAL_WORLD_SIZE gpus=$CUDA_VISIBLE_DEVICES cpu=$ACCELERATE_USE_CPU"
    )
    python.write_text(f'#!/bin/sh\necho "{told} threads=$OMP_NUM_THREADS on=$(hostname) args=$*"\n')
    python.chmod(0o755)
    (python.parent / "attrtrain").symlink_to(Path(sys.prefix) / "bin" / "attrtrain")

    def submit(*arguments: str, **env: str) -> str:
        log = tmp_path / "log"
        environment = {"ATTRTRAIN_VENV": str(tmp_path / "venv"), "OMP_NUM_THREADS": ""} | env
        job = cluster.run("sbatch", "--parsable", f"--output={log}", *arguments, env=environment).stdout.strip()
        assert cluster.wait(job, log)["JobState"] == "COMPLETED", read(log)
        return read(log)

    return submit


def test_sharding_takes_the_cores_of_its_job_also_where_it_is_not_bound_to_them(cluster: Cluster) -> None:
    command = Path(sys.prefix) / "bin" / "attrtrain"
    shown = cluster.run("srun", "--ntasks=1", "--cpus-per-task=1", command, "shard", "--help").stdout
    assert "--workers N processes; any number gives the same bytes (default: 1)" in " ".join(shown.split())


@pytest.mark.parametrize("asked", ["--gpus-per-node=2", "--gres=gpu:2"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_there_is_one_process_a_gpu_and_each_sees_all_of_its_node(
    echo: Callable[..., str], nodes: int, asked: str
) -> None:
    script = f"slurm/train{'_multinode' if nodes > 1 else ''}.sbatch"
    log = echo(f"--nodes={nodes}", asked, "--cpus-per-gpu=3", script, "demo", "--run.dir=x")
    lines = sorted(line for line in log.splitlines() if line.startswith("rank="))
    assert lines == [
        f"rank={2 * node + local}/{2 * nodes} local={local}/2 gpus=0,1 cpu= threads=3 on=n{node + 1} "
        "args=-m attrtrain.train demo --run.dir=x"
        for node in range(nodes)
        for local in range(2)
    ]


def test_a_job_without_gpus_trains_on_its_cpus_into_a_folder_of_its_own(echo: Callable[..., str]) -> None:
    log = echo("--gpus-per-node=0", "--mincpus=4", "--job-name=try", "slurm/train.sbatch", "demo", "--train.epochs=1")
    assert re.search(
        r"cpu=true threads=4 on=n\d args=-m attrtrain.train demo --train.epochs=1 --run.dir runs/try-\d+$", log, re.M
    )


def test_a_job_that_was_submitted_from_within_another_one_has_its_own_tasks_and_number(
    echo: Callable[..., str],
) -> None:
    log = echo(
        "--gpus-per-node=0", "--mincpus=4", "--mem=1000", "slurm/train.sbatch", "demo", "--run.dir=x",
        SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3", SLURM_NTASKS="2", SLURM_RESTART_COUNT="9", SLURM_MEM_PER_CPU="100",
    )  # fmt: skip
    assert "cpu=true threads=4" in log and log.count("args=-m attrtrain.train") == 1
    assert "restart 0 of at most" in log and "job 7_3" not in log


@pytest.mark.parametrize(
    ("words", "text", "added"),
    [
        ("{}", "run:\n  seed: 1\n  # mine\n  dir: runs/mine\ntrain:\n  epochs: 1\n", ""),
        ("{}", "run: {dir: runs/mine}\n", ""),
        ("{}", "run:\n  seed: 1\ndata:\n  cache_dir: /x\n", r" --run.dir runs/own-\d+"),
        ("demo --config {}", "run: {dir: runs/mine}\n", ""),
        ("demo --config={}", "run: {dir: runs/mine}\n", ""),
        ("demo --run.seed 3 --config {}", "train: {epochs: 1}\n", r" --run.dir runs/own-\d+"),
    ],
)
def test_a_folder_that_a_yaml_file_names_is_the_runs(
    echo: Callable[..., str], tmp_path: Path, words: str, text: str, added: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    given = words.format(file)
    log = echo("--gpus-per-node=0", "--job-name=own", "slurm/train.sbatch", *given.split())
    assert re.search(rf"args=-m attrtrain.train {re.escape(given)}{added}$", log, re.M), log


def test_shards_are_copied_to_each_nodes_disk_and_read_there(
    echo: Callable[..., str], toy_shards: Path, tmp_path: Path
) -> None:
    script = ("--nodes=2", "slurm/train_multinode.sbatch", "demo")
    log = echo(*script, "--data.shards", str(toy_shards), "--run.dir=x", ATTRTRAIN_LOCAL_DISK=f"{tmp_path}/disk")
    (copy,) = [path for path in (tmp_path / "disk").glob("attrtrain-*/*") if path.is_dir()]
    assert files(copy) == files(toy_shards)
    assert log.count(f": copied {toy_shards} to ") == 1  # here both nodes have one disk
    told = f"args=-m attrtrain.train demo --data.shards {toy_shards} --run.dir=x --data.shards {copy}\n"
    assert log.count(told) == 2  # the later flag counts


@pytest.mark.parametrize("trouble", ["no room", "a damaged shard"])
def test_shards_that_cannot_be_copied_whole_are_read_where_they_are(
    echo: Callable[..., str], toy_shards: Path, tmp_path: Path, trouble: str
) -> None:
    shards, disk = tmp_path / "shards", tmp_path / "disk"
    shutil.copytree(toy_shards, shards)
    if trouble == "no room":
        disk.write_text("no folder: as good as full")
    else:
        tar = next(shards.rglob("*.tar"))
        tar.write_bytes(tar.read_bytes()[:1000] + b"x" + tar.read_bytes()[1001:])
    log = echo(
        "slurm/train.sbatch", "demo", "--data.shards", str(shards), "--run.dir=x", ATTRTRAIN_LOCAL_DISK=str(disk)
    )
    assert "warning: shards were not copied" in log
    assert f"args=-m attrtrain.train demo --data.shards {shards} --run.dir=x\n" in log
    assert disk.is_file() or not [path for path in disk.glob("attrtrain-*/*") if path.is_dir()]


def test_evaluate_gives_metrics(cluster: Cluster, undisturbed: Path, toy_shards: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = cluster.submit(
        "slurm/evaluate.sbatch", "--model", undisturbed, "--shards", toy_shards, "--out", tmp_path / "out", log=log
    )
    assert cluster.wait(job, log)["JobState"] == "COMPLETED", read(log)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["overall"]["map"] == json.loads((undisturbed / "result.json").read_text())["val"]["map"]


def test_a_sweep_trains_once_for_each_line(cluster: Cluster, toy_shards: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.txt"
    # The second line ends as Windows ends lines.
    grid.write_bytes(b"--optim.lr 1e-3 --model.head linear\n--optim.lr 2e-3 --model.head mlp\r\n")
    log = tmp_path / "log"
    flags = (*TRAINING, "--data.shards", toy_shards, "--train.epochs=1")
    environment = {"ATTRTRAIN_LOCAL_DISK": str(tmp_path / "disk")}
    job = cluster.submit(
        "--array=1-2", "slurm/sweep.sbatch", grid, tmp_path / "sweep", *flags, log=f"{log}-%a", env=environment
    )
    cluster.wait(job, log)
    for number, rate, head in (("1", 0.001, "linear"), ("2", 0.002, "mlp")):
        run = tmp_path / "sweep" / number
        assert (run / "result.json").exists(), read(Path(f"{log}-{number}"))
        config = (run / "config.yaml").read_text()
        assert f"lr: {rate}" in config and f"head: {head}" in config
        assert f"- {tmp_path}/disk/" in config and str(toy_shards) not in config  # read from the node's own disk


def test_an_element_of_an_array_that_is_stopped_goes_back_alone(cluster: Cluster, tmp_path: Path) -> None:
    """The element with the array's own number is the one by whose id SLURM takes the whole array."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"""#!/bin/bash
me=$SLURM_ARRAY_TASK_ID
echo "$me $SLURM_JOB_ID" >>{tmp_path}/starts
if [ "$SLURM_JOB_ID" = "$SLURM_ARRAY_JOB_ID" ] && [ "${{SLURM_RESTART_COUNT:-0}}" = 0 ]; then
    until [ -e {tmp_path}/done ] && [ -e {tmp_path}/waits ]; do sleep 0.1; done
    exit 85
fi
if [ "$SLURM_JOB_ID" = "$SLURM_ARRAY_JOB_ID" ]; then touch {tmp_path}/back; exit 0; fi
if mkdir {tmp_path}/first 2>/dev/null; then touch {tmp_path}/done; exit 0; fi
touch {tmp_path}/waits
until [ -e {tmp_path}/back ]; do sleep 0.1; done
""")
    python.chmod(0o755)
    (tmp_path / "grid.txt").write_text("--x 1\n--x 2\n--x 3\n")
    log = tmp_path / "log"
    job = cluster.submit(
        "--array=1-3", "slurm/sweep.sbatch", tmp_path / "grid.txt", tmp_path / "sweep",
        log=Path(f"{log}-%a"), env={"ATTRTRAIN_VENV": str(tmp_path / "venv")},
    )  # fmt: skip
    cluster.wait(job, log)
    lines = cluster.run("scontrol", "show", "job", "--oneliner", job).stdout.splitlines()
    restarts = sorted(re.search(r"JobState=(\w+) .* Restarts=(\d)", line).groups() for line in lines)
    assert restarts == [("COMPLETED", "0"), ("COMPLETED", "0"), ("COMPLETED", "1")], read(tmp_path / "starts")
    assert read(tmp_path / "starts").count("\n") == 4


def test_a_sweep_can_be_agents_of_wandb(cluster: Cluster, tmp_path: Path) -> None:
    bin_folder = tmp_path / "venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "wandb").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/called\n')
    (bin_folder / "wandb").chmod(0o755)
    log = tmp_path / "log"
    job = cluster.submit(
        "--array=1-2", "slurm/sweep.sbatch", log=log,
        env={"WANDB_SWEEP": "team/project/abc", "ATTRTRAIN_VENV": str(tmp_path / "venv")},
    )  # fmt: skip
    cluster.wait(job, log)
    assert (tmp_path / "called").read_text() == "agent --forward-signals --count 1 team/project/abc\n" * 2

"""The batch scripts' own part in a warning and in what they refuse, without SLURM."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from attrtrain.config.load import load_config

ROOT = Path(__file__).parents[2]
# A step that loses the first warning it gets, as srun does before its tasks run, and leaves at the second as attrtrain
# does.
STEP = "trap 'told=$((told + 1)); ((told < 2)) || exit 85' USR1; touch running; while :; do sleep 0.1; done"
SCRIPT = f"""
scontrol() {{ echo JobState=CANCELLED; }}
sleep() {{ command sleep 0.3; }}
source "{ROOT}/slurm/common.sh"
run_or_requeue bash -c "$STEP"
"""


# SLURM's controller answers each question at the third time of asking.
BUSY = f"""
scontrol() {{
    echo "$1" >>asked
    (($(grep -c "^$1" asked) > 2)) || {{ echo "scontrol: Unable to contact slurm controller" >&2; return 1; }}
    if [ "$1" = show ]; then echo "JobId=1 JobState=RUNNING Reason=None"; fi
}}
sleep() {{ command sleep 0.01; }}
source "{ROOT}/slurm/common.sh"
: >asked
run_or_requeue bash -c "exit 85"
"""
WITHIN = f"""
scontrol() {{
    if [ "$1" = requeue ]; then echo "requeue $2"; return; fi
    echo "JobId=1 JobName=train JobState=RUNNING Restarts=1 NumTasks=2 MinMemoryNode=1000M Reason=None"
}}
srun() {{ echo "$1 mem=${{SLURM_MEM_PER_CPU:-}},${{SLURM_MEM_PER_NODE:-}}"; return 85; }}
sleep() {{ command sleep 0.01; }}
source "{ROOT}/slurm/common.sh"
train demo --run.dir=x
"""
STAGING = f"""
srun() {{ echo "srun $*"; }}
source "{ROOT}/slurm/common.sh"
train conf.yaml --run.dir=x "$@"
"""


def staged(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a job whose arguments end with these words, and whose steps do nothing, in a folder whose `disk` is the
    node's own.
    """
    environment = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_ON_NODE": "2",
        "ATTRTRAIN_LOCAL_DISK": "disk",
    }
    command = ["bash", "-c", STAGING, "job", *words]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize("words", [(), ("--data.shards+", "a")])  # which adds to those of the YAML file
def test_shards_that_no_flag_names_are_read_where_they_are(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").touch()
    ran = staged(tmp_path, *words)
    assert ran.stdout.endswith(f" python -m attrtrain.train {' '.join(('conf.yaml', '--run.dir=x', *words))}\n"), ran
    assert ran.returncode == 0 and "not copied to disk: no --data.shards among the arguments" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--data.shards", "a", "--data.shards", "b"),
        ("--data.shards=a", "--train.epochs", "2", "--data.shards=b"),
        ("--data.shards", "a", "--data.shards+", "b"),
        ("--data.shards", "a", "--data.shards+=b", "--data.shards+", "c"),
        ("--data.shards+", "a", "--data.shards", "b", "c"),
    ],
)
def test_the_shards_that_are_copied_are_those_that_would_be_trained_on(tmp_path: Path, words: tuple[str, ...]) -> None:
    of_copy = {}
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
        of_copy[f"disk/attrtrain-{os.getuid()}/{hashlib.sha256(name.encode()).hexdigest()[:16]}"] = name
    ran = staged(tmp_path, *words)
    trained = ran.stdout.splitlines()[-1].partition("--run.dir=x ")[2].split()
    assert trained[: len(words)] == list(words) and trained[len(words)] == "--data.shards", ran
    named = load_config(["demo", *words]).data.shards
    assert [of_copy[copy] for copy in load_config(["demo", *trained]).data.shards] == named
    assert ran.stdout.splitlines()[0].endswith(f"stage.sh disk {' '.join(named)}")


def test_a_warning_that_a_step_has_lost_is_given_again(tmp_path: Path) -> None:
    environment = {**os.environ, "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_SUBMIT_DIR": str(ROOT)}
    script = subprocess.Popen(
        ["bash", "-c", SCRIPT], cwd=tmp_path, env={**environment, "STEP": STEP}, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (tmp_path / "running").exists():
            assert script.poll() is None
            time.sleep(0.02)
        script.send_signal(signal.SIGUSR1)
        _, told = script.communicate(timeout=30)
    finally:
        script.kill()
    assert script.returncode == 85 and "stopped with exit code 85; SLURM decides" in told


def test_a_job_goes_back_into_the_queue_of_a_controller_that_is_busy(tmp_path: Path) -> None:
    environment = {**os.environ, "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_SUBMIT_DIR": str(ROOT)}
    ran = subprocess.run(["bash", "-c", BUSY], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 85 and "back into the queue" in ran.stderr, ran
    assert (tmp_path / "asked").read_text().split() == ["show"] * 3 + ["requeue"] * 3


def test_what_an_array_or_session_that_a_job_was_submitted_from_has_set_is_not_the_jobs(tmp_path: Path) -> None:
    environment = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_SUBMIT_DIR": str(ROOT)}
    environment |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "8", "SLURM_MEM_PER_NODE": "1000"}
    others = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "9", "SLURM_NTASKS": "4"}
    others |= {"SLURM_MEM_PER_CPU": "100"}
    ran = subprocess.run(
        ["bash", "-c", WITHIN],
        cwd=tmp_path,
        env={**os.environ, **environment, **others},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.splitlines() == ["--ntasks=2 mem=,1000", "requeue 1"], ran
    assert " job 1:  on n1, restart 1 of at most 100" in ran.stderr


@pytest.mark.parametrize(
    ("grid", "element", "told"),
    [
        ("grid.txt", "0", "grid.txt has no line 0; lines count from 1: --array=1-LINES"),
        ("grid.txt", "2", "grid.txt has no line 2; lines count from 1: --array=1-LINES"),
        ("gird.txt", "1", "gird.txt: no such file"),
    ],
)
def test_a_sweep_without_a_line_for_an_element_says_so(tmp_path: Path, grid: str, element: str, told: str) -> None:
    (tmp_path / "grid.txt").write_text("--optim.lr 1e-3\n")
    environment = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_ARRAY_JOB_ID": "1",
        "SLURM_ARRAY_TASK_ID": element,
    }
    ran = subprocess.run(
        ["bash", ROOT / "slurm" / "sweep.sbatch", grid, "runs"],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 2 and ran.stderr.splitlines()[-1].endswith(f"error: {told}"), ran.stderr


def test_parts_whose_merge_is_refused_are_taken_back(tmp_path: Path) -> None:
    """Else they run, nobody says under which id, and who submits all of it again has two arrays in one folder."""
    for name, text in (
        (
            "sbatch",
            "case $* in *--merge*) echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1;; esac; echo 7",
        ),
        ("scancel", 'echo "$*" >>cancelled'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    ran = subprocess.run(
        [ROOT / "slurm" / "submit_sharding.sh", "--out", "shards"],
        cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 1 and ran.stdout == "" and "QOSMaxSubmitJobPerUserLimit" in ran.stderr
    assert (tmp_path / "cancelled").read_text() == "7\n"

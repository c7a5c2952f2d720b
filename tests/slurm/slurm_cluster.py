"""SLURM's commands, for tests, in the namespaces that cluster.sh has made."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "OUT_OF_MEMORY"}


class Cluster:
    """A running cluster; its commands are run in its namespaces."""

    def __init__(self, folder: Path, process: int) -> None:
        self.folder = folder
        self._enter = ["nsenter", "--target", str(process), "--mount", "--net", "--pid"]

    def run(
        self, *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs one of SLURM's commands, in an environment without what this one's SLURM or launcher may have set."""
        own = ("SLURM", "SBATCH", "SRUN", "ATTRTRAIN", "WANDB", "RANK", "WORLD_SIZE", "MASTER_", "LOCAL_", "ACCELERATE")
        base = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        base |= {"ATTRTRAIN_VENV": sys.prefix, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        done = subprocess.run(
            [*self._enter, f"--wd={cwd}", *map(str, command)],
            env=base | dict(env or {}), capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def submit(self, *arguments: str | Path, log: Path, env: Mapping[str, str] | None = None) -> str:
        """Submits a script as users do, without GPUs, and returns the job's id."""
        options = ("--parsable", "--gpus-per-node=0", f"--output={log}")
        return self.run("sbatch", *options, *arguments, env=env).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """A job, or one element of an array, as `scontrol show job` has it."""
        words = self.run("scontrol", "show", "job", "--oneliner", number).stdout.splitlines()[0].split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, log: Path, seconds: float = 240) -> dict[str, str]:
        """Waits until a job, or every element of an array, has ended; returns the last one looked at."""

        def ended() -> bool:
            lines = self.run("scontrol", "show", "job", "--oneliner", number).stdout.splitlines()
            return all(any(f"JobState={state} " in line for state in ENDED) for line in lines)

        self.until(ended, log, seconds)
        return self.job(number)

    def wait_for_requeue(self, number: str, log: Path) -> None:
        """Waits until a job is back in the queue; fails when it has ended instead."""
        self.until(lambda: self.job(number)["Restarts"] == "1" or self.job(number)["JobState"] in ENDED, log)
        assert self.job(number)["Restarts"] == "1", read(log)

    def until(self, holds: Callable[[], bool], log: Path, seconds: float = 180) -> None:
        """Waits until something holds; fails with the job's log when it does not."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds:g} s:\n{self.run('squeue', '--long').stdout}\n{read(log)}")
            time.sleep(0.2)


def read(log: Path) -> str:
    """What a job has written so far."""
    return log.read_text(errors="replace") if log.exists() else ""

"""A real SLURM cluster of two nodes on this machine, in namespaces of its own: see cluster.sh."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, read

PROGRAMS = {
    "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge", "ip": "iproute2",
}  # fmt: skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster; jobs see this machine's files. Where none can be started, tests skip, and fail in CI."""
    if reason := _missing():
        if os.environ.get("CI") or os.environ.get("ATTRTRAIN_REQUIRE_SLURM") == "1":
            pytest.fail(f"no SLURM cluster: {reason}")
        pytest.skip(f"no SLURM cluster: {reason}")
    folder = tmp_path_factory.mktemp("cluster")
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    with (folder / "start.log").open("w") as log:
        process = subprocess.Popen(  # setpriv: a pytest that is killed takes the cluster along
            ["setpriv", "--pdeathsig", "KILL", *namespaces, str(Path(__file__).with_name("cluster.sh")), str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield _ready(folder, process)
    finally:
        process.kill()  # its child is process 1 of the namespaces, and ends with it; with that, everything does
        process.wait()


def _missing() -> str:
    absent = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if os.geteuid() != 0:
        return "needs root, for namespaces"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True
    )
    return f"namespaces: {tried.stderr.strip()}" if tried.returncode else ""


def _ready(folder: Path, process: "subprocess.Popen[bytes]") -> Cluster:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            cluster = Cluster(folder, int(children[0]))
            nodes = cluster.run("sinfo", "--noheader", "--Node", "--partition=batch", "--format=%t", check=False)
            if nodes.stdout.split() == ["idle", "idle"]:
                return cluster
        time.sleep(0.1)
    logs = [folder / "start.log", *sorted((folder / "log").glob("*"))]
    tails = "\n".join(f"{log.name}:\n" + "\n".join(read(log).splitlines()[-10:]) for log in logs)
    pytest.fail(f"the SLURM cluster did not start:\n{tails}")

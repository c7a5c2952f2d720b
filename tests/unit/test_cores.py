"""How many cores a process takes: not more than its job or its container has the time of."""

import os
from pathlib import Path

import pytest
import torch

from attrtrain import cores
from attrtrain.cores import core_count
from attrtrain.launcher import use_own_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has this process on 64 cores, with its control group read from two entries of the folder that is returned."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for variable in ("SLURM_CPUS_ON_NODE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cores, "_GROUP", tmp_path / "group")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "fs")
    return tmp_path


def limit(machine: Path, group: str, limits: dict[str, str]) -> None:
    """Puts the process into a group, where these files say these things."""
    (machine / "group").write_text(f"{group}\n")
    for name, content in limits.items():
        path = machine / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


# As Docker, Kubernetes and systemd lay them out: https://docs.kernel.org/admin-guide/cgroup-v2.html and
# https://docs.kernel.org/scheduler/sched-bwc.html
V1 = {"cpu/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "250000"}


@pytest.mark.parametrize(
    ("group", "limits", "count"),
    [
        ("0::/", {"cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {"cpu.max": "9900000 100000"}, 64),
        ("0::/pod/own", {"pod/own/cpu.max": "800000 100000", "pod/cpu.max": "300000 100000"}, 3),
        ("0::/docker/5f", {"cpu.max": "200000 100000"}, 2),
        ("4:memory:/\n3:cpu,cpuacct:/docker/5f\n0::/", V1, 3),
        ("1:cpu:/", V1 | {"cpu/cpu.cfs_quota_us": "-1"}, 64),
        ("0::/", {}, 64),
    ],
    ids=["docker", "half a core", "no limit", "more than there are", "around it", "another's path", "v1", "v1 none", "none"],
)  # fmt: skip
def test_a_container_has_as_many_as_it_may_use(machine: Path, group: str, limits: dict[str, str], count: int) -> None:
    limit(machine, group, limits)
    assert core_count() == count


def test_a_system_without_control_groups_has_all(machine: Path) -> None:
    assert core_count() == 64


def test_a_job_has_as_many_as_slurm_gave_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert core_count() == 6
    limit(machine, "0::/", {"cpu.max": "400000 100000"})
    assert core_count() == 4


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What torch is told, of 32 threads that it would start by itself."""
    told: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 32)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    for variable in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    return told


def test_torch_computes_on_the_cores_of_its_container(
    machine: Path, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_own_cores()
    limit(machine, "0::/", {"cpu.max": "400000 100000"})
    use_own_cores()
    assert threads == [32, 4]
    monkeypatch.setenv("OMP_NUM_THREADS", "16")  # somebody's choice
    use_own_cores()
    assert threads == [32, 4]


def test_a_launched_process_computes_on_its_share(
    machine: Path, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(variable, value)
    limit(machine, "0::/", {"cpu.max": "800000 100000"})
    use_own_cores()
    assert threads == [4]

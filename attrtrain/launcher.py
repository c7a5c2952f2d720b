"""What srun, torchrun or `accelerate launch` have told this process: which of how many it is, and its share of a
machine.
"""

import os
import subprocess

import torch

from attrtrain.allocator import keep_freed_memory
from attrtrain.cores import core_count
from attrtrain.device import device_type
from attrtrain.errors import ConfigError


def adopt_slurm_step() -> None:
    """Tells torch what srun has told this task, where no other launcher has: ranks, and where rank 0 listens.

    Without it, `srun -n 4` would be four runs of one process each in one folder.

    Raises:
        ConfigError: the step's nodes cannot be named because `scontrol` is not there, or a node's tasks do not see as
            many GPUs as they are.
    """
    environment = os.environ
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1 or "WORLD_SIZE" in environment:
        return
    try:
        command = ["scontrol", "show", "hostnames", environment["SLURM_STEP_NODELIST"]]
        first_host = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError(
            f"srun started {tasks} tasks, but the node of the first is unknown ({error}); set MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE"
        ) from None
    environment.setdefault("MASTER_ADDR", first_host)
    step = 31 * int(environment.get("SLURM_STEP_ID", "0"))  # several steps of a job may train at once
    environment.setdefault("MASTER_PORT", str(20000 + (int(environment["SLURM_JOB_ID"]) + step) % 10000))
    environment["RANK"], environment["LOCAL_RANK"] = environment["SLURM_PROCID"], environment["SLURM_LOCALID"]
    environment["WORLD_SIZE"] = str(tasks)
    here = _tasks_on_node(environment["SLURM_STEP_TASKS_PER_NODE"], int(environment["SLURM_NODEID"]))
    environment["LOCAL_WORLD_SIZE"] = str(here)
    if device_type() == "cuda" and (seen := torch.cuda.device_count()) < here:
        raise ConfigError(
            f"srun started {here} tasks on this node, and this one sees {seen} GPU{'s' if seen > 1 else ''}; "
            "ask for GPUs by --gpus-per-node, as many as tasks, not by --gpus-per-task or --gpu-bind, which hide them from each other"
        )


def _tasks_on_node(tasks_per_node: str, node: int) -> int:
    """Reads SLURM's `2(x3),1`, three nodes with two tasks and one with one, at one node."""
    counts: list[int] = []
    for entry in tasks_per_node.split(","):
        tasks, _, repeats = entry.partition("(x")
        counts += [int(tasks)] * int(repeats.rstrip(")") or "1")
    return counts[node]


def process_cores() -> int:
    """Processor cores for each process on this machine.

    srun may bind every task to cores of its own (`--cpus-per-task`), of which no other takes a share.
    """
    environment, usable = os.environ, core_count()
    is_task = environment.get("SLURM_STEP_NUM_TASKS") == environment.get("WORLD_SIZE")  # not a part of one, by torchrun
    own = int(environment.get("SLURM_CPUS_PER_TASK", "1")) if is_task else 1
    return max(min(own, usable), usable // int(environment.get("LOCAL_WORLD_SIZE", "1")))


def prepare_cpu() -> None:
    """Has this process, which computes on the CPU, take its share of the cores and keep the memory that it frees."""
    use_own_cores()
    keep_freed_memory()


def use_own_cores() -> None:
    """Gives a CPU process its share of the cores.

    `accelerate launch` and torchrun set OMP_NUM_THREADS to 1 where it was unset, which leaves all cores but one idle.
    Any other value is somebody's choice. torch by itself takes all cores that it sees, in a container with the time of
    a few too.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    chosen = os.environ.get("OMP_NUM_THREADS")
    if chosen == "1" and launched:
        torch.set_num_threads(process_cores())
    elif chosen is None:
        torch.set_num_threads(min(torch.get_num_threads(), process_cores()))

"""The processor cores that this process may use: under SLURM those of the job, not those of the node."""

import os


def usable_cores() -> list[int]:
    """Their numbers, rising."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))

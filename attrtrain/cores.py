"""How many processor cores this process may use: those of its job or its container, not those of the machine."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_GROUP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cores() -> list[int]:
    """The numbers, rising, of the cores that the system may put this process on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def core_count() -> int:
    """As many as the system may put it on; fewer where SLURM gave its job fewer of this node without binding it to
    them, or where its container has the time of fewer (`docker run --cpus`, a Kubernetes limit), which is stopped for
    the rest of each tenth of a second if more threads use it up.
    """
    bound = len(usable_cores())
    given = int(os.environ.get("SLURM_CPUS_ON_NODE", bound))
    return max(1, min(bound, given, *_limits()))


def _limits() -> Iterator[int]:
    """What its control group, and each that holds it, may use: `cpu.max` in cgroup v2, `cpu.cfs_quota_us` in v1."""
    with suppress(OSError):
        for line in _GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = _GROUPS / "cpu" if controllers else _GROUPS
            group = PurePosixPath(path.lstrip("/"))
            # In a container the path may be the machine's, which is not to be seen from there: then only the top is.
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # no such group, or no limit ("max", -1)
                    quota, period = _quota(top / folder, is_v2=not controllers)
                    if quota > 0:
                        yield math.ceil(quota / period)


def _quota(folder: Path, is_v2: bool) -> tuple[int, int]:
    """Microseconds of processor time in a period, and the period's."""
    if is_v2:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota), int(period)
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())

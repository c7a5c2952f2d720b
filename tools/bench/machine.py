"""What a benchmark ran on."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.bench.contest import ROOT

PACKAGES = (
    *("attrtrain", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "scikit-learn", "accelerate"),
    *("webdataset", "litdata", "mosaicml-streaming", "ffcv", "nvidia-dali-cuda130", "img2dataset"),
    *("lightning", "timm", "torchmetrics", "joblib"),
)


def describe_machine(cores: Sequence[int]) -> dict[str, Any]:
    """Processor, memory, system, load, and the commit that was measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cores_used": list(cores),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()),
        "commit": _commit(),
    }


def installed_versions() -> dict[str, str]:
    """The version of every package that a contender may use; those that are not there are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit, with a + where files differ from it."""
    try:
        git = [
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return git[0] + ("+" if git[1] else "")

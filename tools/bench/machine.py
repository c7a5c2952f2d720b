"""What a benchmark ran on."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.bench.contest import ROOT
from tools.bench.install import environments_apart

PACKAGES = (
    *("attrtrain", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "scikit-learn", "accelerate"),
    *(
        "opencv-python-headless",
        "webdataset",
        "litdata",
        "mosaicml-streaming",
        "ffcv",
        "nvidia-dali-cuda130",
        "img2dataset",
    ),
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
    """The version of every package that a contender may use; those that are not there are left out. A peer with an
    environment of its own stands under its name, and what else is another version there with it: `numpy of
    mosaicml-streaming`.
    """
    found = _versions(sys.path)
    for peer, folder in environments_apart().items():
        own = _versions(map(str, folder.glob("lib/python*/site-packages")))
        others = {name: version for name, version in own.items() if found.get(name) != version}
        found |= {name if name == peer else f"{name} of {peer}": version for name, version in others.items()}
    return found


def _versions(path: Iterable[str]) -> dict[str, str]:
    installed = {
        distribution.name.lower(): distribution.version for distribution in metadata.distributions(path=list(path))
    }
    return {name: installed[name] for name in PACKAGES if name in installed}


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

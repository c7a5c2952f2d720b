"""The fresh process of one turn: binds itself to its cores, calls one function, and leaves the outcome in a file.

echo '{"function": "module:name", "settings": {…}, "cores": [0], "started": …, "result": "out.json"}' | python -m
tools.bench.child
"""

import importlib
import json
import os
import re
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from tools.bench.install import reason_not_installed

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in

started = 0.0
"""`time.monotonic()` when this process was asked for, which is one clock for all processes of a machine."""


def main() -> int:
    """Does one job. An exception is an outcome, {"missing": reason}, and leaves its traceback on stderr."""
    global started
    job = json.load(sys.stdin)
    started = job["started"]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    outcome = _call(job["function"], job["settings"])
    outcome["peak_mb"] = peak_mb()
    result = Path(job["result"])
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(outcome))
    partial.rename(result)
    sys.stdout.flush()
    os._exit(0)  # whatever threads and workers a peer keeps, it is done


def _call(function: str, settings: dict[str, Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        outcome: dict[str, Any] = getattr(importlib.import_module(module), name)(**settings)
    except ModuleNotFoundError as error:
        return {"missing": f"{error}; {reason_not_installed(error.name or '')}"}
    except (Exception, SystemExit) as error:  # noqa: BLE001  a peer may fail in any way, and is named with it
        traceback.print_exc()
        text = " ".join(str(error).split()) or "no message"
        return {"missing": f"{type(error).__name__}: {text[:300]}"}
    return outcome


def peak_mb() -> float:
    """The most memory this process, or one that it started and waited for, has held so far, in megabytes (10^6
    bytes).
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _MAXRSS_BYTES
    return max(_own_peak_bytes(), children) / 1e6


def _own_peak_bytes() -> int:
    """On Linux not ru_maxrss, which a program inherits from the process that started it: the benchmark itself would be
    counted.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES


if __name__ == "__main__":
    sys.modules["tools.bench.child"] = sys.modules["__main__"]  # `started` is to be found under this name
    sys.exit(main())

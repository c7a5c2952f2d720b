"""Contenders take turns, A B C A B C …, each time in a fresh process on the same cores with the same number of
threads.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["limit", "attrtrain", "peer"]
ROOT = Path(__file__).resolve().parents[2]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class BenchError(Exception):
    """A benchmark that cannot be run; one line says why."""


@dataclass(frozen=True)
class Contender:
    """Somebody who does the task.

    Attributes:
        name: in table and JSON.
        role: the limit, attrtrain, or a peer. Only a peer may be missing.
        function: "module:function" to call with `settings` in a fresh process. Returns a dictionary of JSON values,
            `value` among them: what is compared.
        settings: its keyword arguments, JSON values.
        prepare: the same, called once before the first turn; not measured.
        most_turns: of somebody so slow that more of them would cost minutes and tell nothing.
        environment: the folder of the virtual environment it runs in; None for the one that runs this.
    """

    name: str
    role: Role
    function: str
    settings: dict[str, Any]
    prepare: str | None = None
    most_turns: int | None = None
    environment: Path | None = None


@dataclass
class Row:
    """What a contender came to: the `value` of each of its turns, and what else the turns told; or the reason why there
    is none.
    """

    name: str
    role: Role
    values: list[float] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    missing: str | None = None


def take_turns(contenders: Sequence[Contender], repeats: int, cores: Sequence[int], limit_seconds: float) -> list[Row]:
    """Lets each contender run `repeats` times.

    Args:
        contenders: in the order in which they take turns.
        repeats: turns of each.
        cores: the processor cores every process is bound to, and as many threads.
        limit_seconds: a turn that takes longer is ended, and its contender counts as missing.

    Raises:
        BenchError: the limit or attrtrain itself failed.
    """
    rows = [Row(contender.name, contender.role) for contender in contenders]
    for contender, row in zip(contenders, rows, strict=True):
        if contender.prepare is not None:
            _turn(contender, contender.prepare, row, cores, limit_seconds)
    for turn in range(repeats):
        for contender, row in zip(contenders, rows, strict=True):
            if row.missing is None and (contender.most_turns is None or turn < contender.most_turns):
                outcome = _turn(contender, contender.function, row, cores, limit_seconds)
                if row.missing is None:
                    row.values.append(float(outcome.pop("value")))
                    row.details.append(outcome)
                told = row.missing or f"{row.values[-1]:,.6g}"  # what is left if somebody ends all of it
                print(f"turn {turn + 1} of {repeats}, {contender.name}: {told}", file=sys.stderr, flush=True)
    return rows


def _turn(contender: Contender, function: str, row: Row, cores: Sequence[int], limit_seconds: float) -> dict[str, Any]:
    outcome = run_fresh(function, contender.settings, cores, limit_seconds, contender.environment)
    row.missing = outcome.get("missing")
    if row.missing is not None:
        row.values, row.details = [], []
        if contender.role != "peer":
            raise BenchError(f"{contender.name}: {row.missing}")
    return outcome


def run_fresh(
    function: str,
    settings: dict[str, Any],
    cores: Sequence[int],
    limit_seconds: float = 600,
    environment_folder: Path | None = None,
) -> dict[str, Any]:
    """Calls "module:function" in a process of its own, of another virtual environment where one is given. Returns what
    it returned with `peak_mb` added, or {"missing": reason}.
    """
    environment = {**os.environ, **dict.fromkeys(_THREADS, str(len(cores))), "PYTHONWARNINGS": "ignore"}
    # As on most machines; else every start compiles all that is imported.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="attrtrain-bench-") as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log.txt"
        job = {"function": function, "settings": settings, "cores": list(cores), "result": str(result)}
        python = str(environment_folder / "bin" / "python") if environment_folder else sys.executable
        with log.open("w+b") as output:
            process = subprocess.Popen(
                [python, "-m", "tools.bench.child"],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
            )  # fmt: skip
            try:
                process.communicate(json.dumps({**job, "started": time.monotonic()}).encode(), timeout=limit_seconds)
            except subprocess.TimeoutExpired:
                return {"missing": f"took more than {limit_seconds:g} s"}
            finally:
                _end(process)
        if result.exists():
            outcome: dict[str, Any] = json.loads(result.read_text())
            return outcome
        lines = log.read_text(errors="replace").strip().splitlines()
        return {"missing": f"its process ended with {process.returncode}" + (f": {lines[-1]}" if lines else "")}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and whatever it started: workers of a loader outlive a loader that is not closed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()

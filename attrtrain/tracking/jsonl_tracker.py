"""metrics.jsonl, the source of truth."""

import json
import math
from pathlib import Path
from typing import Any, TypeGuard

from attrtrain.errors import AttrtrainError
from attrtrain.files import atomic_write
from attrtrain.tracking.trackers import NullTracker, Values

# No step is as large, and no float of ours; NaN is not below it, and a whole number of 400 digits fits no float.
_MOST = 2.0**63


class JsonlTracker(NullTracker):
    """Appends one JSON object a line to metrics.jsonl: `{"kind", "step", ...}`. Numbers that are not finite become
    null.

    Tables, pictures and the rest are copies of what lies in the run directory anyway, so it takes none.
    """

    def __init__(self, path: Path, step: int, epoch: int) -> None:
        """Opens the file and drops lines past a position: a run that goes on from there will log them again. Of an
        evaluation that says no epoch, the step alone tells where it lies.

        Args:
            step: optimizer steps taken at that position.
            epoch: epochs that are evaluated at that position.
        """
        self._path = path
        lines = read_lines(path)
        self.kept = [line for line in lines if line["step"] <= step and _epoch_of(line) <= epoch]
        self.dropped = len(lines) - len(self.kept)
        with atomic_write(path) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in self.kept)

    def log(self, kind: str, step: int, values: Values) -> None:
        """Appends a line; opened and closed each time, so a killed run loses none.

        Raises:
            AttrtrainError: the disk is full or cannot be written.
        """
        finite = {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({"kind": kind, "step": step, **finite}) + "\n")
        except OSError as error:
            raise AttrtrainError(
                f"{self._path}: {error.strerror}; free space and run the same command again to go on"
            ) from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, each with a "kind" and a numeric "step"; none where there is no file. What is none
    of ours, or what a killed process was writing, is passed over.
    """
    if not path.is_file():
        return []
    return list(filter(None, map(_parsed, path.read_text(encoding="utf-8", errors="replace").splitlines())))


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(line, dict) and isinstance(line.get("kind"), str) and is_number(line.get("step"))
    return line if whole else None


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of such a line is a number, and one that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def _epoch_of(line: dict[str, Any]) -> float:
    """How many epochs must be evaluated for a line to be there: 0 where it is of none, or does not say so."""
    epoch = line.get("epoch")
    return epoch if line["kind"] == "val" and is_number(epoch) else 0

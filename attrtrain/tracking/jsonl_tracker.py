"""metrics.jsonl, the source of truth."""

import json
import math
from pathlib import Path
from typing import Any

from attrtrain.errors import AttrtrainError
from attrtrain.files import atomic_write
from attrtrain.tracking.trackers import NullTracker, Values


class JsonlTracker(NullTracker):
    """Appends one JSON object a line to metrics.jsonl: `{"kind", "step", ...}`. Numbers that are not finite become
    null.

    Tables, pictures and the rest are copies of what lies in the run directory anyway, so it takes none.
    """

    def __init__(self, path: Path, step: int, epoch: int) -> None:
        """Opens the file and drops lines past a position: a run that goes on from there will log them again.

        Args:
            step: optimizer steps taken at that position.
            epoch: epochs that are evaluated at that position.
        """
        self._path = path
        lines = _lines(path)
        self.kept = [
            line for line in lines if line["step"] <= step and (line["kind"] != "val" or line["epoch"] <= epoch)
        ]
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


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):  # the line a killed process was writing
            continue
        if isinstance(line, dict) and {"kind", "step"} <= line.keys():
            lines.append(line)
    return lines

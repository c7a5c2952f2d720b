"""Trackers: one that says what all can do, one that does nothing, one for metrics.jsonl, and several as one."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Values = Mapping[str, float | int | None]


class Tracker(Protocol):
    """Receives numbers as they come."""

    def log(self, kind: str, step: int, values: Values) -> None:
        """Takes one line of numbers.

        Args:
            kind: "train" or "val".
            step: optimizer steps taken.
            values: names without the kind.
        """

    def finish(self, summary: Values) -> None:
        """Takes the run's result; nothing is logged after it."""


class NullTracker:
    """Tracks nothing: what every process but the main one has, so that nobody asks which process it is."""

    def log(self, kind: str, step: int, values: Values) -> None:
        """Does nothing."""

    def finish(self, summary: Values) -> None:
        """Does nothing."""


class JsonlTracker:
    """Appends one JSON object a line to metrics.jsonl: `{"kind", "step", ...}`. Numbers that are not finite become null."""

    def __init__(self, path: Path, step: int, epoch: int) -> None:
        """Opens the file and drops lines past a position: a run that goes on from there will log them again.

        Args:
            step: optimizer steps taken at that position.
            epoch: epochs that are evaluated at that position.
        """
        self._path = path
        kept = [
            line for line in _lines(path) if line["step"] <= step and (line["kind"] != "val" or line["epoch"] <= epoch)
        ]
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(path)

    def log(self, kind: str, step: int, values: Values) -> None:
        """Appends a line; opened and closed each time, so a killed run loses none."""
        finite = {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **finite}) + "\n")

    def finish(self, summary: Values) -> None:
        """Does nothing; result.json has the summary."""


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, kind: str, step: int, values: Values) -> None:
        """Hands the line to each."""
        for tracker in self._trackers:
            tracker.log(kind, step, values)

    def finish(self, summary: Values) -> None:
        """Hands the result to each."""
        for tracker in self._trackers:
            tracker.finish(summary)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # the line a killed process was writing
            continue
    return lines

"""Trackers: what all can do, one that does nothing, several as one, and one whose failures end nothing."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tqdm import tqdm

from attrtrain.wording import one_line

Values = Mapping[str, float | int | None]
Summary = Mapping[str, float | int | str | None]
Outcome = Literal["finished", "preempted", "failed"]
GLOBAL_STEP, EPOCH = "train/global_step", "epoch"  # what curves are drawn over


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers; None where there is no number."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float | int | bool | None]]


@dataclass(frozen=True)
class Curves:
    """Lines in one drawing.

    Attributes:
        lines: by name, x and y of equal length.
    """

    title: str
    x_name: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class Picture:
    """An encoded picture, of any format Pillow reads, and what to write under it."""

    content: bytes
    caption: str


@dataclass(frozen=True)
class Artifact:
    """Files that a run was made from, or that it made.

    Attributes:
        kind: "dataset" is the run's input, "model" its output.
        files: by name within the artifact, a file that stays as it is, or the content.
        facts: what is known of it besides.
    """

    name: str
    kind: Literal["dataset", "model"]
    files: Mapping[str, Path | bytes]
    facts: Mapping[str, Any]


class Tracker(Protocol):
    """Receives what a run has to tell, as it comes. A tracker passes over what it cannot show."""

    def log(self, kind: str, step: int, values: Values) -> None:
        """Takes one line of numbers.

        Args:
            kind: "train" or "val".
            step: optimizer steps taken.
            values: names without the kind.
        """

    def log_table(self, name: str, step: int, table: Table) -> None:
        """Takes a table; one of the same name at a later step takes its place."""

    def log_curves(self, name: str, step: int, curves: Curves) -> None:
        """Takes a drawing."""

    def log_pictures(self, name: str, step: int, pictures: Sequence[Picture]) -> None:
        """Takes a few small pictures."""

    def log_artifact(self, artifact: Artifact) -> None:
        """Takes files."""

    def alert(self, title: str, text: str) -> None:
        """Tells people, wherever they are, what they would want to know at once. Title: below 64 characters."""

    def finish(self, summary: Summary, outcome: Outcome = "finished") -> None:
        """Takes the run's result and how it ended; nothing is logged after it."""


class NullTracker:
    """Tracks nothing: what every process but the main one has, so that nobody asks which process it is. Others begin
    from it.
    """

    def log(self, kind: str, step: int, values: Values) -> None:
        """Does nothing."""

    def log_table(self, name: str, step: int, table: Table) -> None:
        """Does nothing."""

    def log_curves(self, name: str, step: int, curves: Curves) -> None:
        """Does nothing."""

    def log_pictures(self, name: str, step: int, pictures: Sequence[Picture]) -> None:
        """Does nothing."""

    def log_artifact(self, artifact: Artifact) -> None:
        """Does nothing."""

    def alert(self, title: str, text: str) -> None:
        """Does nothing."""

    def finish(self, summary: Summary, outcome: Outcome = "finished") -> None:
        """Does nothing."""


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, kind: str, step: int, values: Values) -> None:
        """Hands the line to each."""
        for tracker in self._trackers:
            tracker.log(kind, step, values)

    def log_table(self, name: str, step: int, table: Table) -> None:
        """Hands the table to each."""
        for tracker in self._trackers:
            tracker.log_table(name, step, table)

    def log_curves(self, name: str, step: int, curves: Curves) -> None:
        """Hands the drawing to each."""
        for tracker in self._trackers:
            tracker.log_curves(name, step, curves)

    def log_pictures(self, name: str, step: int, pictures: Sequence[Picture]) -> None:
        """Hands the pictures to each."""
        for tracker in self._trackers:
            tracker.log_pictures(name, step, pictures)

    def log_artifact(self, artifact: Artifact) -> None:
        """Hands the files to each."""
        for tracker in self._trackers:
            tracker.log_artifact(artifact)

    def alert(self, title: str, text: str) -> None:
        """Hands the alert to each."""
        for tracker in self._trackers:
            tracker.alert(title, text)

    def finish(self, summary: Summary, outcome: Outcome = "finished") -> None:
        """Hands the result to each."""
        for tracker in self._trackers:
            tracker.finish(summary, outcome)


class Forgiving:
    """Hands everything on to a tracker until that fails; then says so once, and only closes it. No failure of a copy is
    worth a training run.
    """

    def __init__(self, tracker: Tracker, name: str) -> None:
        """Wraps a tracker that people know as `name`."""
        self._tracker = tracker
        self._name = name
        self._failed = False

    def log(self, kind: str, step: int, values: Values) -> None:
        """Hands the line on."""
        self._try(lambda: self._tracker.log(kind, step, values))

    def log_table(self, name: str, step: int, table: Table) -> None:
        """Hands the table on."""
        self._try(lambda: self._tracker.log_table(name, step, table))

    def log_curves(self, name: str, step: int, curves: Curves) -> None:
        """Hands the drawing on."""
        self._try(lambda: self._tracker.log_curves(name, step, curves))

    def log_pictures(self, name: str, step: int, pictures: Sequence[Picture]) -> None:
        """Hands the pictures on."""
        self._try(lambda: self._tracker.log_pictures(name, step, pictures))

    def log_artifact(self, artifact: Artifact) -> None:
        """Hands the files on."""
        self._try(lambda: self._tracker.log_artifact(artifact))

    def alert(self, title: str, text: str) -> None:
        """Hands the alert on."""
        self._try(lambda: self._tracker.alert(title, text))

    def finish(self, summary: Summary, outcome: Outcome = "finished") -> None:
        """Closes the tracker, also one that has failed."""
        if self._failed:
            with suppress(Exception):
                self._tracker.finish({}, outcome)
        else:
            self._try(lambda: self._tracker.finish(summary, outcome))

    def _try(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            warn(f"{self._name} stopped taking numbers ({one_line(error)}); metrics.jsonl has all of them")


def log_line(tracker: Tracker, line: Mapping[str, Any]) -> None:
    """Hands a line of metrics.jsonl to a tracker, as it was logged."""
    values = {name: value for name, value in line.items() if name not in ("kind", "step")}
    tracker.log(line["kind"], line["step"], values)


def warn(message: str) -> None:
    """Says one line on stderr, beside a progress bar that may be there and not behind it."""
    tqdm.write(f"warning: {message}", file=sys.stderr)
    sys.stderr.flush()


def finite(values: Values) -> Iterator[tuple[str, float | int]]:
    """The numbers that can be drawn."""
    return ((name, value) for name, value in values.items() if value is not None and math.isfinite(value))

"""Rows → ratios, a table, and NAME.json."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attrtrain.files import atomic_write
from tools.bench.contest import Row

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Case:
    """One setting in which the contenders were compared, such as a number of workers.

    Attributes:
        name: what is special about it.
        rows: one a contender.
        unit: of the values.
        better: which values are good. A ratio is always attrtrain's value by the other's.
        note: what a reader has to know.
    """

    name: str
    rows: Sequence[Row]
    unit: str
    better: Better = "higher"
    note: str = ""

    def summary(self) -> dict[str, Any]:
        """The case as JSON: medians over repeats, ratios of those medians, and the range of the ratios in single
        rounds.
        """
        ours = self._only("attrtrain")
        limit = self._only("limit")
        peers = [row for row in self.rows if row.role == "peer"]
        choose = max if self.better == "higher" else min
        best = choose((row for row in peers if row.values), key=_median, default=None)
        return {
            "unit": self.unit,
            "better": self.better,
            "note": self.note,
            "limit": None if limit is None else _median(limit),
            "attrtrain": None if ours is None else _median(ours),
            "peers": {row.name: _median(row) if row.values else None for row in peers},
            "missing": {row.name: row.missing for row in peers if row.missing is not None},
            "best_peer": None if best is None else best.name,
            "ratio_to_limit": _ratio(ours, limit),
            "ratio_to_limit_range": _ratio_range(ours, limit),
            "ratio_to_best_peer": _ratio(ours, best),
            "ratio_to_best_peer_range": _ratio_range(ours, best),
            "rows": [_row_json(row) for row in self.rows],
        }

    def table(self) -> str:
        """The case as text."""
        ours = self._only("attrtrain")
        lines = [("", self.unit, "turns", "spread", "attrtrain / it", "peak MB")]
        for row in self.rows:
            name = row.name if row.role == "peer" else f"{row.name} ({row.role})" if row.role != row.name else row.name
            if row.values:
                peaks = [detail["peak_mb"] for detail in row.details if "peak_mb" in detail]
                ratio = "" if row is ours else _shown(_ratio(ours, row))
                peak = f"{statistics.median(peaks):,.0f}" if peaks else ""
                spread = f"{_spread(row):.0%}" if len(row.values) > 1 else ""
                lines.append((name, _shown(_median(row)), str(len(row.values)), spread, ratio, peak))
            else:
                lines.append((name, "–", "", "", "", f"missing: {row.missing}"))
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        text = [
            "  ".join([line[0].ljust(widths[0]), *(line[c].rjust(widths[c]) for c in range(1, 5)), line[5]]).rstrip()
            for line in lines
        ]
        return "\n".join([f"{self.name} ({self.better} is better)", *text, *([self.note] if self.note else [])])

    def _only(self, role: str) -> Row | None:
        return next((row for row in self.rows if row.role == role and row.values), None)


@dataclass(frozen=True)
class Result:
    """A whole benchmark: its first case is the one that the top of the JSON tells.

    `extra` holds what is no comparison of contenders, such as how cost grows with the number of samples.
    """

    name: str
    cases: Sequence[Case]
    settings: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, machine: dict[str, Any], versions: dict[str, str], repeats: int) -> Path:
        """Writes NAME.json, whole or not at all."""
        summaries = {case.name: case.summary() for case in self.cases}
        first = self.cases[0].name
        content = {
            "schema_version": 1,
            "benchmark": self.name,
            "case": first,
            **summaries[first],
            "cases": summaries,
            **self.extra,
            "repeats": repeats,
            "settings": self.settings,
            "machine": machine,
            "versions": versions,
        }
        path = folder / f"{self.name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
        return path


def _median(row: Row) -> float:
    return statistics.median(row.values)


def _spread(row: Row) -> float:
    """Largest less smallest value, as a share of the median."""
    return (max(row.values) - min(row.values)) / _median(row) if _median(row) else 0.0


def _ratio(ours: Row | None, other: Row | None) -> float | None:
    if ours is None or other is None or not ours.values or not other.values or not _median(other):
        return None
    return _median(ours) / _median(other)


def _ratio_range(ours: Row | None, other: Row | None) -> list[float] | None:
    """Least and greatest ratio in one round, whose turns lay close together in time."""
    if _ratio(ours, other) is None or ours is None or other is None:
        return None
    # Not strict: a slow one has fewer turns.
    ratios = [own / its for own, its in zip(ours.values, other.values, strict=False) if its]
    return [min(ratios), max(ratios)]


def _row_json(row: Row) -> dict[str, Any]:
    if not row.values:
        return {"name": row.name, "role": row.role, "missing": row.missing}
    return {
        "name": row.name,
        "role": row.role,
        "median": _median(row),
        "spread": _spread(row),
        "values": row.values,
        "details": row.details,
    }


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

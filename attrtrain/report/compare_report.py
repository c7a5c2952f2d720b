"""The page that compares two runs."""

from pathlib import Path

from attrtrain.report.compare import Comparison, ScoreRow, tally
from attrtrain.report.headline import Rung
from attrtrain.report.history import read_curves
from attrtrain.report.render import signed_interval, write_page

_FINDINGS = {"better": ("▲", "B is better"), "worse": ("▼", "B is worse"), "open": ("·", "open"), "": ("–", "")}


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Writes the page: one file that opens without a network."""
    a, b = comparison.a, comparison.b
    curves = {"a": read_curves(a.history), "b": read_curves(b.history)}
    first = comparison.scores[0]
    write_page(
        path,
        "compare.html.j2",
        ("compare.js",),
        data={"curves": curves},
        title=f"{a.folder.resolve().name} and {b.folder.resolve().name}",
        a=a,
        b=b,
        map=first,
        replicates=comparison.replicates,
        ladder=[
            Rung("a", "A", a.document.overall.get("map"), a.document.intervals.get("map")),
            Rung("model", "B", b.document.overall.get("map"), b.document.intervals.get("map")),
            Rung("prior", "prior", first.prior, None),
        ],
        sentence=sentence(first),
        scores=comparison.scores,
        attributes=sorted(comparison.attributes, key=lambda row: (row.difference is None, -(row.difference or 0.0))),
        reach=_reach(comparison.attributes),
        tally=tally(comparison.attributes),
        findings=_FINDINGS,
        curves=curves,
        settings=comparison.settings,
        notes=comparison.notes,
    )


def sentence(row: ScoreRow) -> str:
    """What may be concluded from the difference in mAP."""
    if row.difference is None or row.interval is None:
        return "Without mAP of both and an interval, nothing can be said of a difference."
    p = "" if row.p is None else f" (p = {row.p:.2g})"
    if row.finding == "open":
        return f"The interval of the difference, {signed_interval(row.interval)}, contains 0: on these objects the two cannot be told apart{p}."
    return f"B is {row.finding} than A: the interval of the difference, {signed_interval(row.interval)}, does not contain 0{p}."


def _reach(rows: list[ScoreRow]) -> float:
    """How far the axis of differences goes either way: to the end of the longest whisker, or dot where there is
    none.
    """
    ends = [abs(end) for row in rows for end in (*(row.interval or ()), row.difference) if end is not None]
    return float(max([0.01, *ends]))

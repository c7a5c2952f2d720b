"""search.html: crops of the objects that were found, best first."""

from dataclasses import dataclass
from pathlib import Path

from attrtrain.report.render import write_page

PICTURE_PX = 224
_PICTURE_BYTES = 4_500_000  # of a page that stays below render.MAX_BYTES


@dataclass(frozen=True)
class Found:
    """One object on the page.

    Attributes:
        score: by which it is ranked.
        uri: a small picture of it, "" where there is none.
        why_none: and why.
        attributes: names and scores.
    """

    object_id: int
    image: str
    category: str
    score: float
    uri: str
    why_none: str
    attributes: list[tuple[str, float]]


def write_search_page(path: Path, asked: str, ranked_by: str, total: int, found: list[Found]) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: where to.
        asked: what for.
        ranked_by: what the scores are.
        total: objects that match, shown or not.
        found: those that are shown.
    """
    left, shown = _PICTURE_BYTES, []
    for one in found:
        left -= len(one.uri)
        shown.append((one, one.uri if left >= 0 else "", one.why_none if left >= 0 else "the page is full"))
    write_page(
        path, "search.html.j2", (), data={}, title=asked or "All objects", ranked_by=ranked_by, total=total, shown=shown
    )

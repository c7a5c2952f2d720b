"""Templates, styles and scripts of this package → one HTML file that needs nothing else."""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from attrtrain.files import atomic_write, legible
from attrtrain.wording import counted

MAX_BYTES = 5_000_000


def write_page(path: Path, template: str, scripts: tuple[str, ...], data: dict[str, Any], **values: Any) -> None:
    """Renders a page and writes it, whole or not at all.

    The page forbids itself every connection and every script but its own, by a content security policy.

    Args:
        path: where to.
        template: file name in this package.
        scripts: file names in this package, run in this order.
        data: what the scripts read; no NaN in it.
        values: what the template reads.
    """
    script = "\n".join(map(_text, ("charts.js", "tables.js", *scripts)))
    page = (
        _environment()
        .get_template(template)
        .render(
            css=_text("report.css"),
            script=script,
            script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            data=embedded(data),
            **values,
        )
    )
    with atomic_write(path) as file:
        file.write(legible(page).encode())  # paths may be no text


def embedded(data: dict[str, Any]) -> str:
    """JSON that is harmless inside a script element: no name in it can end the element or begin a comment.

    Raises:
        ValueError: a number is not finite, which JSON does not have.
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(name: str) -> str:
    return (files("attrtrain.report") / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, loader=FunctionLoader(_text), undefined=StrictUndefined, trim_blocks=False, lstrip_blocks=False
    )
    environment.filters.update(
        score=score, interval=interval, along=along, exact=exact, counted=counted, percent=percent, signed=signed, signed_interval=signed_interval,
        breakable=breakable,
        thousands=lambda number: f"{number:,}", short=lambda number: f"{number:g}",
    )  # fmt: skip
    return environment


def score(value: float | None) -> str:
    """Three decimals, or a dash where there is no number."""
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Three decimals with a sign, or a dash where there is no number."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def interval(pair: tuple[float, float] | None) -> str:
    """Both ends, or a dash where there is no interval."""
    return "–" if pair is None else f"{score(pair[0])} to {score(pair[1])}"


def signed_interval(pair: tuple[float, float] | None) -> str:
    """Both ends of the interval of a difference, or a dash where there is none."""
    return "–" if pair is None else f"{signed(pair[0])} to {signed(pair[1])}"


def along(value: float) -> str:
    """A place on an axis from 0 to 1, as a CSS length."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"


def exact(value: float | None) -> str:
    """A number to sort by; empty where there is none."""
    return "" if value is None else f"{value:.9g}"


def percent(value: float) -> str:
    """Whole per cent, with a decimal below ten."""
    return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.1f} %"


def breakable(name: str) -> Markup:
    """A name as HTML whose lines may break after underscores and slashes."""
    text = escape(name)
    return text.replace("_", Markup("_<wbr>")).replace("/", Markup("/<wbr>")) if "_" in name else text

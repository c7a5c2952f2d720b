"""`attrtrain search`: finds objects by their attributes, or by what they look like."""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from attrtrain.errors import ConfigError
from attrtrain.inference.command import add_images_argument
from attrtrain.urls import require_folders
from attrtrain.wording import counted, shown

if TYPE_CHECKING:  # DuckDB and Arrow take a moment, which `--help` need not
    from attrtrain.inference.results import ResultInfo
    from attrtrain.inference.searching import Example, Match

EXAMPLES = """examples:
  attrtrain search preds.parquet "furry AND NOT sleeping AND category = 'dog'" --limit 20
  attrtrain search preds.parquet '"metal / metallic" >= 0.8 OR (furry AND round)' --html found.html
  attrtrain search preds.parquet "category = 'dog'" --like 10782 --features features.parquet

A bare attribute means that its score reaches its threshold. Names with spaces go in double quotes, text in single ones."""
_MOST = 1_000_000  # objects shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("predictions", type=Path, metavar="PARQUET", help="what `attrtrain annotate` wrote")
    parser.add_argument(
        "expression", nargs="?", default="", metavar="EXPRESSION",
        help="attributes, comparisons such as category = 'dog' or furry >= 0.8, AND, OR, NOT, parentheses",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="objects shown (default: %(default)s)")
    parser.add_argument("--like", type=int, metavar="OBJECT_ID", help="rank by likeness to this object's features")
    parser.add_argument("--features", type=Path, metavar="PARQUET", help="what `attrtrain features` wrote, for --like")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the crops")
    add_images_argument(
        parser, "folders that hold the photographs, for --html (default: those that annotating was given)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Searches and prints; returns 0, whether or not there is a match."""
    _check(arguments)
    from attrtrain.inference.query import parse
    from attrtrain.inference.searching import Example, read_predictions_info, search

    info = read_predictions_info(arguments.predictions)
    query = parse(arguments.expression, info.attributes) if arguments.expression.strip() else None
    for attribute in query.attributes if query else ():
        if not attribute.is_learnt:
            told = f"no object had {attribute.name!r} in training: it is never present, and its scores mean nothing"
            print(f"note: {told}", file=sys.stderr)
    example = Example(arguments.like, arguments.features) if arguments.like is not None else None
    found, total = search(arguments.predictions, query, example, arguments.limit)
    for match in found:
        told = "".join(f"  {name} {score:.3f}" for name, score in match.attributes)
        print(shown(f"{match.score:.3f}  {match.object_id:>12}  {match.category:<14}  {match.image}{told}"))
    print(
        f"{total:,} of {counted(info.written, 'object matches', 'objects match')}{f'; the best {len(found)} are shown' if total > len(found) else ''}"
    )
    if arguments.html is not None:
        _write_page(arguments, info, example, found, total)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.limit <= _MOST:
        raise ConfigError(f"--limit {arguments.limit}: must be between 1 and {_MOST:,}")
    if (arguments.like is None) != (arguments.features is None):
        raise ConfigError("--like and --features go together: an object's id, and the file that has its features")
    if not arguments.expression.strip() and arguments.like is None:
        raise ConfigError("nothing to search for; give an expression, or --like and --features")
    if arguments.images and arguments.html is None:
        raise ConfigError("--images: are for the page; say where to write it with --html")
    if arguments.html is not None and arguments.html.resolve() in (
        path.resolve() for path in (arguments.predictions, arguments.features) if path is not None
    ):
        raise ConfigError(f"--html {arguments.html}: would replace what is searched; choose another name")
    require_folders("--images", arguments.images)


def _write_page(
    arguments: argparse.Namespace, info: "ResultInfo", example: "Example | None", found: list["Match"], total: int
) -> None:
    from attrtrain.report.search_page import Found, write_search_page

    folders = arguments.images or _annotated_folders(info)
    pictures = [_picture(match, info, folders) for match in found]
    cards = [
        Found(match.object_id, match.image, match.category, match.score, uri, why, match.attributes)
        for match, (uri, why) in zip(found, pictures, strict=True)
    ]
    by = f"likeness to object {example.object_id}: the cosine of features" if example else "joint score"
    try:
        write_search_page(arguments.html, arguments.expression, by, total, cards)
    except OSError as error:
        raise ConfigError(f"--html {arguments.html}: {error.strerror or error}") from None
    reasons = Counter(why for uri, why in pictures if not uri)
    without = f"; {reasons.total()} without a picture: {'; '.join(reasons)}" if reasons else ""
    print(f"{arguments.html} shows them{without}")


def _annotated_folders(info: "ResultInfo") -> list[Path | str]:
    """Where photographs were when they were annotated, as far as that is here; a URL in a file is not followed
    unasked.
    """
    return [Path(place) for place in info.job.images if Path(place).is_dir()]


def _picture(match: "Match", info: "ResultInfo", folders: list[Path | str]) -> tuple[str, str]:
    """A small picture of an object as the model saw it; or "" and why there is none."""
    import simplejpeg

    from attrtrain.errors import LeftOutError
    from attrtrain.report.pictures import picture_uri
    from attrtrain.report.search_page import PICTURE_PX
    from attrtrain.shards.crop import cut
    from attrtrain.shards.image_decode import load_image
    from attrtrain.shards.image_lookup import find_image

    if not folders:
        return "", "say with --images where the photographs are"
    try:
        photograph = load_image(find_image(match.image, folders), match.image_size)
        crop = cut(photograph, match.box, False, info.crop)
    except LeftOutError as error:
        return "", error.reason.replace("_", " ")
    window = info.framing.windows([crop.box], [crop.size])[0]
    return picture_uri(info.framing.shown(simplejpeg.decode_jpeg(crop.jpeg, "RGB"), window), PICTURE_PX), ""

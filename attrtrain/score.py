"""`attrtrain score`: judges anybody's predictions by the code that judges attrtrain's own models."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrtrain.files import legible
from attrtrain.wording import counted

POSITIVE_AT = 0.5
LARGEST_LOGIT = 1e290  # the sum of a loss for each of a billion cells, and of its replicates, is still a number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attrtrain.metrics.judged_set import JudgedSet

EXAMPLES = """examples:
  attrtrain score --scores pred.npy --labels gt_label.npy --unknown 2 --names attribute_index.json --out results
  attrtrain score --scores logits.npz:val --logits --labels labels.parquet --images image_ids.txt --out results

Files are .npy, .npz, .parquet, .csv or .tsv with one row an object and one column an attribute. A label is 0 to 1, and positive from
0.5 on; empty, NaN, negative, or the value of --unknown is unknown and counts nowhere. A CSV's first line of 0, 1, 2 and so on is an
object's or, as pandas writes it, names: whichever gives both files as many objects. Where that does not tell, nothing is judged; name the
columns. Columns that both files name are matched by name; an .npz may name them in an array `names`. Objects are matched by their
order."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--scores", required=True, metavar="FILE", help="what was predicted; FILE.npz:NAME is one of several arrays"
    )
    parser.add_argument("--labels", required=True, metavar="FILE", help="what is true")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for metrics.json")
    parser.add_argument("--logits", action="store_true", help="scores are logits (default: probabilities from 0 to 1)")
    parser.add_argument(
        "--unknown",
        type=float,
        metavar="VALUE",
        help="a value that means unknown in the label file, such as 2 in VAW's",
    )
    parser.add_argument(
        "--names",
        type=Path,
        metavar="JSON",
        help="attribute names, for files without: a list, or an object of name and column",
    )
    parser.add_argument(
        "--categories",
        type=Path,
        metavar="FILE",
        help="the category of each object, one a line, or a .npy, .npz:NAME or .json list",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FILE",
        help="the photograph of each object, in the same way; intervals are then drawn over photographs",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="predicted is a probability above this (default: %(default)s)",
    )
    parser.add_argument(
        "--replicates",
        type=int,
        metavar="N",
        help="bootstrap replicates, 0 for no intervals (default: 100 to 1000 by size)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Judges, writes metrics.json and prints a table; returns 0."""
    from attrtrain.errors import ConfigError, PredictionsError
    from attrtrain.metrics.document import METRICS, write_metrics
    from attrtrain.metrics.judge import judge_cells
    from attrtrain.metrics.table import overview
    from attrtrain.urls import require_writable

    if not 0 < arguments.threshold < 1:
        raise ConfigError(
            f"--threshold {arguments.threshold:g}: must lie between 0 and 1; it is a probability, also with --logits"
        )
    if arguments.replicates is not None and arguments.replicates < 0:
        raise ConfigError(f"--replicates {arguments.replicates}: must be 0 or more")
    require_writable("--out", arguments.out)
    document = judge_cells(
        read_cells(arguments),
        source={"scores": legible(arguments.scores), "labels": legible(arguments.labels)},
        groups=None,
        training=None,
        positive_at=POSITIVE_AT,
        threshold=arguments.threshold,
        tuned=None,
        replicates=arguments.replicates,
        seed=0,
        unit_is_image=arguments.images is not None,
    )
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_metrics(document, arguments.out / METRICS)
    except OSError as error:
        raise PredictionsError(f"{arguments.out}: {error.strerror or error}") from None
    print(overview(document))
    print(f"{arguments.out / METRICS} has every attribute")
    return 0


def read_cells(arguments: argparse.Namespace) -> "JudgedSet":
    """Reads all files and checks that they belong together.

    Raises:
        PredictionsError: naming files, and what differs.
    """
    import numpy as np

    from attrtrain.errors import PredictionsError
    from attrtrain.metrics.arrays import read_column, read_matrices, read_names
    from attrtrain.metrics.judged_set import JudgedSet

    scores, labels = read_matrices(arguments.scores, arguments.labels)
    values = scores.values
    if values.shape != labels.values.shape:
        turned = "; one of them is turned on its side" if values.shape == labels.values.shape[::-1] else ""
        raise PredictionsError(
            f"{arguments.scores} has shape {values.shape}, {arguments.labels} {labels.values.shape}; needs the same objects and attributes in both{turned}"
        )
    if scores.names is not None and labels.names is not None and scores.names != labels.names:
        if differing := sorted(set(scores.names) ^ set(labels.names)):
            raise PredictionsError(
                f"{arguments.scores} and {arguments.labels} have other columns: {', '.join(differing[:5])} are only in one of them"
            )
        values = values[:, [scores.names.index(name) for name in labels.names]]
    own = labels.names or scores.names
    names = own or tuple(f"attribute {column}" for column in range(values.shape[1]))
    if arguments.names is not None:
        names = read_names(arguments.names)
        if len(names) != values.shape[1] or len(set(names)) != len(names):
            raise PredictionsError(
                f"{arguments.names}: {len(names)} names, {len(set(names))} of them different, for {values.shape[1]} columns of {arguments.scores}"
            )
        _require_same_names(names, own, arguments, arguments.labels if labels.names else arguments.scores)
    _require_scores(values, arguments, names)
    category, images = (
        _of_each_object(read_column(path), len(values), path) if path is not None else None
        for path in (arguments.categories, arguments.images)
    )
    return JudgedSet.from_arrays(
        names,
        values,
        _as_shares(labels.values, arguments, names),
        are_logits=arguments.logits,
        image_id=np.arange(len(values)) if images is None else _as_ids(images),
        category=np.full(len(values), "") if category is None else category.astype(str),
        positive_at=POSITIVE_AT,
    )


def _require_same_names(
    names: tuple[str, ...], own: tuple[str, ...] | None, arguments: argparse.Namespace, file: str
) -> None:
    """Compares --names with a file's own column names, unless those are 0, 1, 2 and so on, which name nothing."""
    from attrtrain.errors import PredictionsError
    from attrtrain.metrics.arrays import are_numbered

    if own is None or are_numbered(own):
        return
    for column, (given, name) in enumerate(zip(names, own, strict=True)):
        if given.strip() != name:
            raise PredictionsError(
                f"{arguments.names}: name {column} (counted from 0) is '{given}', but {file} calls that column '{name}'; leave --names out, or give them in the order of the file"
            )


def _require_scores(values: "NDArray[np.floating]", arguments: argparse.Namespace, names: tuple[str, ...]) -> None:
    import numpy as np

    from attrtrain.errors import PredictionsError

    if place := _first(~np.isfinite(values)):
        raise PredictionsError(
            f"{arguments.scores}: {_cell(place, names)} holds {values[place]}; every object needs a score"
        )
    most = values.dtype.type(min(LARGEST_LOGIT, float(np.finfo(values.dtype).max)))
    if arguments.logits and (place := _first(np.abs(values) > most)):
        raise PredictionsError(
            f"{arguments.scores}: {_cell(place, names)} holds {values[place]:g}; a logit is between -{LARGEST_LOGIT:g} and {LARGEST_LOGIT:g}, for losses are summed"
        )
    if not arguments.logits and (place := _first((values < 0) | (values > 1))):
        raise PredictionsError(
            f"{arguments.scores}: {_cell(place, names)} holds {values[place]:g}; a probability is 0 to 1, and scores that are logits need --logits"
        )


def _as_shares(
    values: "NDArray[np.floating]", arguments: argparse.Namespace, names: tuple[str, ...]
) -> "NDArray[np.floating]":
    """Labels with NaN where unknown."""
    import numpy as np

    from attrtrain.errors import PredictionsError

    unknown = (values < 0) | (values == (np.nan if arguments.unknown is None else arguments.unknown))
    shares = np.where(unknown, np.asarray(np.nan, values.dtype), values)
    if place := _first(shares > 1):
        raise PredictionsError(
            f"{arguments.labels}: {_cell(place, names)} holds {values[place]:g}; a label is 0 to 1, so give --unknown {values[place]:g} if that means unknown"
        )
    if np.isnan(shares).all():
        raise PredictionsError(f"{arguments.labels}: every label is unknown, so there is nothing to judge")
    return shares


def _first(wrong: "NDArray[np.bool_]") -> tuple[int, int] | None:
    import numpy as np

    if not wrong.any():
        return None
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return int(row), int(column)


def _cell(place: tuple[int, int], names: tuple[str, ...]) -> str:
    return f"object {place[0]} (counted from 0), attribute '{names[place[1]]}'"


def _of_each_object(values: "NDArray[Any]", objects: int, path: Path) -> "NDArray[Any]":
    from attrtrain.errors import PredictionsError

    if len(values) != objects:
        raise PredictionsError(
            f"{path}: {counted(len(values), 'value')} for {counted(objects, 'object')}; needs one each"
        )
    return values


def _as_ids(images: "NDArray[Any]") -> "NDArray[np.int64]":
    """Whole numbers as they are, names numbered in alphabetical order. `01` and `1_2`, which Python would read as
    numbers, are names.
    """
    import numpy as np

    if images.dtype.kind in "biu" or all(re.fullmatch(r"0|[1-9]\d{0,17}", text) for text in images.tolist()):
        return images.astype(np.int64)
    return np.unique(images, return_inverse=True)[1].astype(np.int64)

"""VAW, "Visual Attributes in the Wild" (Pham et al., CVPR 2021): Visual Genome boxes with positive and negative
attributes by name.

Whatever an object names as neither is unknown. The data set comes as one JSON file a split.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attrtrain.annotations.table import ObjectTable, SourceFile, text_of
from attrtrain.errors import LabelError
from attrtrain.vocabulary import AttributeVocabulary


def read_vaw(paths: Sequence[str | Path]) -> ObjectTable:
    """Reads VAW JSON files. A file called train*, val* or test* gives its objects that split; photographs are
    `<image_id>.jpg`.

    Raises:
        LabelError: a file is missing or not VAW's format, or an attribute is both positive and negative for one object.
    """
    entries: list[tuple[str, dict[str, Any]]] = []
    for path in map(Path, paths):
        split = next((name for name in ("train", "val", "test") if path.stem.startswith(name)), "")
        entries += [(split, entry) for entry in _entries(path)]
    try:
        names = sorted(
            {
                name.strip()
                for _, entry in entries
                for name in entry["positive_attributes"] + entry["negative_attributes"]
            }
        )
        vocabulary = AttributeVocabulary.from_names(names)
        column = {name: index for index, name in enumerate(names)}
        labels = np.full((len(entries), len(names)), np.nan, dtype=np.float32)
        for row, (_, entry) in enumerate(entries):
            positive = [column[name.strip()] for name in entry["positive_attributes"]]
            negative = [column[name.strip()] for name in entry["negative_attributes"]]
            if both := set(positive) & set(negative):
                raise LabelError(
                    f"object {entry['instance_id']}: '{names[min(both)]}' is both a positive and a negative attribute"
                )
            labels[row, positive], labels[row, negative] = 1, 0
        name_of = {entry["image_id"]: f"{entry['image_id']}.jpg" for _, entry in entries}
        return ObjectTable(
            vocabulary=vocabulary,
            object_id=np.array([int(entry["instance_id"]) for _, entry in entries], dtype=np.int64),
            image_id=np.array([int(entry["image_id"]) for _, entry in entries], dtype=np.int64),
            image=np.array([name_of[entry["image_id"]] for _, entry in entries], dtype=object),
            image_size=np.zeros((len(entries), 2), dtype=np.int64),
            box=np.array([entry["instance_bbox"] or [math.nan] * 4 for _, entry in entries], dtype=np.float64).reshape(
                -1, 4
            ),
            category=np.array([text_of(entry["object_name"]) for _, entry in entries], dtype=object),
            split=np.array([split for split, _ in entries], dtype=object),
            crowd=np.zeros(len(entries), dtype=bool),
            labels=labels,
            unmatched=np.zeros(0, dtype=np.int64),
            sources=tuple(SourceFile.of(Path(path)) for path in paths),
        )
    except LabelError as error:
        raise LabelError(f"{', '.join(map(str, paths))}: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise LabelError(f"{paths[0]}: not laid out as VAW files are ({type(error).__name__}: {error})") from None


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            content = json.load(file)
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path}: not valid JSON ({error})") from None
    if (
        not isinstance(content, list)
        or not content
        or not isinstance(content[0], dict)
        or "positive_attributes" not in content[0]
    ):
        raise LabelError(
            f"{path}: not a VAW file (a list of objects with positive_attributes); COCO JSON belongs to --instances, and a table of boxes is JSON lines, named .jsonl"
        )
    return content

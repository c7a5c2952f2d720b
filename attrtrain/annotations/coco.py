"""COCO instances files: where each annotated object is, and in which photograph.

COCO 2014 and 2017 hold the same annotations under the same ids, dealt out to other files (2017's train is 2014's train
+ val − minival). So several files are read as one table and joined by annotation id, whichever file or split the
photograph ended up in.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable, SourceFile, check_pixels, photograph_of, tidy_name
from attrtrain.errors import LabelError
from attrtrain.vocabulary import AttributeVocabulary

T = TypeVar("T")


@dataclass(frozen=True)
class CocoInstances:
    """Annotations of one or more instances files, by rising annotation id. Columns as in `ObjectTable`, each (M,) or
    (M, k).
    """

    annotation_id: NDArray[np.int64]
    image_id: NDArray[np.int64]
    image: NDArray[Any]
    image_size: NDArray[np.int64]
    box: NDArray[np.float64]
    category: NDArray[Any]
    crowd: NDArray[np.bool_]
    sources: tuple[SourceFile, ...]


def read_instances(paths: Sequence[str | Path]) -> CocoInstances:
    """Reads COCO instances JSON files (2014, 2017, or anybody's in that format) into one table.

    Raises:
        LabelError: a file is missing or not COCO's format, or two files give one annotation id to different objects.
    """
    parts = [_read_one(Path(path)) for path in paths]
    merged = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("annotation_id", "image_id", "image", "image_size", "box", "category", "crowd")
    }
    # Stable: of equal ids, the one of the file named first comes first.
    order = np.argsort(merged["annotation_id"], kind="stable")
    merged = {name: column[order] for name, column in merged.items()}
    ids = merged["annotation_id"]
    repeated = np.flatnonzero(ids[1:] == ids[:-1]) + 1
    differing = (merged["image_id"][repeated] != merged["image_id"][repeated - 1]) | (
        ~np.isclose(merged["box"][repeated], merged["box"][repeated - 1], equal_nan=True).all(axis=1)
    )
    if differing.any():
        raise LabelError(
            f"annotation {ids[repeated[differing][0]]} is one object in one of {', '.join(str(path) for path in paths)} "
            "and another in the next; give instances files of one data set"
        )
    keep = np.ones(len(ids), dtype=bool)
    keep[repeated] = False
    merged = {name: column[keep] for name, column in merged.items()}
    _require_one_name_an_image(merged["image_id"], merged["image"], paths)
    return CocoInstances(
        **merged,
        sources=tuple(s for part in parts for s in part.sources),
    )


def _require_one_name_an_image(image_id: NDArray[np.int64], image: NDArray[Any], paths: Sequence[str | Path]) -> None:
    """Raises LabelError where two files give one id to different photographs, which would count as one."""
    _, first, inverse = np.unique(image_id, return_index=True, return_inverse=True)
    named = image[first][inverse]
    for row in np.flatnonzero(image != named).tolist():  # COCO 2014 and 2017 name the same photograph differently
        if photograph_of(image[row]) != photograph_of(named[row]):
            raise LabelError(
                f"image {image_id[row]} is {named[row]} in one of {', '.join(str(path) for path in paths)} and {image[row]} in another; "
                "give instances files of one data set"
            )


def join(
    vocabulary: AttributeVocabulary,
    annotation_ids: NDArray[np.int64],
    splits: NDArray[Any],
    labels: NDArray[np.float32],
    sources: tuple[SourceFile, ...],
    instances: CocoInstances,
) -> ObjectTable:
    """Joins labels (N, A) to the annotations of the same ids (N,). What has no annotation goes to `unmatched`.

    Raises:
        LabelError: not one labelled object is in the instances files.
    """
    position = np.searchsorted(instances.annotation_id, annotation_ids)
    position[position == len(instances.annotation_id)] = 0
    matched = (
        instances.annotation_id[position] == annotation_ids
        if len(instances.annotation_id)
        else np.zeros(len(annotation_ids), dtype=bool)
    )
    if not matched.any():
        names = ", ".join(source.name for source in instances.sources)
        raise LabelError(
            f"none of the {len(annotation_ids)} labelled objects is in {names}; give the instances files these labels belong to"
        )
    rows = position[matched]
    return ObjectTable(
        vocabulary=vocabulary,
        object_id=annotation_ids[matched],
        image_id=instances.image_id[rows],
        image=instances.image[rows],
        image_size=instances.image_size[rows],
        box=instances.box[rows],
        category=instances.category[rows],
        split=splits[matched],
        crowd=instances.crowd[rows],
        labels=labels[matched],
        unmatched=annotation_ids[~matched],
        sources=sources + instances.sources,
    )


def _read_one(path: Path) -> CocoInstances:
    try:
        with path.open("rb") as file:
            content = json.load(file, object_hook=_without_polygons)
        if not isinstance(content, dict):
            raise ValueError(
                f"holds a {'list' if isinstance(content, list) else type(content).__name__}, not images and annotations"
            )
        images: dict[int, dict[str, Any]] = {}
        for image in content["images"]:
            if not isinstance(name := image["file_name"], str):
                raise ValueError(f"image {image['id']} has file_name {name!r}, which is no text")
            image["file_name"] = tidy_name(name)
            first = images.setdefault(_whole(image["id"]), image)
            if first is not image and first["file_name"] != image["file_name"]:
                raise ValueError(f"image id {image['id']} is both {first['file_name']} and {image['file_name']}")
        categories = {_whole(category["id"]): str(category["name"]) for category in content.get("categories", [])}
        annotations = content["annotations"]
        annotation_ids, image_ids = (
            np.array([_whole(annotation[key]) for annotation in annotations], dtype=np.int64)
            for key in ("id", "image_id")
        )
        for annotation, image_id in zip(annotations, image_ids.tolist(), strict=True):
            if image_id not in images:
                raise ValueError(f"annotation {annotation['id']} is in image {image_id}, which is not listed")
        box = np.array([_box_of(annotation) for annotation in annotations], dtype=np.float64).reshape(-1, 4)
        check_pixels(box)
        owners = [images[image_id] for image_id in image_ids.tolist()]
        return CocoInstances(
            annotation_id=annotation_ids,
            image_id=image_ids,
            image=np.array([image["file_name"] for image in owners], dtype=object),
            image_size=np.array(
                [(image.get("width") or 0, image.get("height") or 0) for image in owners], dtype=np.int64
            ).reshape(-1, 2),
            box=box,
            category=np.array(
                _looked_up(annotations, "category_id", lambda number: categories.get(number, ""), ""), dtype=object
            ),
            crowd=np.array(_looked_up(annotations, "iscrowd", bool, False), dtype=bool),
            sources=(SourceFile.of(path),),
        )
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror or error}") from None
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from None
    except json.JSONDecodeError as error:
        raise LabelError(
            f"{path}: not valid JSON (line {error.lineno}: {error.msg}); is the download complete?"
        ) from None
    except KeyError as error:
        raise LabelError(f"{path}: not a COCO instances file (it lacks {error})") from None
    except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise LabelError(f"{path}: not a COCO instances file ({error})") from None


def _whole(value: object) -> int:
    """An id, which some files hold as text. Raises ValueError for a fraction."""
    if type(value) is int:
        return value
    number = int(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]  # others raise TypeError
    if number != int(number):
        raise ValueError(f"{value} is no whole number")
    return int(number)


def _box_of(annotation: dict[str, Any]) -> Sequence[float]:
    """The bbox; NaN where there is none, so that the object is counted and left out, not lost."""
    box: list[float] = annotation["bbox"] or [math.nan] * 4
    if len(box) != 4:
        raise ValueError(f"annotation {annotation['id']} has a bbox of {len(box)} numbers")
    return box


def _looked_up(annotations: Sequence[dict[str, Any]], key: str, meaning: Callable[[int], T], otherwise: T) -> list[T]:
    """What a number of each annotation means; `otherwise` where it has none. There are few different ones, so each is
    looked up once.
    """
    values = [annotation.get(key) for annotation in annotations]
    told = {value: otherwise if value is None else meaning(_whole(value)) for value in set(values)}
    return [told[value] for value in values]


def _without_polygons(mapping: dict[str, Any]) -> dict[str, Any]:
    """Drops each polygon as soon as it is parsed: they are nine tenths of instances_train2017.json, and nothing here
    reads them.
    """
    mapping.pop("segmentation", None)
    return mapping

"""COCO instances files: where each annotated object is, and in which photograph.

COCO 2014 and 2017 hold the same annotations under the same ids, dealt out to other files (2017's train is 2014's train + val − minival). So several
files are read as one table and joined by annotation id, whichever file or split the photograph ended up in.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable, SourceFile, without_year
from attrtrain.errors import LabelError
from attrtrain.vocabulary import AttributeVocabulary


@dataclass(frozen=True)
class CocoInstances:
    """Annotations of one or more instances files, by rising annotation id. Columns as in `ObjectTable`, each (M,) or (M, k)."""

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
        if without_year(image[row]) != without_year(named[row]):
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
            first = images.setdefault(int(image["id"]), image)
            if first is not image and first["file_name"] != image["file_name"]:
                raise ValueError(f"image id {image['id']} is both {first['file_name']} and {image['file_name']}")
        categories = {int(category["id"]): str(category["name"]) for category in content.get("categories", [])}
        annotations = content["annotations"]
        for annotation in annotations:
            if int(annotation["image_id"]) not in images:
                raise ValueError(
                    f"annotation {annotation['id']} is in image {annotation['image_id']}, which is not listed"
                )
            if len(annotation["bbox"]) != 4:
                raise ValueError(f"annotation {annotation['id']} has a bbox of {len(annotation['bbox'])} numbers")
        owners = [images[int(annotation["image_id"])] for annotation in annotations]
        return CocoInstances(
            annotation_id=np.array([annotation["id"] for annotation in annotations], dtype=np.int64),
            image_id=np.array([image["id"] for image in owners], dtype=np.int64),
            image=np.array([str(image["file_name"]) for image in owners], dtype=object),
            image_size=np.array(
                [(image.get("width", 0), image.get("height", 0)) for image in owners], dtype=np.int64
            ).reshape(-1, 2),
            box=np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4),
            category=np.array(
                [categories.get(annotation.get("category_id"), "") for annotation in annotations], dtype=str
            ),
            crowd=np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], dtype=bool),
            sources=(SourceFile.of(path),),
        )
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise LabelError(
            f"{path}: not valid JSON (line {error.lineno}: {error.msg}); is the download complete?"
        ) from None
    except KeyError as error:
        raise LabelError(f"{path}: not a COCO instances file (it lacks {error})") from None
    except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise LabelError(f"{path}: not a COCO instances file ({error})") from None


def _without_polygons(mapping: dict[str, Any]) -> dict[str, Any]:
    """Drops each polygon as soon as it is parsed: they are nine tenths of instances_train2017.json, and nothing here reads them."""
    mapping.pop("segmentation", None)
    return mapping

"""What is to be looked at: objects in photographs, out of a COCO instances file or a table of boxes. Imports no
torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.coco import read_instances
from attrtrain.annotations.table import SourceFile, check_texts
from attrtrain.annotations.tabular import read_boxes
from attrtrain.errors import LabelError


@dataclass(frozen=True)
class Objects:
    """N objects; those of one photograph lie beside each other.

    Attributes:
        object_id: (N,) int64, each once. COCO: the annotation id. A table without ids: the row's number, from 0.
        image: (N,) str, the photograph's name below one of the image folders.
        image_size: (N, 2) int64 its width and height in pixels as the annotation says, 0 where it says nothing.
        box: (N, 4) float64 x, y, width, height in pixels; may hold nonsense, which is left out and counted when it is
            cut.
        category: (N,) str, "" where unknown.
        crowd: (N,) bool, COCO's iscrowd.
        sources: the files they came from.
    """

    object_id: NDArray[np.int64]
    image: NDArray[Any]
    image_size: NDArray[np.int64]
    box: NDArray[np.float64]
    category: NDArray[Any]
    crowd: NDArray[np.bool_]
    sources: tuple[SourceFile, ...]

    def __len__(self) -> int:
        return len(self.object_id)

    def take(self, rows: NDArray[np.int64] | slice) -> "Objects":
        """Some objects, in that order."""
        columns = (field.name for field in fields(self) if field.name != "sources")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def photographs(self) -> Iterator[slice]:
        """The rows of each photograph: neighbours that have its name."""
        firsts = np.flatnonzero(np.r_[True, self.image[1:] != self.image[:-1], True]) if len(self) else np.zeros(0)
        return (slice(int(begin), int(end)) for begin, end in pairwise(firsts))


def read_objects(instances: Sequence[Path], boxes: Path | None) -> Objects:
    """Reads the objects of COCO instances files, or of a table of boxes (.csv, .tsv, .jsonl) with the columns that
    `attrtrain shard` knows.

    Photographs come in the order of their first object in the file (COCO: by annotation id), and so do the objects of
    one.

    Raises:
        LabelError: a file cannot be read or is of another kind, or names no object.
    """
    for path in (*instances, *([boxes] if boxes is not None else [])):
        if not path.is_file():
            raise LabelError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    objects = _of_table(boxes) if boxes is not None else _of_coco(instances)
    if not len(objects):
        raise LabelError(f"{', '.join(map(str, instances))}: holds no annotations")
    _, first, photograph = np.unique(objects.image, return_index=True, return_inverse=True)
    return objects.take(np.argsort(first[photograph], kind="stable"))


def _of_coco(paths: Sequence[Path]) -> Objects:
    read = read_instances(paths)
    try:
        check_texts(read.image, read.category)
    except LabelError as error:
        raise LabelError(f"{', '.join(map(str, paths))}: {error}") from None
    return Objects(read.annotation_id, read.image, read.image_size, read.box, read.category, read.crowd, read.sources)


def _of_table(path: Path) -> Objects:
    if path.suffix.lower() not in (".csv", ".tsv", ".jsonl"):
        raise LabelError(
            f"{path}: boxes are read from .csv, .tsv and .jsonl; COCO's .json is given with --instances instead"
        )
    read = read_boxes(path)
    return Objects(
        object_id=read.object_id,
        image=read.image,
        image_size=np.zeros((len(read.object_id), 2), dtype=np.int64),
        box=read.box,
        category=read.category,
        crowd=np.zeros(len(read.object_id), dtype=bool),
        sources=(read.source,),
    )

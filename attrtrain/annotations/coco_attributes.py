"""COCO Attributes label files, in every form in which they are found.

First layout: `ann_vecs` {patch id: vector}, `patch_id_to_ann_id` {patch id: COCO annotation id}, `split` {patch id:
"train2014" | "val2014"}, `attributes` [{id, name, supercategory}] in no order. Second layout: `ann_attrs` {annotation
id: {attrs_vector, split}}.

A value is the mean vote of the annotators (Patterson & Hays, "COCO Attributes", ECCV 2016); negative means nobody was
asked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.safe_pickle import load_pickle
from attrtrain.annotations.table import SourceFile, check_vote_shares, text_of
from attrtrain.errors import LabelError
from attrtrain.vocabulary import AttributeVocabulary

# The pickle of the authors' repository, data/cocottributes_eccv_version.pkl.
PUBLISHED_BYTES = 1_261_766_525
PUBLISHED_SHA256 = "5604b2a9bf14cf3d73b64e6fe602267a628ebe09f9fe0a94641b2745fdfeefbd"

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class CocoAttributes:
    """The content of a COCO Attributes label file, N objects in the file's order.

    Attributes:
        vocabulary: the A attributes, by rising id.
        annotation_ids: (N,) int64 COCO annotation ids; the same in COCO 2014 and 2017.
        splits: (N,) str, "train" or "val": the label file's own split, without its year.
        labels: (N, A) float32 vote shares in [0, 1], NaN = unknown.
        path: the file.
    """

    vocabulary: AttributeVocabulary
    annotation_ids: NDArray[np.int64]
    splits: NDArray[Any]
    labels: NDArray[np.float32]
    path: Path

    @cached_property
    def source(self) -> SourceFile:
        """The file with its checksum, which takes a second for a gigabyte and is therefore worked out when it is asked
        for.
        """
        return SourceFile.of(self.path)

    @property
    def note(self) -> str:
        """One line that says whether this is the published file."""
        if (size := self.path.stat().st_size) != PUBLISHED_BYTES:
            return (
                f"{self.path.name} is not the published COCO Attributes file "
                f"({size:,} bytes; the published one has {PUBLISHED_BYTES:,})"
            )
        digest = self.source.sha256
        if digest != PUBLISHED_SHA256:
            return (
                f"{self.path.name} has the size of the published COCO Attributes file "
                f"but other content (sha256 {digest[:12]}…)"
            )
        return f"{self.path.name} is the published COCO Attributes file (sha256 {digest[:12]}…)"


def read_coco_attributes(path: str | Path) -> CocoAttributes:
    """Reads a COCO Attributes file (.pkl of Python 2 or 3, .jbl of any joblib since 0.10) without running code from it.

    Raises:
        UnsafeFileError: the file names something other than plain data.
        LabelError: the file is missing, damaged, or has neither published layout.
    """
    path = Path(path)
    content = load_pickle(path)
    if not isinstance(content, Mapping):
        raise LabelError(f"{path}: holds a {type(content).__name__}, not the dictionary of a COCO Attributes file")
    try:
        if "ann_vecs" in content:
            ids, splits, vectors = _first_layout(content)
        elif "ann_attrs" in content:
            ids, splits, vectors = _second_layout(content)
        else:
            raise LabelError(
                f"has neither 'ann_vecs' nor 'ann_attrs' (keys: {', '.join(sorted(map(str, content)))}); not a COCO Attributes file"
            )
        vocabulary = AttributeVocabulary.from_records(content["attributes"])
        annotation_ids = np.array(ids, dtype=np.int64)
        labels = _matrix(vectors, len(vocabulary))
        check_vote_shares(labels, annotation_ids)
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from None
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise LabelError(
            f"{path}: not laid out as COCO Attributes files are ({type(error).__name__}: {error})"
        ) from None
    return CocoAttributes(vocabulary, annotation_ids, _split_names(splits), labels, path)


def _first_layout(content: Mapping[str, Any]) -> tuple[list[int], list[str], list[Any]]:
    vectors, annotation_of, split_of = content["ann_vecs"], content["patch_id_to_ann_id"], content["split"]
    for name, mapping in (("patch_id_to_ann_id", annotation_of), ("split", split_of)):
        # patch_id_to_ann_id is published as defaultdict(int): asking it for a missing patch would answer annotation 0.
        if missing := [patch for patch in vectors if patch not in mapping]:
            raise LabelError(
                f"{len(missing)} labelled patches are missing from '{name}' (first: patch {missing[0]}); the file is damaged"
            )
    return (
        [int(annotation_of[patch]) for patch in vectors],
        [split_of[patch] for patch in vectors],
        list(vectors.values()),
    )


def _second_layout(content: Mapping[str, Any]) -> tuple[list[int], list[str], list[Any]]:
    objects: Mapping[Any, Mapping[str, Any]] = content["ann_attrs"]
    return (
        [int(key) for key in objects],
        [entry["split"] for entry in objects.values()],
        [entry["attrs_vector"] for entry in objects.values()],
    )


def _matrix(vectors: list[Any], width: int) -> NDArray[np.float32]:
    """Stacks vectors into (N, A) float32 block by block, never holding all of them in float64 a second time; negative
    becomes NaN.
    """
    for row, vector in enumerate(vectors):
        if len(vector) != width:
            raise LabelError(f"object {row} has {len(vector)} labels, but the file lists {width} attributes")
    labels = np.empty((len(vectors), width), dtype=np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is no vote share either way
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = labels[start : start + _BLOCK_ROWS]
            np.concatenate(vectors[start : start + _BLOCK_ROWS], out=block.reshape(-1), casting="unsafe")
            block[block < 0] = np.nan
    return labels


def _split_names(splits: Iterable[str]) -> NDArray[Any]:
    return np.array([text_of(split).removesuffix("2014").removesuffix("2017") for split in splits], dtype=object)

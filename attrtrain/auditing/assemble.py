"""Objects and what is known of them → the whole audit."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations.table import ObjectTable
from attrtrain.auditing.boxes import odd_boxes
from attrtrain.auditing.counts import (
    NO_SPLIT,
    count_categories,
    count_splits,
    label_counts,
    labels_by_split,
    rate_summary,
    torn_photographs,
)
from attrtrain.auditing.description import describe, sample_photographs
from attrtrain.auditing.document import AttributeEntry, AuditDocument, Coverage, EvidenceEntry, Pictures
from attrtrain.auditing.findings import findings_of
from attrtrain.auditing.held_out import HeldOut, held_out_test
from attrtrain.auditing.noise_test import CO_OCCURRENCE, PHOTOGRAPHS, PIXELS, SIDE, Evidence, judge, label_evidence
from attrtrain.auditing.permutation import PermutationTest
from attrtrain.auditing.pictures import compare_pictures, hash_crops, hash_photographs
from attrtrain.auditing.relations import find_relations
from attrtrain.auditing.votes import attribute_notes, describe_votes

LABEL_OBJECTS = 2000
"""Objects the tests on the label file look at; drawn by photograph."""
PERMUTATIONS = 399
_MOST_CROPS = 20_000

UNITS = {
    CO_OCCURRENCE: "correlation between attributes (root mean square), above chance",
    PHOTOGRAPHS: "correlation between two objects of one photograph, above chance",
    SIDE: "mean AUROC above 0.5",
    PIXELS: "mean AUROC above 0.5",
    "": "",
}

FeaturesOf = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        kind: what `audited` names.
        audited: the files or the folder.
        table: the objects.
        coverage: None where labels have boxes of their own.
        jpeg: gives the stored crop of a row, None where there are no shards.
    """

    kind: Literal["labels", "shards"]
    audited: list[str]
    table: ObjectTable
    coverage: Coverage | None
    jpeg: Callable[[int], bytes] | None


def audit(
    subject: Subject, image_folders: list[Path | str], features_of: FeaturesOf | None, pixel_objects: int, seed: int = 0
) -> AuditDocument:
    """Makes the whole audit.

    Args:
        subject: what is audited.
        image_folders: where whole photographs are; without any, pictures are compared by crops, or not at all.
        features_of: gives features (K, D) of the crops of some rows (K,), for the test on pixels; None leaves it out.
        pixel_objects: crops that test looks at.
        seed: chooses samples, folds and shuffles.
    """
    pictures, table = _pictures(subject, image_folders)
    evidence, tests = _evidence(table, features_of, pixel_objects, seed)
    judgement = judge(evidence)
    positives, negatives, _ = label_counts(table.labels)
    document = AuditDocument(
        **asdict(judgement),
        effect_unit=UNITS[judgement.decided_by],
        audited=subject.audited,
        kind=subject.kind,
        objects=len(table),
        images=len(np.unique(table.image_id)),
        known_share=float(1 - np.isnan(table.labels).mean()) if len(table) else 0.0,
        findings=[],
        tests=tests,
        splits=count_splits(table.split, table.image_id),
        attributes=_attributes(table, evidence),
        rates=rate_summary(positives, negatives),
        categories=count_categories(table.category, table.split, table.image_id),
        torn=torn_photographs(table),
        pictures=pictures,
        boxes=odd_boxes(table),
        relations=find_relations(table.labels, table.vocabulary.names),
        votes=describe_votes(table.labels),
        coverage=subject.coverage,
    )
    return document.model_copy(update={"findings": findings_of(document)})


def _evidence(
    table: ObjectTable, features_of: FeaturesOf | None, pixel_objects: int, seed: int
) -> tuple[Evidence, list[EvidenceEntry]]:
    """Makes the tests; p-values of those on the label file are adjusted for their number."""
    rows = sample_photographs(table.image_id, LABEL_OBJECTS, seed)
    description = describe(table.category[rows], table.box[rows], table.image_size[rows])
    evidence = label_evidence(table.labels[rows], description, table.image_id[rows], PERMUTATIONS, seed)
    tests = [_entry(name, test, len(rows), evidence.adjusted_p(name)) for name, test in evidence.of_label_file.items()]
    if features_of is not None:
        rows = sample_photographs(table.image_id, pixel_objects, seed)
        pixels = held_out_test(features_of(rows), table.labels[rows], table.image_id[rows], PERMUTATIONS, seed)
        if pixels is not None:
            evidence = replace(evidence, pixels=pixels)
            tests.append(_entry(PIXELS, pixels, len(rows), pixels.p_value))
    return evidence, tests


def _entry(name: str, test: PermutationTest, objects: int, p_value: float) -> EvidenceEntry:
    held_out = test if isinstance(test, HeldOut) else None
    return EvidenceEntry(
        name=name,
        effect=test.effect,
        effect_unit=UNITS[name],
        p_value=p_value,
        detectable=test.detectable,
        permutations=len(test.null),
        objects=objects,
        judged=None if held_out is None else int((~np.isnan(held_out.auroc)).sum()),
        above_chance=None if held_out is None else held_out.above_chance,
        power=None if held_out is None else held_out.power,
    )


def _attributes(table: ObjectTable, evidence: Evidence) -> list[AttributeEntry]:
    positives, negatives, unknowns = label_counts(table.labels)
    notes, by_split = attribute_notes(table.labels), labels_by_split(table.labels, table.split)

    def auroc(test: HeldOut | None, column: int) -> float | None:
        return None if test is None or np.isnan(test.auroc[column]) else float(test.auroc[column])

    return [
        AttributeEntry(
            name=name,
            positives=int(positives[column]),
            negatives=int(negatives[column]),
            unknowns=int(unknowns[column]),
            rate=float(positives[column] / known) if (known := positives[column] + negatives[column]) else None,
            auroc_side=auroc(evidence.side, column),
            auroc_pixels=auroc(evidence.pixels, column),
            by_split=by_split[column],
            notes=notes[column],
        )
        for column, name in enumerate(table.vocabulary.names)
    ]


def _pictures(subject: Subject, folders: list[Path | str]) -> tuple[Pictures, ObjectTable]:
    """Compares pictures; where whole photographs are read, their sizes are filled in for objects whose annotation has
    none.
    """
    table = subject.table
    names, number = np.unique(table.image, return_inverse=True)
    splits = [
        " + ".join(sorted(set(group))) or NO_SPLIT
        for group in np.split(table.split[np.argsort(number, kind="stable")], np.cumsum(np.bincount(number))[:-1])
    ]
    if folders:
        hashed = hash_photographs(names.tolist(), folders)
        sizes = np.array([(0, 0) if entry is None else entry.size for entry in hashed], dtype=np.int64)
        missing = (table.image_size == 0).any(axis=1)
        table = replace(table, image_size=np.where(missing[:, None], sizes[number], table.image_size))
        return compare_pictures("photographs", names.tolist(), splits, hashed), table
    if subject.jpeg is None:
        note = "no photographs were given; --images compares them"
        return Pictures(
            compared="nothing", pictures=0, groups=0, across_splits=0, examples=[], unreadable=0, note=note
        ), table
    rows, note = np.arange(len(table)), "crops are compared; --images compares whole photographs"
    if len(rows) > _MOST_CROPS:
        largest = np.lexsort((-table.box[:, 2] * table.box[:, 3], number))
        rows = largest[np.unique(number[largest], return_index=True)[1]]
        note = "the largest crop of each photograph is compared; --images compares whole photographs"
    hashed = hash_crops(subject.jpeg, rows.tolist())
    crop_splits = [splits[image] for image in number[rows]]
    return compare_pictures("crops", table.image[rows].tolist(), crop_splits, hashed, note), table

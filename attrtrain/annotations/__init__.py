"""Label files of every supported format → `ObjectTable`. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from attrtrain.annotations import coco, coco_attributes, tabular, vaw
from attrtrain.annotations.table import ObjectTable, one_id_a_photograph
from attrtrain.downloads import head_of, left_instead
from attrtrain.errors import LabelError
from attrtrain.urls import is_url, local_copies

SUFFIXES = frozenset({".pkl", ".pickle", ".jbl", ".joblib", ".csv", ".tsv", ".jsonl", ".json"})


def read_labels_at(labels: Sequence[Path | str], instances: Sequence[Path | str]) -> tuple[ObjectTable, str]:
    """Reads label files at paths or URLs, as `read_labels` does; messages name what was given.

    Raises:
        LabelError: as there, or a URL cannot be copied to this machine.
        ShardError: a URL cannot be read.
    """
    places = [*labels, *instances]
    try:
        with local_copies(places) as files:
            try:
                return read_labels(files[: len(labels)], files[len(labels) :])
            except LabelError as error:
                message = str(error)
                for place, file in zip(places, files, strict=True):
                    message = message.replace(str(file), str(place))  # what the user gave, not our copy of it
                raise LabelError(message) from None
    except FileNotFoundError as error:
        raise LabelError(f"{error.filename}: no such file") from None
    except OSError as error:
        if not any(map(is_url, places)):
            raise LabelError(f"{error.filename}: {error.strerror}") from None
        raise LabelError(f"label files cannot be copied here: {error}; TMPDIR names the folder to copy to") from None


def read_labels(labels: Sequence[Path], instances: Sequence[Path]) -> tuple[ObjectTable, str]:
    """Reads label files of whichever format their names tell, joined to COCO annotations where the format needs them.

    Args:
        labels: one COCO Attributes file (.pkl, .jbl), one table (.csv, .tsv, .jsonl), or VAW files (.json).
        instances: COCO instances files; for COCO Attributes only.

    Returns:
        The table, and a line about where the labels come from ("" where there is nothing to say).

    Raises:
        LabelError: the files do not fit together or cannot be read.
    """
    for path in (*labels, *instances):
        if not path.is_file():
            raise LabelError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
        if told := left_instead(head_of(path)):
            raise LabelError(f"{path}: {told}")
    suffixes = {path.suffix.lower() for path in labels}
    if len(suffixes) > 1 or (len(labels) > 1 and suffixes != {".json"}):
        raise LabelError(
            f"--labels {' '.join(map(str, labels))}: several label files are only read together when they are VAW's .json"
        )
    match suffixes.pop():
        case ".pkl" | ".pickle" | ".jbl" | ".joblib":
            if not instances:
                raise LabelError(
                    f"{labels[0]}: COCO Attributes names objects by COCO annotation id; give --instances instances_train2017.json instances_val2017.json"
                )
            read = coco_attributes.read_coco_attributes(labels[0])
            table = coco.join(
                read.vocabulary,
                read.annotation_ids,
                read.splits,
                read.labels,
                (read.source,),
                coco.read_instances(instances),
            )
            return one_id_a_photograph(table), read.note
        case ".csv" | ".tsv" | ".jsonl":
            table = tabular.read_table(labels[0])
        case ".json":
            table = one_id_a_photograph(vaw.read_vaw(labels))
        case suffix:
            raise LabelError(
                f"{labels[0]}: unknown kind of label file '{suffix}'; known: .pkl .jbl (COCO Attributes), .csv .tsv .jsonl, .json (VAW)"
            )
    if instances:
        raise LabelError(f"{labels[0]}: has boxes of its own, so --instances is not needed; leave it out")
    return table, ""

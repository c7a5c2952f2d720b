"""A COCO file with the attributes of each object beside what it held."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from attrtrain.errors import LabelError
from attrtrain.files import atomic_write, remove_partials
from attrtrain.inference.captions import present
from attrtrain.inference.results import opened, read_info, scores_of


def write_coco(instances: Path, result: Path, out: Path) -> int:
    """Writes a COCO instances file once more, all it held as it was, each annotation with a list `attributes`: the
    names whose score reaches the threshold, the likeliest first; and `caption` where the result has captions. An
    annotation that was left out, such as a crowd, gets neither. What annotations had under such a name before, as
    labelling tools write it, is taken out: beside ours nobody could tell whose it is.

    Returns:
        How many annotations had that.

    Raises:
        LabelError: the file cannot be written, or has changed since it was annotated.
    """
    try:
        content: dict[str, Any] = json.loads(instances.read_bytes())
        told = _told(result)
        names = ("attributes", "caption") if read_info(result).job.captions else ("attributes",)
        replaced = 0
        for annotation in content["annotations"]:
            own = [name for name in names if annotation.pop(name, None) is not None]
            replaced += bool(own)
            annotation.update(told.get(int(annotation["id"]), {}))
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(out.parent, {out.name})  # of a run that was killed while it wrote, as large as the file
        with atomic_write(out) as file:
            file.write(json.dumps(content).encode())
        return replaced
    except OSError as error:
        raise LabelError(f"{error.filename or out}: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(f"{instances}: has changed while it was read ({type(error).__name__}: {error})") from None


def _told(result: Path) -> dict[int, dict[str, Any]]:
    """For each object that has a row: its attributes, and its caption."""
    info = read_info(result)
    thresholds = [attribute.threshold for attribute in info.attributes]
    told = {}
    with pq.ParquetFile(opened(result)) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            captions = table.column("caption").to_pylist() if info.job.captions else [None] * len(table)
            rows = zip(table.column("object_id").to_pylist(), scores_of(table, info).tolist(), captions, strict=True)
            for object_id, scores, caption in rows:
                names = [info.attributes[column].name for column in present(scores, thresholds)]
                told[object_id] = {"attributes": names, **({"caption": caption} if caption is not None else {})}
    return told

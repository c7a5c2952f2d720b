"""A COCO file written once more, with what a result says of each annotation."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from attrtrain.errors import LabelError
from attrtrain.inference.coco_out import write_coco
from attrtrain.inference.parts import Parts, open_parts
from attrtrain.inference.results import AttributeColumn, Job, ResultInfo
from attrtrain.shards.manifest import CropSettings


def result(folder: Path, captions: bool) -> Path:
    """Of objects 7 and 3, in two parts."""
    thresholds = [0.5, 0.3, 1.0]
    job = Job(
        kind="attributes", model="m", precision="no", thresholds=thresholds, objects="o", images=[], captions=captions
    )
    columns = zip(("furry", "wet", "never"), ("furry", "wet (2)", "never"), thresholds, strict=True)
    info = ResultInfo(
        job=job, threshold_note="", crop=CropSettings(store_px=48, quality=85, context=0.1),
        attributes=[AttributeColumn(name=name, column=column, threshold=least, group="") for name, column, least in columns],
    )  # fmt: skip
    with open_parts(folder / "p.parquet", job) as parts:
        assert isinstance(parts, Parts)
        for object_id, scores in ((7, [0.6, 0.9, 1.0]), (3, [0.5, 0.2, 1.0])):
            told: dict[str, Any] = {"object_id": [object_id]}
            if captions:
                told["caption"] = [f"caption of {object_id}"]
            named = {
                one.column: pa.array([score], pa.float32()) for one, score in zip(info.attributes, scores, strict=True)
            }
            parts.add(pa.table({**told, **named}), [])
        parts.merge(info)
    return folder / "p.parquet"


@pytest.mark.parametrize("captions", [True, False])
def test_each_annotation_has_what_the_result_says_of_it_and_nothing_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captions: bool
) -> None:
    monkeypatch.setattr("attrtrain.inference.parts._ROW_GROUP", 1)  # so that there are several, as of many objects
    before = [
        {"id": 3, "bbox": [1, 2, 3, 4], "attributes": {"occluded": True}, "caption": "theirs"},
        {"id": 5, "iscrowd": 1, "caption": "theirs"},
        {"id": 7, "bbox": [0, 0, 1, 1], "note": "stays"},
    ]
    (tmp_path / "i.json").write_text(json.dumps({"info": {"year": 2014}, "images": [], "annotations": before}))
    replaced = write_coco(tmp_path / "i.json", result(tmp_path, captions), tmp_path / "new" / "out.json")
    assert replaced == (2 if captions else 1)
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    expected: list[dict[str, Any]] = [
        {"id": 3, "bbox": [1, 2, 3, 4], "attributes": ["furry"], "caption": "caption of 3" if captions else "theirs"},
        {"id": 5, "iscrowd": 1} if captions else before[1],
        {"id": 7, "bbox": [0, 0, 1, 1], "note": "stays", "attributes": ["wet", "furry"]},
    ]
    if captions:
        expected[2]["caption"] = "caption of 7"
    assert written == {"info": {"year": 2014}, "images": [], "annotations": expected}


WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from attrtrain.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_while_it_was_written_left_goes_with_the_next_run(tmp_path: Path) -> None:
    preds, folder = result(tmp_path, captions=False), tmp_path / "new"
    (tmp_path / "i.json").write_text('{"annotations": []}')
    folder.mkdir()
    for name in ("out.json", "others.json"):
        killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, folder / name])
        assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 2
    write_coco(tmp_path / "i.json", preds, folder / "out.json")
    left, written = sorted(path.name for path in folder.iterdir())
    assert left.startswith(".others.json.") and written == "out.json"


@pytest.mark.parametrize(
    ("content", "told"),
    [("{", "has changed while it was read"), ('{"images": []}', "has changed"), ('{"annotations": [{}]}', "has changed"),
     ("[]", "has changed"), (None, "No such file")],
)  # fmt: skip
def test_a_file_that_has_changed_since_it_was_annotated_is_one_line(
    tmp_path: Path, content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "i.json").write_text(content)
    with pytest.raises(LabelError, match=told) as caught:
        write_coco(tmp_path / "i.json", result(tmp_path, False), tmp_path / "out.json")
    assert str(caught.value).startswith(f"{tmp_path / 'i.json'}: ") and "\n" not in str(caught.value)
    assert not (tmp_path / "out.json").exists()

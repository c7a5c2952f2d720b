"""The commands and snippets of docs/use.md, as they stand there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from tests.bundles import NAMES, draw_bundle
from tests.pages import blocks, commands


def test_what_the_page_says_runs(
    toy_coco: Path,
    toy_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    attributes = len(ShardSet([toy_shards], "val").vocabulary)
    names = (*NAMES, *(f"attribute {number}" for number in range(attributes - len(NAMES))))
    draw_bundle(tmp_path / "runs" / "coco" / "bundle", names)
    (tmp_path / "shards").mkdir()
    for name, target in (
        ("shards/coco", toy_shards),
        ("val2017", toy_coco / "val2017"),
        ("photos", toy_coco / "val2017"),
    ):
        (tmp_path / name).symlink_to(target)
    shutil.copy(toy_coco / "annotations" / "instances_val2017.json", tmp_path)
    photograph = min((toy_coco / "val2017").glob("*.jpg"))
    (tmp_path / "boxes.csv").write_text(
        f"file_name,x,y,w,h\n{photograph.name},1,2,30,40\n{photograph.name},5,5,20,20\n"
    )
    Image.open(photograph).resize((640, 480)).save(tmp_path / "photo.jpg")
    some_id = re.search(r'"id": (\d+), "image_id"', (tmp_path / "instances_val2017.json").read_text())
    assert some_id is not None
    typed = commands("use.md")
    assert len(typed) == 7
    for command in typed:
        words = shlex.split(command.replace("10782", some_id[1]))
        assert words[0] == "attrtrain" and main(words[1:]) == 0, command
    written = {
        "preds.parquet",
        "labelled.json",
        "mine.parquet",
        "features.parquet",
        "features.npy",
        "features.objects.parquet",
        "found.html",
    }
    assert written <= {path.name for path in tmp_path.iterdir()}
    capsys.readouterr()
    snippets = blocks("use.md", "python")
    assert len(snippets) == 2
    for snippet in snippets:
        scope: dict[str, object] = {}
        exec(snippet, scope)
    assert scope["scores"].shape == (1, attributes) and scope["features"].shape == (1, 512)  # type: ignore[attr-defined]

"""The commands of docs/train.md and docs/evaluate.md, one after the other, as they stand there; trainings are made
small by flags behind them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import commands

SMALL = "--data.image_px 32 --model.backbone resnet18 --model.weights none --train.global_batch 16 --train.epochs 1 --track.wandb disabled"


@pytest.mark.slow
def test_what_the_pages_say_runs(toy_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "coco").symlink_to(toy_shards)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    training, judging = commands("train.md"), commands("evaluate.md")
    assert len(training) == 7 and len(judging) == 9
    for command in [*training, *judging]:
        words = f"{command} {SMALL}" if "-m attrtrain.train" in command else command
        result = subprocess.run(
            ["bash", "-c", words], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PATH": path}
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    for run in ("coco", "mine", "augmented", "two", "averages"):
        assert (tmp_path / "runs" / run / "result.json").is_file()
    assert (tmp_path / "compare.html").is_file()

    def found(folder: str) -> dict:
        return json.loads((tmp_path / folder / "metrics.json").read_text())

    same = found("results/val")["overall"]["map"]
    assert (
        found("runs/coco/evaluation")["overall"]["map"]
        == same
        == pytest.approx(found("results/scored")["overall"]["map"])
    )
    assert found("results/tuned")["tuned_on"] == "thresholds tuned on split 'train'"

"""Training with every augmentation, through the commands people type: what is said, what the bundle keeps, and going on
exactly.
"""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attrtrain.cli import main
from attrtrain.framing import Framing
from tests.small_training import train_command

FLAGS = (  # as people type them
    "--data.image_px 32 --model.backbone resnet18 --model.weights none --train.global_batch 16 --train.epochs 1 --track.wandb disabled "
    "--data.context 0.1 --data.fit pad --data.jitter 0.2 --data.rotate 10 --data.scales 1 1.5 --data.augment trivial --data.erase 0.5 --data.mixup 0.2 "
    "--data.cutmix 1 --checkpoint.every_steps 4 --checkpoint.keep_last 9 --data.workers 1"
)


def train(run: Path, shards: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(train_command(run, shards, *FLAGS.split(), *flags), capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_with_every_augmentation_goes_on_exactly_and_keeps_what_the_network_sees(
    wide_shards: Path, toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(tmp_path / "whole", wide_shards)
    assert whole.returncode == 0, whole.stderr
    assert "data.augment trivial contradicts" in whole.stdout  # toy attributes have colours in their names
    checkpoint = sorted((tmp_path / "whole" / "checkpoints").glob("step-*4"))[0]
    again = train(tmp_path / "again", wide_shards, "--checkpoint.resume", str(checkpoint), "--data.workers", "0")
    assert again.returncode == 0 and "going on from" in again.stdout, again.stderr
    first, second = (load_file(tmp_path / run / "bundle" / "weights.safetensors") for run in ("whole", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)

    card = json.loads((tmp_path / "whole" / "bundle" / "model.json").read_text())
    assert Framing(**card["framing"]) == Framing(context=0.1, fit="pad")
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    out = tmp_path / "out"
    assert main(["evaluate", "--model", str(tmp_path / "whole"), "--shards", str(wide_shards), "--out", str(out)]) == 0
    assert json.loads((out / "metrics.json").read_text())["overall"]["map"] == result["val"]["map"]
    picture = next((toy_coco / "val2017").iterdir())
    assert main(["predict", "--model", str(tmp_path / "whole"), str(picture), "--box", "5,5,40,30"]) == 0


def test_what_cannot_be_done_is_one_line(wide_shards: Path, tmp_path: Path) -> None:
    for flags, told in (
        (("--data.context", "0.7"), "data.context: 0.7 is more than the 0.5 that the shards store"),
        (("--train.micro_batch", "1"), "data.mixup and data.cutmix mix the objects of a micro-batch"),
    ):
        refused = train(tmp_path / "run", wide_shards, *flags)
        assert refused.returncode == 2 and refused.stderr.startswith("error: ") and told in refused.stderr
        assert refused.stderr.count("\n") == 1 and not (tmp_path / "run" / "config.yaml").exists()

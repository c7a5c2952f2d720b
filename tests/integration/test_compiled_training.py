"""Runs that are compiled for a while: they take up each other's checkpoints, and leave plain bundles."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import train

from attrtrain.bundle import read_bundle
from tools.soak_resume import metrics

PLAIN = ("--train.precision", "no", "--optim.schedule", "constant", "--track.every_steps", "1")


@pytest.mark.slow
def test_compiling_can_be_switched_on_and_off_between_restarts(toy_shards: Path, tmp_path: Path) -> None:
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    cache = {"TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))}
    result = train(plain, toy_shards, *PLAIN, "--train.epochs", "3")
    assert result.returncode == 0, result.stderr
    for epochs, compiled in (("1", "false"), ("2", "true"), ("3", "false")):
        result = train(mixed, toy_shards, *PLAIN, "--train.epochs", epochs, "--train.compile", compiled, env=cache)
        assert result.returncode == 0, result.stderr
        assert epochs == "1" or "going on from" in result.stdout
    losses = [[line["loss"] for line in metrics(run) if line["kind"] == "train"] for run in (plain, mixed)]
    per_epoch = len(losses[0]) // 3
    assert losses[1][:per_epoch] == losses[0][:per_epoch]  # nothing was compiled yet
    assert losses[1][per_epoch] == pytest.approx(losses[0][per_epoch], rel=1e-4)  # the same weights, compiled
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    names = [load_file(run / "bundle" / "weights.safetensors").keys() for run in (plain, mixed)]
    assert names[0] == names[1]
    model, _ = read_bundle(mixed)
    assert torch.isfinite(model(torch.zeros((1, 3, 32, 32)))).all()
    assert json.loads((mixed / "result.json").read_text())["val"]["map"] is not None

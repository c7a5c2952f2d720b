"""What a pretrained backbone is tuned with: frozen groups, rates by layer, the head alone at first, activations
computed again.
"""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attrtrain.engine import resume
from tests.small_training import train

TUNED = [
    *("--model.backbone", "timm:test_resnet", "--model.frozen", "2", "--train.ema", "0.9", "--data.image_px", "64"),
    *("--optim.layer_decay", "0.7", "--optim.head_epochs", "0.5", "--train.checkpoint_activations", "true"),
]  # fmt: skip


def last(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "checkpoints").glob("step-*"))[-1] / f"{name}.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tuned") / "whole"
    assert train(run, toy_shards, *TUNED, "--train.epochs", "2") == 0
    return run


def test_gone_on_with_in_the_epoch_of_the_head_it_ends_with_the_same_weights(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (*TUNED, "--checkpoint.every_steps", "1")
    assert train(tmp_path / "run", toy_shards, *flags, "--train.epochs", "1") == 0
    capsys.readouterr()
    assert train(tmp_path / "run", toy_shards, *flags, "--train.epochs", "2") == 0
    assert "going on from" in capsys.readouterr().out
    for name in ("model", "average"):
        assert equal(last(tmp_path / "run", name), last(whole, name))


def test_what_is_frozen_is_in_the_bundle_as_it_began(whole: Path) -> None:
    """Statistics of the stem began at 0 and 1; of what learns they have moved."""
    shipped = load_file(whole / "bundle" / "weights.safetensors")
    still = {name for name, tensor in shipped.items() if re.search("running_mean", name) and not tensor.any()}
    moved = {name for name in shipped if "running_mean" in name} - still
    assert still and moved
    assert all(name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1.0")) for name in still)


def test_the_head_alone_learns_at_first(toy_shards: Path, tmp_path: Path) -> None:
    flags = (*TUNED[:2], "--train.epochs", "2", "--checkpoint.every_epochs", "1", "--optim.head_epochs", "1")
    assert train(tmp_path / "run", toy_shards, *flags) == 0
    first, second = (
        load_file(one / "model.safetensors") for one in sorted((tmp_path / "run/checkpoints").glob("step-*"))
    )
    assert train(tmp_path / "probe", toy_shards, *TUNED[:2], "--train.epochs", "1", "--model.frozen", "-1") == 0
    begun = last(tmp_path / "probe")  # what never learnt is what the seed drew
    learnt = {name for name in begun if name.endswith("weight") and not torch.equal(first[name], begun[name])}
    assert learnt == {"head.weight"}
    assert not torch.equal(second["backbone.layer1.0.conv1.weight"], first["backbone.layer1.0.conv1.weight"])


def test_rates_by_layer_may_change_when_a_run_goes_on_and_so_may_the_groups_of_an_older_one(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = resume.identity

    def before_there_was_frozen(*words: object) -> dict[str, object]:
        told = now(*words)  # type: ignore[arg-type]
        told["model"].pop("frozen")
        return told

    with monkeypatch.context() as patched:
        patched.setattr(resume, "identity", before_there_was_frozen)
        assert train(tmp_path / "run", toy_shards, *TUNED[:2], "--train.epochs", "1") == 0
    capsys.readouterr()
    assert train(tmp_path / "run", toy_shards, *TUNED[:2], "--train.epochs", "2", "--optim.layer_decay", "0.5") == 0
    told = capsys.readouterr().out
    assert "going on from" in told and "optim.layer_decay: 1.0 → 0.5" in told
    assert train(tmp_path / "run", toy_shards, *TUNED[:2], "--train.epochs", "3", "--model.frozen", "1") == 1
    assert "belongs to another run (model: " in capsys.readouterr().err

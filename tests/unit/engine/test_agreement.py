"""Processes that would train on other things than the main one are refused, all of them, before anything is done."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attrtrain.config.schema import TrainConfig
from attrtrain.data.reader import ShardSet
from attrtrain.engine.agreement import require_same_settings, require_same_shards
from attrtrain.errors import ConfigError, ShardError


def beside(main: str, others: bool = False) -> Any:
    """This process, where the main one tells that, and others have nothing or something to complain of."""
    return SimpleNamespace(from_main=lambda _: [main], any_rank=lambda flag: [flag or others])


def changed(section: str, **values: object) -> TrainConfig:
    config = TrainConfig()
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


MAIN = json.dumps(dataclasses.asdict(TrainConfig()))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (changed("run", seed=3), r"run\.seed: 3 here, 0 there"),
        (changed("train", epochs=3, ema=0.9), r"train\.epochs: 3 here, 10 there; train\.ema: 0\.9 here, 0\.0 there"),
        (changed("checkpoint", every_steps=5), r"checkpoint\.every_steps: 5 here, 0 there"),
        (changed("track", every_steps=5), r"track\.every_steps: 5 here, 10 there"),
    ],
)
def test_other_settings_than_the_main_processs_are_refused_and_named(config: TrainConfig, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        require_same_settings(beside(MAIN), config)


def test_all_processes_stop_where_one_has_other_settings() -> None:
    with pytest.raises(ConfigError, match="their logs name them"):
        require_same_settings(beside(MAIN, others=True), TrainConfig())


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        changed("run", dir="/mnt/runs/coco"),
        changed("data", shards=["/scratch/coco"], cache_dir="/scratch", cache_gb=1.0, workers=3),
        changed("model", weights="/scratch/resnet50.pth"),
        changed("track", notes="the second machine"),
    ],
    ids=["equal", "run", "data", "weights", "track"],
)
def test_what_machines_may_have_of_their_own_is_let_be(config: TrainConfig) -> None:
    require_same_settings(beside(MAIN), config)


def test_other_shards_than_the_main_processs_are_refused_wherever_they_lie(toy_shards: Path, wide_shards: Path) -> None:
    own = ShardSet([toy_shards], "train")
    require_same_shards(beside(ShardSet([toy_shards], "val").fingerprint), own)
    with pytest.raises(ShardError, match=rf"{toy_shards}: here they are other shards"):
        require_same_shards(beside(ShardSet([wide_shards], "train").fingerprint), own)
    with pytest.raises(ShardError, match=rf"{toy_shards}: for another process they are other shards"):
        require_same_shards(beside(own.fingerprint, others=True), own)

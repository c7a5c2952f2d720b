"""Which settings of a run that goes on would give other numbers."""

import dataclasses

import pytest

from attrtrain.config.changes import changes_numbers
from attrtrain.config.schema import TrainConfig


def changed(section: str, **values: object) -> TrainConfig:
    config = TrainConfig()
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


@pytest.mark.parametrize(
    "config",
    [
        changed("labels", positive_at=0.3),
        changed("labels", unknown="negative"),
        changed("labels", selective_below=0.1),
        changed("data", flip=0.0),
        changed("loss", smoothing=0.1),
        changed("model", dropout=0.1),
        changed("optim", lr=1e-5),
        changed("train", clip_norm=0.0),
    ],
    ids=lambda config: next(
        f"{section.name}.{knob}"
        for section in dataclasses.fields(config)
        for knob, value in dataclasses.asdict(getattr(config, section.name)).items()
        if value != getattr(getattr(TrainConfig(), section.name), knob)
    ),
)
def test_what_decides_a_step_or_a_judgement_changes_numbers(config: TrainConfig) -> None:
    assert changes_numbers(dataclasses.asdict(TrainConfig()), config)
    assert not changes_numbers(dataclasses.asdict(config), config)


@pytest.mark.parametrize(
    "config",
    [
        changed("run", dir="elsewhere"),
        changed("data", shards=["elsewhere"], workers=3, cache_dir="elsewhere", cache_gb=1.0),
        changed("audit", strict=True),
        changed("checkpoint", every_steps=5, keep_last=9),
        changed("track", every_steps=1, notes="some"),
    ],
    ids=["run", "data", "audit", "checkpoint", "track"],
)
def test_where_a_run_lies_and_how_it_is_told_of_changes_no_numbers(config: TrainConfig) -> None:
    assert not changes_numbers(dataclasses.asdict(TrainConfig()), config)

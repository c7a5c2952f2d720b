"""What a checkpoint and the run that goes on from it must have in common, also where the checkpoint is older than a
setting.
"""

import dataclasses

from attrtrain.config.schema import ModelConfig
from attrtrain.engine.resume import _newer_model_settings

FIRST = {"backbone", "head", "hidden", "dropout"}  # which every checkpoint has


def test_every_setting_of_the_model_that_came_later_has_a_meaning_for_older_checkpoints() -> None:
    newer = _newer_model_settings()
    assert FIRST | set(newer) == {knob.name for knob in dataclasses.fields(ModelConfig)} - {"weights"}
    assert all(value == getattr(ModelConfig(), name) for name, value in newer.items())

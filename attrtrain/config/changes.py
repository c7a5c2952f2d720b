"""What differs between two configurations, and what of it decides numbers."""

from dataclasses import asdict
from typing import Any

from attrtrain.config.schema import TrainConfig

Key = tuple[str, str]
"""Section and name of a setting."""

_DECIDING = ("data", "labels", "loss", "model", "optim", "train")
_DECIDING_NOTHING = {("data", name) for name in ("shards", "workers", "cache_dir", "cache_gb")}
_PLACES = {("model", "weights"), ("checkpoint", "resume")}  # which machines may call by other names


def changes(before: dict[str, Any], config: TrainConfig) -> dict[Key, tuple[Any, Any]]:
    """Settings that differ from earlier ones, given by section and name: what each was, and what it is."""
    return {
        (section, name): (old, value)
        for section, knobs in asdict(config).items()
        for name, value in knobs.items()
        if (old := (before.get(section) or {}).get(name)) != value
    }


def decides_numbers(key: Key) -> bool:
    """Whether a setting decides a step or a judgement of a run that has begun: seed and shards stay as they were."""
    return key[0] in _DECIDING and key not in _DECIDING_NOTHING


def changes_numbers(before: dict[str, Any], config: TrainConfig) -> bool:
    """Whether settings that decide a step or a judgement differ from earlier ones, given by section and name."""
    return any(map(decides_numbers, changes(before, config)))


def is_of_all(key: Key) -> bool:
    """Whether all processes of a run must have a setting alike: it decides numbers, or when they do what takes all."""
    together = key[0] == "checkpoint" or key in (("run", "seed"), ("track", "every_steps"))
    return (together or decides_numbers(key)) and key not in _PLACES

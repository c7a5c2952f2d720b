"""Which attributes an augmentation contradicts, by whole words of their names."""

from dataclasses import replace

import pytest

from attrtrain.config.schema import DataConfig
from attrtrain.data.augment import Augmentation
from attrtrain.data.meaning import contradictions, mirrored_columns, mirroring
from attrtrain.errors import ConfigError

NAMES = (
    "left_wrist_visible", "nose", "right_wrist_visible", "left-facing", "leftover", "bright red", "redhead", "upside down", "upsidedown", "tiny", "destiny",
    "Left Eye", "Right Eye", "brightly lit", "turned LEFT",
)  # fmt: skip
QUIET = DataConfig(flip=0.0)


def told(**settings: object) -> str:
    return "\n".join(contradictions(NAMES, replace(QUIET, **settings)))


def test_nothing_is_said_where_nothing_is_done() -> None:
    assert contradictions(NAMES, QUIET) == []
    assert contradictions(("furry", "leftover"), DataConfig()) == []


def test_mirroring_contradicts_sides_and_is_on_by_default() -> None:
    (line,) = contradictions(NAMES, DataConfig())
    assert line == (
        "data.flip 0.5 contradicts 6 attributes that tell left from right: left_wrist_visible, right_wrist_visible, left-facing, Left Eye, Right Eye, turned LEFT "
        "(without: --data.flip 0; --data.flip_swaps true swaps the labels of pairs)"
    )


def test_pairs_whose_labels_are_swapped_are_not_contradicted() -> None:
    (line,) = contradictions(NAMES, DataConfig(flip_swaps=True))
    assert "2 attributes that tell left from right: left-facing, turned LEFT (without: --data.flip 0)" in line


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"augment": "trivial"}, ["augment trivial contradicts 1 attribute that tell colours: bright red (", "stands: upside down (", "left from right: left_"]),
        ({"augment": "randaugment"}, ["augment randaugment contradicts 1 attribute that tell colours: bright red (", "stands: upside down ("]),
        ({"rotate": 10.0}, ["data.rotate 10 contradicts 1 attribute that tell how something stands: upside down ("]),
        ({"rotate": 90.0}, ["data.rotate 90 contradicts 6 attributes that tell left from right", "stands: upside down ("]),
        ({"jitter": 0.1}, ["data.jitter 0.1 contradicts 1 attribute that tell sizes: tiny ("]),
        ({"scales": [1.0, 0.5]}, ["data.scales contradicts 1 attribute that tell sizes: tiny ("]),
        ({"erase": 0.5, "mixup": 1.0, "cutmix": 1.0}, []),
    ],
)  # fmt: skip
def test_each_augmentation_names_what_it_contradicts(settings: dict, expected: list[str]) -> None:
    lines = contradictions(NAMES, replace(QUIET, **settings))
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert part in line and "redhead" not in line and "destiny" not in line and "upsidedown" not in line


@pytest.mark.parametrize(
    "name", ["multicolored", "multi-colored", "Rainbow", "brunette", "light-blue", "reddish brown", "colorless"]
)
def test_a_name_that_tells_a_colour_without_naming_a_plain_one_is_found(name: str) -> None:
    (line,) = contradictions((name,), replace(QUIET, augment="randaugment"))
    assert f"tell colours: {name} (" in line


def test_many_names_are_counted() -> None:
    names = [f"left {number}" for number in range(20)]
    assert "left 7 and 12 more (" in contradictions(names, DataConfig())[0]


def test_columns_of_pairs_change_places() -> None:
    assert mirrored_columns(NAMES) == (2, 1, 0, 3, 4, 5, 6, 7, 8, 9, 10, 12, 11, 13, 14)
    swapped = mirrored_columns(("left of left", "right of right", "right of left", "left of right", "left"))
    assert swapped == (1, 0, 3, 2, 4)
    cased = ("LEFT EYE", "Right ear", "right_eye", "RIGHT EYE", "Left ear", "left_eye")
    assert mirrored_columns(cased) == (3, 4, 5, 0, 1, 2)
    swaps = mirrored_columns(NAMES)
    assert [swaps[column] for column in swaps] == list(range(len(NAMES)))


def test_swapping_where_there_is_nothing_to_swap_is_refused() -> None:
    assert Augmentation.of(DataConfig(flip_swaps=True), 0, NAMES).swaps == mirrored_columns(NAMES)
    assert Augmentation.of(DataConfig(), 0, NAMES).swaps == ()
    with pytest.raises(ConfigError, match=r"data\.flip_swaps: no two attributes"):
        Augmentation.of(DataConfig(flip_swaps=True), 0, ("left-facing", "furry"))


def test_what_is_done_with_mirrored_crops_has_a_name() -> None:
    assert mirroring(DataConfig()) == "kept" and mirroring(DataConfig(flip_swaps=True)) == "swapped"
    assert mirroring(QUIET) == mirroring(replace(QUIET, flip_swaps=True)) == "never"

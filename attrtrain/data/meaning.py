"""What augmentation does to the meaning of attributes, as far as their names tell: a mirrored left wrist is a right
one.
"""

import re
from collections.abc import Sequence

from attrtrain.config.schema import DataConfig, Mirroring
from attrtrain.wording import counted, some_of


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SIDES = _set_of("left right leftward rightward leftwards rightwards leftmost rightmost clockwise counterclockwise")
_COLOURS = _set_of(
    "red orange yellow green blue purple violet pink brown black white grey gray beige tan gold golden silver turquoise teal maroon navy cyan magenta "
    "crimson scarlet olive blond blonde ginger brunette auburn amber aqua bronze burgundy cream indigo ivory khaki lavender lilac taupe rainbow colorful colourful colored coloured "
    "multicolor multicolored multicoloured colorless colourless monochrome dark bright pale reddish yellowish greenish bluish brownish whitish blackish"
)
_POSTURES = _set_of(
    "upside upright tilted slanted slanting sideways leaning horizontal vertical diagonal inverted rotated"
)
_SIZES = _set_of(
    "large larger largest big bigger biggest small smaller smallest tiny huge little giant gigantic enormous massive miniature near far distant"
)
_LEAST_TURN = 45.0  # degrees from which on what was beside something may come to lie above it
_SHOWN = 8
_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)


def mirrored_columns(names: Sequence[str]) -> tuple[int, ...]:
    """For each attribute (A) the one that it becomes on a mirrored crop: that of the name that differs in nothing but
    left and right, else itself.
    """
    columns = {name: column for column, name in enumerate(names)}
    return tuple(columns.get(_SIDE.sub(_other_side, name), column) for name, column in columns.items())


def swapped_columns(names: Sequence[str]) -> tuple[int, ...]:
    """`mirrored_columns`; empty where every attribute becomes itself, so that there is nothing to swap."""
    columns = mirrored_columns(names)
    return () if columns == tuple(range(len(columns))) else columns


def _other_side(found: re.Match[str]) -> str:
    word = found.group()
    other = "right" if word.lower() == "left" else "left"
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


def mirroring(config: DataConfig) -> Mirroring:
    """What a configuration does with mirrored crops."""
    if config.flip == 0:
        return "never"
    return "swapped" if config.flip_swaps else "kept"


def contradictions(names: Sequence[str], config: DataConfig) -> list[str]:
    """Lines that name the attributes whose labels an augmentation makes wrong on some crops, and the flag that does;
    none where nothing does.
    """
    swapped = mirrored_columns(names)
    paired = {name for column, name in enumerate(names) if swapped[column] != column}
    automatic = config.augment != "none"
    sides = _named(names, _SIDES)
    mirrored = [name for name in sides if name not in paired] if config.flip_swaps else sides
    advice = "data.flip 0" + (
        "; --data.flip_swaps true swaps the labels of pairs" if paired and not config.flip_swaps else ""
    )
    turned = config.rotate > _LEAST_TURN
    told = [
        (config.flip > 0, f"data.flip {config.flip:g}", mirrored, "tell left from right", advice),
        (turned, f"data.rotate {config.rotate:g}", sides, "tell left from right", f"data.rotate {_LEAST_TURN:g}"),
        (config.rotate > 0, f"data.rotate {config.rotate:g}", _named(names, _POSTURES), "tell how something stands", "data.rotate 0"),
        (automatic, f"data.augment {config.augment}", _named(names, _COLOURS), "tell colours", "data.augment none"),
        (automatic, f"data.augment {config.augment}", _named(names, _POSTURES), "tell how something stands", "data.augment none"),
        (config.augment == "trivial", "data.augment trivial", sides, "tell left from right", "data.augment none"),
        (config.jitter > 0, f"data.jitter {config.jitter:g}", _named(names, _SIZES), "tell sizes", "data.jitter 0"),
        (bool(config.scales), "data.scales", _named(names, _SIZES), "tell sizes", "data.scales []"),
    ]  # fmt: skip
    return [
        f"{setting} contradicts {counted(len(named), 'attribute')} that {what}: {some_of(named, _SHOWN)} (without: --{without})"
        for applies, setting, named, what, without in told
        if applies and named
    ]


def _named(names: Sequence[str], words: frozenset[str]) -> list[str]:
    """The names of which a whole word is one of those."""
    return [name for name in names if not words.isdisjoint(_words(name))]


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())

"""Attributes and a category → one line of English: "a furry, sleeping dog"."""

import re
from collections.abc import Sequence

from attrtrain.inference.results import NEVER

MOST = 5
"""Attributes in a caption; of more, those with the highest scores."""

# The sound decides, not the letter: a unicorn, a one-eyed cat, an hour.
_CONSONANT_SOUND = re.compile(r"(uni([^mn]|$)|us[aeiu]|ut[ei]|eu|ew|one\b|once\b|ubiq|urin)", re.IGNORECASE)
_VOWEL_SOUND = re.compile(r"([aeiou]|hou?r|honest|heir)", re.IGNORECASE)


def caption(names: Sequence[str], category: str) -> str:
    """One line.

    Args:
        names: attributes that are present, the likeliest first. Of synonyms, "wet / damp", the first is taken; "_"
            stands for a space.
        category: what it is; "" makes it an object.
    """
    words = [name.split(" / ")[0].replace("_", " ").strip() for name in names[:MOST]]
    phrase = " ".join([*([", ".join(words)] if words else []), category or "object"])
    return f"{article(phrase)} {phrase}"


def article(phrase: str) -> str:
    """The article, a or an, by how the first word sounds."""
    is_vowel = _VOWEL_SOUND.match(phrase) and not _CONSONANT_SOUND.match(phrase)
    return "an" if is_vowel else "a"


def present(scores: Sequence[float], thresholds: Sequence[float]) -> list[int]:
    """Columns of the attributes whose score reaches the threshold, the highest score first; of equals the first
    column. What the training never saw is not among them, though a score may be rounded to 1.
    """
    pairs = enumerate(zip(scores, thresholds, strict=True))
    found = [column for column, (score, least) in pairs if score >= least and least < NEVER]
    return sorted(found, key=lambda column: -scores[column])

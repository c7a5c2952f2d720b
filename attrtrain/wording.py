"""Pieces of the lines that are told: what an error says, names, and numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from unicodedata import category


def first_line(error: BaseException) -> str:
    """What another library's error says, as part of a line of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """All that an error says, on one line, however many it takes itself."""
    return " ".join(str(error).split()) or type(error).__name__


def shown(message: object) -> str:
    """A message as one line of a terminal: names in it come from files, and one may hold the end of a line, or clear
    the screen.
    """
    return "".join(repr(sign)[1:-1] if category(sign) == "Cc" else sign for sign in str(message))


def some_of(names: Sequence[str], shown: int) -> str:
    """Names as part of a line: the first so many, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, one: str, many: str = "") -> str:
    """`1 object`, `1,234 objects`; with `many` where more changes than the end of a word: `1 box is`, `2 boxes are`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def by_reason(counts: Mapping[str, int]) -> list[str]:
    """`1,234 image missing` for each reason, such as those that objects are left out for."""
    return [f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.items()]


def given_twice(names: Iterable[str]) -> list[str]:
    """The names that are there more than once, each once, in alphabetical order."""
    return sorted(name for name, times in Counter(names).items() if times > 1)

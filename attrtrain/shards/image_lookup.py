"""The name of a photograph → its file, in folders on a disk or at URLs."""

import filecmp
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from attrtrain.annotations.table import tidy_name, without_year
from attrtrain.errors import LeftOutError
from attrtrain.urls import below, read_url


@dataclass(frozen=True)
class FetchedImage:
    """A photograph's file from a URL."""

    url: str
    content: bytes


def find_image(name: str, folders: Sequence[Path | str]) -> Path | FetchedImage:
    """Finds a photograph below the first of the folders, paths or URLs, that has it, under its 2017 or its 2014 name.

    COCO renamed its files between 2014 (`COCO_val2014_000000000042.jpg`) and 2017 (`000000000042.jpg`) but not its
    images or annotations, so annotations of one year find the pictures of the other. And where macOS has written one of
    them, an accent is apart from its letter in it and part of that in the other (Unicode's NFD and NFC). Where folders
    on a disk hold different files of one name, nothing tells which is meant.

    Raises:
        LeftOutError: `image_missing`, `image_ambiguous`, or `image_outside` for a name that leads out of the folders:
            spelled in such ways, one photograph could count as several.
        ShardError: a URL cannot be read, for another reason than that there is no such file.
    """
    path = Path(_below(name, folders))
    if not path.name:
        raise LeftOutError("image_missing", f"'{name}' names no file")
    for candidate in _names_of(str(path)):
        for number, folder in enumerate(folders):
            if isinstance(folder, str):
                with suppress(FileNotFoundError):
                    url = below(folder, candidate)
                    return FetchedImage(url, read_url(url))
            elif _is_file(found := _in(folder, candidate)):
                _require_no_other(found, candidate, folders[number + 1 :])
                return Path(found)
    raise LeftOutError("image_missing", f"{name} is in none of {', '.join(map(str, folders))}{_advice(path, folders)}")


def _advice(path: Path, folders: Sequence[Path | str]) -> str:
    """What may be meant by the path of a photograph that is in none of the folders."""
    if "\\" in str(path):
        return "; folders are separated by /, not by \\"
    for folder in folders:
        if isinstance(folder, Path) and (other := _names_in(folder / path.parent).get(path.name.casefold())):
            return f"; {path.with_name(other)} is: small and capital letters count"
    return ""


@lru_cache(maxsize=64)  # of a set without its photographs, each name is looked for
def _names_in(folder: Path) -> dict[str, str]:
    """The names of a folder's files by themselves without capitals."""
    try:
        return {name.casefold(): name for name in os.listdir(folder)}  # noqa: PTH208  Path.iterdir makes a Path of each
    except OSError:
        return {}


def _below(name: str, folders: Sequence[Path | str]) -> str:
    """The name of a photograph as a path below a folder: as it is, but for an absolute one that lies below one of
    them.
    """
    if ".." not in name and not name.startswith("/"):
        return name
    tidy = Path(tidy_name(name))
    if not tidy.is_absolute() and tidy.parts[:1] != ("..",):
        return name
    for folder in folders:
        if isinstance(folder, Path) and tidy.is_relative_to(whole := os.path.abspath(folder)):  # noqa: PTH100  no `..`
            return str(tidy.relative_to(whole))
    raise LeftOutError(
        "image_outside",
        f"{name} is not below {', '.join(map(str, folders))}; name photographs by their path below a folder of images",
    )


def _in(folder: Path, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118  for each photograph: two fifths of the time that Path takes


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises where a folder may not be searched or a name is too long


def _require_no_other(found: str, name: str, folders: Sequence[Path | str]) -> None:
    """Raises LeftOutError where one of the folders holds another content under that name."""
    for folder in folders:
        if isinstance(folder, str):
            continue
        other = _in(folder, name)
        with suppress(OSError):  # what cannot be read is told when it is read
            if _is_file(other) and not filecmp.cmp(found, other, shallow=False):
                raise LeftOutError(
                    "image_ambiguous",
                    f"{found} and {other} are different photographs of one name; give each a name of its own",
                )


def _names_of(name: str) -> Iterator[str]:
    for form in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
        yield from _years_of(form)


def _years_of(name: str) -> Iterator[str]:
    yield name
    bare = without_year(name)
    folder, slash, file = bare.rpartition("/")
    for other in (bare, f"{folder}{slash}COCO_train2014_{file}", f"{folder}{slash}COCO_val2014_{file}"):
        if other != name:
            yield other

"""Reading from URLs of any protocol fsspec knows: s3://, gs://, https://, file:// … It is imported where a URL is first
read.
"""

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from attrtrain.errors import ConfigError, LabelError, ShardError
from attrtrain.wording import first_line

_WEB = ("http://", "https://")
_CHUNK = 8 << 20  # bytes asked for at a time
_PASSWORD = re.compile("://[^/?#@]*:[^/?#]*@")


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL and not a path."""
    return "://" in str(place)


def as_place(text: str) -> Path | str:
    """A command line's or configuration's text as a path, or as the URL it is.

    Raises:
        ConfigError: the URL holds a password. Places are written into configurations, metrics and reports, and logged.
    """
    if is_url(text) and _PASSWORD.search(text):
        without = _PASSWORD.sub("://", text)
        raise ConfigError(
            f"{without}: was given with a password, which the run's files and its log would tell; leave it out of the URL "
            "(docs/scale.md says where it may be)"
        )
    return text.rstrip("/") if is_url(text) else Path(text)


def below(folder: str, path: str) -> str:
    """The URL of a file in a folder. Web servers read `#`, `?` and `%` as something else than a part of a name."""
    return f"{folder}/{quote(path) if folder.startswith(_WEB) else path}"


def read_url(url: str) -> bytes:
    """The whole content of a small file, in one request.

    Raises:
        FileNotFoundError: there is nothing.
        ShardError: it cannot be read, for any other reason.
    """
    with _failures_told(url):
        filesystem, path = _filesystem(url)
        return cast(bytes, filesystem.cat_file(path))


def chunks_of(url: str) -> Iterator[bytes]:
    """The content of a file, piece by piece.

    Raises:
        FileNotFoundError: there is nothing.
        ShardError: it cannot be read, for any other reason.
    """
    with _failures_told(url):
        filesystem, path = _filesystem(url)
        file = filesystem.open(path, "rb", block_size=_CHUNK)
    with file:
        while True:
            with _failures_told(url):
                chunk = file.read(_CHUNK)
            if not chunk:
                return
            yield chunk


@contextmanager
def local_copies(places: Sequence[Path | str]) -> Iterator[list[Path]]:
    """Paths as they are; files at URLs under their own names in temporary folders, which go when the block ends.

    Raises:
        FileNotFoundError: there is nothing at a URL.
        ShardError: it cannot be read, for any other reason.
    """
    with ExitStack() as folders:
        copies = []
        for place in places:
            if isinstance(place, Path):
                copies.append(place)
                continue
            folder = folders.enter_context(tempfile.TemporaryDirectory(prefix="attrtrain-"))
            copies.append(Path(folder) / file_name_of(place))
            with copies[-1].open("wb") as file:
                for chunk in chunks_of(place):
                    file.write(chunk)
        yield copies


def file_name_of(url: str) -> str:
    """The name of a file. At web servers a query may follow it, such as a signature."""
    return PurePosixPath(unquote(urlsplit(url).path) if url.startswith(_WEB) else url).name


def size_of(url: str) -> int:
    """Bytes of a file.

    Raises:
        FileNotFoundError: there is nothing.
        ShardError: it cannot be told, for any other reason.
    """
    with _failures_told(url):
        filesystem, path = _filesystem(url)
        return int(filesystem.size(path))


def names_in(url: str) -> list[str]:
    """Names of the files in a folder; none where there is no such folder, or where a web server does not list it.

    Raises:
        ShardError: it cannot be listed.
    """
    try:
        with _failures_told(url):
            filesystem, path = _filesystem(url)
            return sorted(PurePosixPath(name).name for name in filesystem.ls(path, detail=False))
    except FileNotFoundError:
        return []
    except ShardError:
        if url.startswith(_WEB):
            return []
        raise


def is_there(url: str) -> bool:
    """Whether a file or folder is there. Web servers have no folders, so of one there everything is believed.

    Raises:
        ShardError: it cannot be told.
    """
    with _failures_told(url):
        filesystem, path = _filesystem(url)
        return url.startswith(_WEB) or bool(filesystem.exists(path))


def name_of(place: str) -> str:
    """What a folder is called, be it a path or a URL: its last part."""
    return place.rstrip("/").rsplit("/", 1)[-1]


def require_folders(flag: str, places: Sequence[Path | str]) -> None:
    """Refuses folders that are not there, in the name of the flag that they were given with.

    Raises:
        LabelError: naming the first.
        ShardError: it cannot be told.
    """
    for place in places:
        if not (place.is_dir() if isinstance(place, Path) else is_there(place)):
            is_file = isinstance(place, Path) and place.exists()
            raise LabelError(
                f"{flag} {place}: {'is a file; give the folder it is in' if is_file else 'no such folder'}"
            )


def require_writable(flag: str, folder: Path) -> None:
    """Refuses a folder that is not there and could not be made, or may not be written to: before the work, not after
    it. Makes nothing.

    Raises:
        ConfigError: naming the place that is in the way.
    """
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"{flag} {place}: {os.strerror(errno.ENOTDIR)}")
    if not os.access(place, os.W_OK | os.X_OK):
        is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        raise ConfigError(f"{flag} {place}: {os.strerror(errno.EROFS if is_read_only else errno.EACCES)}")


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec  # not needed by who reads local folders

    filesystem, path = fsspec.core.url_to_fs(url)
    return filesystem, path


@contextmanager
def _failures_told(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec says so of whatever a web server or the way to it fails with
        if url.startswith(_WEB) and cause is not None and getattr(cause, "status", None) != 404:
            raise ShardError(f"{url}: cannot be read ({type(cause).__name__}: {first_line(cause)})") from None
        raise FileNotFoundError(2, "not there", url) from None
    except ImportError as error:
        raise ShardError(f"{url}: {first_line(error)}") from None  # fsspec says what to install
    except Exception as error:  # noqa: BLE001  each protocol's library has errors of its own
        raise ShardError(f"{url}: cannot be read ({type(error).__name__}: {first_line(error)})") from None

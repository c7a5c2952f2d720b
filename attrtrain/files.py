"""Writing files so that a name either holds the whole content or nothing, whatever happens in between."""

import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL_SUFFIX = ".partial"


@contextmanager
def atomic_write(path: Path, buffering: int = -1) -> Iterator[BinaryIO]:
    """Opens a hidden file beside `path` for writing and moves it there once it is written and on the disk.

    After an exception, a full disk or a kill, `path` is what it was before. Every hidden name is its own, so two
    writers of one name, also on two machines, do not write into each other's file; the last to finish wins.
    """
    partial = _hidden_beside(path)
    try:
        with partial.open("wb", buffering) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty hidden folder beside `folder` to write files into, and moves it there once they are all on the
    disk.

    After an exception or a full disk, `folder` is what it was before; the one it replaces goes with all that is in it.
    Killed between the two renames, `folder` is not there, and its old content lies beside it until the next writer
    begins by putting it back. One writer at a time.
    """
    folder = folder.resolve() if folder.is_symlink() else folder  # a link goes on pointing where it did
    partial, old = folder.with_name(f".{folder.name}{PARTIAL_SUFFIX}"), folder.with_name(f".{folder.name}.old")
    try:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in (*partial.iterdir(), partial):
            fsync(path)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        fsync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def create_once(path: Path, content: bytes) -> None:
    """Writes a file unless there is one: of several writers at once, also on several machines, the first wins, and
    the others leave what it wrote.
    """
    partial = _hidden_beside(path)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            with suppress(FileExistsError):
                path.hardlink_to(partial)  # unlike a rename, it never replaces
        except OSError:  # a file system without hard links
            if not path.exists():
                partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _hidden_beside(path: Path) -> Path:
    """A hidden name of one writer's own. Not by the process id: on shared storage two machines may have the same."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")


def remove_partials(folder: Path, names: Container[str] | None = None) -> None:
    """Removes what killed writers left behind in `folder`, files and folders, which nobody may be writing to.

    Args:
        folder: where they wrote.
        names: only what was to become these files, where others may be being written.
    """
    for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
        if partial.is_dir():  # of `atomic_folder`
            if names is None:
                shutil.rmtree(partial, ignore_errors=True)
        elif names is None or partial.name[1:].rsplit(".", 2)[0] in names:
            partial.unlink(missing_ok=True)


def legible(name: Path | str) -> str:
    """A name or path as text that any file can hold: of one in another encoding than UTF-8, the bytes that are no text
    are spelled out. For people; it leads to no file.
    """
    return str(name).encode(errors="backslashreplace").decode()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def begin_writing_back(file: BinaryIO, start: int, end: int) -> None:
    """Has the system begin to bring bytes of a file to the disk, where it can be told to, and does not wait: `fsync`
    has less to wait for then.

    Args:
        file: what was written to, and flushed.
        start: the first of the bytes.
        end: behind the last of them.
    """
    if sys.platform == "linux":  # where this call takes out of memory what is on the disk, and sends there what is not
        with suppress(OSError):  # a file system that takes no advice
            os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


def fsync(path: Path) -> None:
    """Brings a file to the disk, or the renames inside a folder, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What downloads and clones that went wrong leave under the name of a file."""

from pathlib import Path

_HEAD = 64  # bytes


def head_of(path: Path) -> bytes:
    """The first bytes of a file, as `left_instead` wants them; none of one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def left_instead(head: bytes) -> str:
    """What a file that begins so is in place of what its name says, and what to do: for a message about one that cannot
    be read. "" where its first bytes tell nothing.
    """
    if head.startswith(b"version https://git-lfs"):
        return "Git LFS's pointer to the file, not the file itself; `git lfs pull` fetches it"
    if head[:_HEAD].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, as servers send one in place of what they do not give"
    return ""

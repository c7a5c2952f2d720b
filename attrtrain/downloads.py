"""What downloads and clones that went wrong leave under the name of a file."""

from pathlib import Path

_HEAD = 64  # bytes


def left_instead(file: Path | bytes) -> str:
    """What a file is in place of what its name says, and what to do: for a message about one that cannot be read. ""
    where its first bytes tell nothing.

    Args:
        file: its path, or its content.
    """
    if isinstance(file, bytes):
        head = file[:_HEAD]
    else:
        try:
            with file.open("rb") as opened:
                head = opened.read(_HEAD)
        except OSError:
            return ""
    if head.startswith(b"version https://git-lfs"):
        return "Git LFS's pointer to the file, not the file itself; `git lfs pull` fetches it"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, as servers send one in place of what they do not give"
    return ""

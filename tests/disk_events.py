"""What a writer asks of the disk, in order: which bytes were on it when a name moved, and what was deleted when."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

Event = tuple[str, Any]


def events_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Goes on filling a list with ("fsync", (inode, bytes)), ("move", name it gets) and ("delete", name of a folder
    that is there), while all of that is done as ever.
    """
    events: list[Event] = []
    fsync, rmtree = os.fsync, shutil.rmtree

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        events.append(("fsync", (status.st_ino, status.st_size)))

    def deleted(path: Path, *rest: Any, **options: Any) -> None:
        if Path(path).exists():
            events.append(("delete", Path(path).name))
        rmtree(path, *rest, **options)

    def moving(method: str) -> Any:
        original = getattr(Path, method)

        def moved(self: Path, target: Path) -> Any:
            done = original(self, target)
            events.append(("move", Path(self if method == "hardlink_to" else target).name))
            return done

        return moved

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(shutil, "rmtree", deleted)
    for method in ("rename", "replace", "hardlink_to"):
        monkeypatch.setattr(Path, method, moving(method))
    return events


def on_disk(path: Path) -> Event:
    """The event that brought a file, as it is now, or a folder to the disk."""
    return "fsync", (path.stat().st_ino, path.stat().st_size)


def require_sealed_before_it_was_named(events: list[Event], folder: Path) -> None:
    """Each file of a folder and the folder itself were on the disk before it got its name, and the name was soon
    after.
    """
    named = events.index(("move", folder.name))
    for path in (*folder.iterdir(), folder):
        assert on_disk(path) in events[:named], path
    assert on_disk(folder.parent)[1][0] in [what[0] for kind, what in events[named:] if kind == "fsync"]


def refuse_the_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No folder can be renamed to this name, though away from it."""
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(5, "Input/output error")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)

"""What lies in a folder of pictures: folders, pictures, and what is passed over. Names and sizes; no file is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from trainserve.errors import DataError

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif",
    ".avif", ".heic", ".heif",
)  # fmt: skip
# Folders that systems leave on disks; hidden ones (.ipynb_checkpoints, .Trash) are ignored by their dot.
SYSTEM_FOLDERS = {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
MARKER = ".dataset.json"  # `get.py` leaves it in the data sets it writes

Id = tuple[int, int]  # device and inode


class Entry(NamedTuple):
    """A file with a picture's ending: its path below the root, size in bytes, time of change."""

    path: str
    size: int
    mtime_ns: int


@dataclass
class Passed:
    """Paths that were passed over, by why, and those that are links."""

    folders: list[str] = field(default_factory=list)
    sidecars: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # followed, not passed over
    unreadable: list[DataError] = field(default_factory=list)  # folders that could not be listed

    def notice(self) -> str | None:
        """One line with all that was ignored, None if nothing."""
        sidecars = len(self.sidecars)
        parts = [
            _counted(map(_last, self.folders), "hidden or system folder"),
            f"{sidecars} sidecar file{'s' * (sidecars != 1)} (._*)" if sidecars else "",
            _counted(map(_last, self.hidden), "hidden file"),
            _counted(self.others, "file that is no picture", "files that are no pictures"),
            _counted(self.loops, "link that leads back to a folder above it", "links that lead back to a folder above"),
        ]
        found = [part for part in parts if part]
        return f"ignored {', '.join(found)}" if found else None

    def named(self) -> dict[str, list[str]]:
        """Everything that was ignored: what it is -> its paths."""
        return {
            "hidden or system folders": self.folders,
            "sidecar files": self.sidecars,
            "hidden files": self.hidden,
            "files that are no pictures": self.others,
            "links that lead back to a folder above": self.loops,
        }


def as_text(name: str) -> str:
    r"""A name from the disk as text: bytes that are no UTF-8 become `\xff`, a line break becomes `\n`."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _counted(names: Iterator[str] | list[str], one: str, many: str | None = None) -> str:
    listed = [as_text(name) for name in names]
    if not listed:
        return ""
    shown = ", ".join(sorted(set(listed))[:3]) + (", ..." if len(set(listed)) > 3 else "")
    return f"{len(listed)} {one if len(listed) == 1 else many or one + 's'} ({shown})"


def entries(folder: Path, prefix: str, passed: Passed) -> tuple[list[str], list[str]]:
    """Names of the folders and files in `folder`, each sorted as text, without what is always ignored.

    A folder that cannot be listed has none, and is in `passed.unreadable`.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as found:
            listed = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        refusal = DataError(f"{folder} cannot be read: {error.strerror}", hint="check its permissions")
        passed.unreadable.append(refusal)
        return [], []
    for entry in listed:
        path = f"{prefix}{entry.name}"
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself, or to where we may not look
            is_folder = False
        if is_folder and (entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS):
            passed.folders.append(path)
        elif is_folder:
            folders.append(entry.name)
        elif entry.name.startswith("._"):
            passed.sidecars.append(path)
        elif entry.name == MARKER:
            continue
        elif entry.name.startswith("."):
            passed.hidden.append(path)
        else:
            files.append(entry.name)
        if entry.is_symlink() and not entry.name.startswith("."):
            passed.links.append(path)
    return folders, files


def pictures(folder: Path, prefix: str, passed: Passed, above: frozenset[Id]) -> Iterator[Entry]:
    """Pictures of a folder, then of the folders in it, each sorted; links are followed, but never in a circle."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        passed.loops.append(prefix)
        return
    folders, files = entries(folder, f"{prefix}/", passed)
    for name in files:
        path = f"{prefix}/{name}"
        if not name.lower().endswith(SUFFIXES):
            passed.others.append(path)
            continue
        try:
            status = (folder / name).stat()
            if not S_ISREG(status.st_mode):  # a pipe or a device: reading it would wait, or never end
                passed.others.append(path)
                continue
            yield Entry(path, status.st_size, status.st_mtime_ns)
        except OSError:  # a link to nothing: the check of the pictures names it
            yield Entry(path, 0, 0)
    for name in folders:
        yield from pictures(folder / name, f"{prefix}/{name}", passed, above | {here})


def ids(folder: Path) -> frozenset[Id]:
    """Device and inode of a folder and of all above it."""
    found = [path.stat() for path in (folder.resolve(), *folder.resolve().parents)]
    return frozenset((status.st_dev, status.st_ino) for status in found)

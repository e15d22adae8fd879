"""Folders of ours in the system's temporary folder, and those that killed processes have left there.

Whoever makes one holds a lock on it as long as it lives (`own_folder`), so a free lock means that it is dead.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from trainserve.machine import locks

FALLBACK = Path("/tmp")  # noqa: S108  the second choice of `own_folder`
YOUNG_S = 60.0  # it may just have been made, and not be locked yet
# What `tempfile` makes of the prefixes of those that lock theirs. `trainserve-ports-<uid>` is none of these: it stays.
_OURS = re.compile(r"trainserve-(serving-|tensorboard-|evaluate-)?[a-z0-9_]{8}")


@contextlib.contextmanager
def own_folder(prefix: str, longest: int | None = None) -> Iterator[Path]:
    """A new folder below $TMPDIR that only this user may enter, for the length of a `with` block.

    Below /tmp where its path has over `longest` bytes, for a Unix socket: its path may have 107 on Linux, 103 on macOS.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    if longest is not None and len(os.fsencode(folder)) > longest:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=FALLBACK))
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            locks.try_lock(descriptor)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a guard may be about it as well; what stays is stale from now on
        os.close(descriptor)


def stale_folders(root: Path | None = None) -> list[Path]:
    """Folders of this user whose maker is dead."""
    found = []
    for path in _ours(root):
        descriptor = _dead(path)
        if descriptor is not None:
            os.close(descriptor)
            found.append(path)
    return sorted(found)


def remove_stale_folders(root: Path | None = None) -> int:
    """Remove them, as far as they let themselves be removed; returns how many went."""
    return sum(remove_if_stale(path) for path in _ours(root))


def remove_if_stale(path: Path) -> bool:
    """Remove one folder if its maker is (still) dead."""
    descriptor = _dead(path)
    if descriptor is None:
        return False
    try:
        shutil.rmtree(path, ignore_errors=True)  # what stays is looked at again the next time
    finally:
        os.close(descriptor)
    return not path.exists()


def _ours(root: Path | None) -> Iterator[Path]:
    roots = {root} if root else {Path(tempfile.gettempdir()), FALLBACK}
    for folder in roots:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)


def _dead(path: Path) -> int | None:
    """A descriptor that holds the folder's lock, if it is this user's, not young, and nobody else holds it."""
    try:
        stat = path.lstat()
        if stat.st_uid != os.getuid() or 0 <= time.time() - stat.st_mtime < YOUNG_S:
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        if locks.try_lock(descriptor):
            return descriptor
    except OSError:
        pass  # a file system without locks: nobody can be known to be dead
    os.close(descriptor)
    return None

"""What files take on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

BLOCK = 512  # bytes: the unit of st_blocks, whatever the file system's is (stat(2))
UNITS = ("KiB", "MiB", "GiB", "TiB")

MIB = 2**20  # bytes


def disk_bytes(paths: Iterable[Path]) -> int:
    """Bytes that files and folders with all below them take on the disk; what has several names counts once.

    What vanishes meanwhile, or may not be read, counts nothing.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in paths:
        for stat in _stats(path):
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                total += stat.st_blocks * BLOCK
    return total


def size_words(count: int) -> str:
    """`0 B`, `800 B`, `1.4 KiB`, `12.5 MiB`, `130 GiB`."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in UNITS:
        size /= 1024
        if size < 1000 or unit == UNITS[-1]:
            break
    return f"{size:.1f} {unit}" if size < 100 else f"{size:.0f} {unit}"


def _stats(path: Path) -> Iterator[os.stat_result]:
    try:
        yield path.lstat()
        if path.is_symlink() or not path.is_dir():
            return
        with os.scandir(path) as entries:
            below = [Path(entry.path) for entry in entries]
    except OSError:
        return
    for each in below:
        yield from _stats(each)

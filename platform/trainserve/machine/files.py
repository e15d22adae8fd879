"""Files and folders that another process may read: whole under their name, whatever is killed when, or not there.

What is being written is called `.<name>.<random>.tmp` (a folder that is being replaced `.old` for an instant): no
reader takes these names for whole. Its writer holds a lock on it, so what a killed writer left is known by its lock
being free, and goes at the next write of the same name, or by `remove_leftovers`.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainserve.machine import locks

UNFINISHED = (".tmp", ".old")


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Replace `path` by a JSON text, as `write_bytes` does. Raises ValueError for NaN and infinities too."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace `path` by a text in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path`: a reader sees the old bytes or the new ones, after a power cut too. Raises OSError."""
    temporary, lock = _begin(path, folder=False)
    try:
        with os.fdopen(os.dup(lock), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _name(error, path)
        raise
    finally:
        os.close(lock)
    sync_folder(path.parent)


def publish(file: Path, path: Path) -> None:
    """Give a finished file of the same disk the name `path`, replacing what has it."""
    _sync(file)
    file.replace(path)
    sync_folder(path.parent)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, on the same disk, that is gone when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _begin(path, folder=True)
    try:
        yield temporary
    except OSError as error:
        _name(error, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


@contextmanager
def new_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty folder to fill, which becomes `path` when the block ends well and vanishes when it does not.

    A folder that was there before is replaced: between two renames there is an instant without either, never one with
    a half-written folder. With `replace=False` raises OSError (FileExistsError or ENOTEMPTY) where `path` holds
    something.
    """
    with scratch_folder(path) as temporary:
        yield temporary
        sync_tree(temporary)
        old = temporary.with_suffix(".old")
        if replace and path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(old, ignore_errors=True)
    sync_folder(path.parent)


def remove_folder(path: Path) -> Path:
    """Remove a folder without ever leaving a part of it under its name; of a link only the link.

    Returns the name that it had while it went, where what could not be removed still is. Raises OSError when it cannot
    be renamed.
    """
    doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    path.rename(doomed)
    if doomed.is_symlink():
        doomed.unlink()
    else:
        shutil.rmtree(doomed, ignore_errors=True)
    return doomed


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of `name` (any, as it stands) have left in `folder`."""
    for leftover in _unfinished(folder, name):
        remove_leftover(leftover)


def leftovers(folder: Path) -> list[Path]:
    """What killed writers have left in `folder`."""
    return [path for path in sorted(_unfinished(folder)) if not _is_held(path)]


def remove_leftover(path: Path) -> bool:
    """Remove one of them, unless it is somebody's after all; False where it is still there."""
    with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
        _remove_unless_held(path)
    return not os.path.lexists(path)


def _unfinished(folder: Path, name: str = "*") -> Iterator[Path]:
    for suffix in UNFINISHED:
        yield from folder.glob(f".{name if name == '*' else glob.escape(name)}.*{suffix}")


def _is_held(path: Path) -> bool:
    try:
        return locks.is_held(path)
    except OSError:
        return True  # another user's, or a link: not ours to remove


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_end(path: Path, limit: int) -> str:
    """The last `limit` bytes of a file as text; "" where there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    _sync(folder)


def _name(error: BaseException, path: Path) -> None:
    """A write that fails on a full disk names no file."""
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = str(path)


def _begin(path: Path, *, folder: bool) -> tuple[Path, int]:
    """A new unfinished file or folder beside `path`, and the descriptor that holds its lock."""
    remove_leftovers(path.parent, path.name)
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            if folder:
                temporary.mkdir()
                descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            else:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            error.filename = str(path)  # what was asked for, and not a name that nobody has heard of
            raise
        with contextlib.suppress(OSError):  # a file system without locks: nobody can take it for a leftover there
            locks.try_lock(descriptor)
        with contextlib.suppress(FileNotFoundError):
            # Somebody's look for leftovers may have come between making and locking it.
            if os.path.samestat(temporary.stat(), os.fstat(descriptor)):
                return temporary, descriptor
        os.close(descriptor)


def _remove_unless_held(leftover: Path) -> None:
    descriptor = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not locks.try_lock(descriptor):
            return
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

r"""The digest of a data set, and the list of its files: what tells that two of them are the same, wherever they are.

The digest is that of what `sha256sum` prints for all pictures, sorted by name (LC_ALL=C), so it can be had by hand:

    find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum

Pictures count and nothing else: a README, a hidden file or a marker of ours makes no other data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from trainserve.errors import DataError
from trainserve.train.folders import MARKER, SUFFIXES, SYSTEM_FOLDERS

NAME = "manifest.json"  # beside the pictures in a bucket; written last, so that what has one is whole
FORMAT = 1
LARGEST = 2**30  # bytes of a manifest that is read: some million pictures
LONGEST = 1000  # letters of a name


class File(NamedTuple):
    """One picture: its path below the root, with slashes; sha256 of its bytes in hex; bytes."""

    path: str
    sha256: str
    size: int


def digest_of(files: Iterable[File]) -> str:
    """`sha256:<hex>` of a set of files; their order does not matter."""
    digest = hashlib.sha256()
    for path, sha256, _ in sorted(files, key=lambda file: os.fsencode(file.path)):
        digest.update(f"{sha256}  ".encode() + os.fsencode(path) + b"\n")
    return f"sha256:{digest.hexdigest()}"


def encode(files: Iterable[File]) -> bytes:
    """The manifest of these files."""
    listed = sorted(files)
    whole = {
        "format": FORMAT,
        "digest": digest_of(listed),
        "bytes": sum(file.size for file in listed),
        "files": [list(file) for file in listed],
    }
    return json.dumps(whole, separators=(",", ":")).encode() + b"\n"


def decode(data: bytes, where: str) -> tuple[File, ...]:
    """The files of a manifest that was found at `where`. Raises DataError: it is a stranger's until it is checked."""
    try:
        whole = json.loads(data)
        if whole["format"] != FORMAT:
            raise DataError(f"{where}: format {whole['format']!r}, this version reads {FORMAT}")
        files = tuple(File(*each) for each in whole["files"])
        wanted = whole["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{where} is no manifest of a data set: {error}") from error
    for file in files:
        fit = isinstance(file.path, str) and isinstance(file.size, int) and not isinstance(file.size, bool)
        if not fit or not isinstance(file.sha256, str) or file.size < 0:
            raise DataError(f"{where}: {file!r} is no file of a data set")
        check_name(file.path, where)
    if len({file.path for file in files}) != len(files) or digest_of(files) != wanted:
        raise DataError(f"{where} is damaged: its files have another digest than it says", hint="push the data again")
    return files


def is_picture(path: str) -> bool:
    """Whether a file of this path is one that training would look at."""
    *folders, name = path.split("/")
    hidden = name.startswith(".") or any(folder.startswith(".") or folder in SYSTEM_FOLDERS for folder in folders)
    return not hidden and name != MARKER and name.lower().endswith(SUFFIXES)


def check_name(path: str, where: str) -> None:
    """Raises DataError for a path that leads out of the folder, or that no disk takes."""
    parts = path.split("/")
    leads_out = "\\" in path or any(part in {"", ".", ".."} for part in parts)
    if not path or len(path) > LONGEST or "\0" in path or leads_out or not _is_encodable(path):
        raise DataError(f"{where}: {path[:200]!r} is no name of a file in a data set", hint="nothing of it is taken")


def _is_encodable(path: str) -> bool:
    """Half of a surrogate pair, which JSON may hold, is no letter."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True

"""`platform data get`: example data sets as folders of pictures, one a class, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainserve.errors import DataError, EnvironmentProblem, UserError
from trainserve.machine.files import scratch_folder, sync_folder, write_json
from trainserve.machine.home import home
from trainserve.machine.target import check_place
from trainserve.train import get_files, get_readers
from trainserve.train.folders import MARKER
from trainserve.train.get_files import Progress
from trainserve.train.get_readers import Picture
from trainserve.train.get_sources import Source, source_named

_NAME = re.compile(r"[\w][\w .'-]*")  # of a class or a file: no way out of the folder


@dataclass(frozen=True)
class Summary:
    """A data set on disk."""

    path: Path
    pictures: int
    classes: int
    digest: str  # SHA-256 of names and bytes of all pictures
    licence: str
    reused: bool  # it was there before, and whole


def get(
    name: str,
    destination: Path,
    *,
    local: Path | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """A data set as class folders, below `train/`, `val/` and `test/` where it is divided.

    Args:
        name: one of `get_sources.SOURCES`.
        destination: the folder to make; one that is there and whole is used again.
        local: a folder or a file with what would be downloaded.
        limit: at most so many pictures of a class in each part.
        progress: hears of downloads.

    Raises:
        UserError: no such data set, `destination` holds something else, `local` lacks a file or has another.
        EnvironmentProblem: a file cannot be had, a package is missing, the disk is full.

    """
    source = source_named(name)
    if local is not None and not source.files:
        raise UserError(f"--from {local}: {name} needs no files", hint=f"platform data get {name}")
    if destination.exists():
        return _existing(source, destination, limit)
    check_place(destination)  # before anything is downloaded for it
    try:
        files = (
            get_files.local_files(source, local)
            if local is not None
            else get_files.downloaded(source, home() / "downloads", progress)
        )
        return write(source, get_readers.read(source, files), destination, limit)
    except OSError as error:
        if destination.exists():  # another command was faster
            return _existing(source, destination, limit)
        hint = "choose another place, or free some space there"
        raise EnvironmentProblem(f"{error.filename or destination}: {error.strerror or error}", hint=hint) from error


def write(source: Source, pictures: Iterable[Picture], destination: Path, limit: int | None = None) -> Summary:
    """Write pictures as class folders. Raises DataError for a name that is no name, OSError."""
    written: Counter[tuple[str, str]] = Counter()
    following = iter(pictures)
    first = list(islice(following, 1))  # the reader's imports are done then: Ctrl-C in one leaves no folder behind
    with scratch_folder(destination) as root:
        for picture in chain(first, following):
            key = (picture.part, picture.label)
            if limit is not None and written[key] >= limit:
                continue
            if not (_NAME.fullmatch(picture.label) and _NAME.fullmatch(picture.name)):
                raise DataError(f"{source.name}: {picture.label!r}/{picture.name!r} is no name of a class and a file")
            folder = root / picture.part / picture.label
            if not written[key]:
                folder.mkdir(parents=True)
            with (folder / picture.name).open("xb") as file:
                file.write(picture.data)
            written[key] += 1
        summary = Summary(
            destination,
            sum(written.values()),
            len({label for _, label in written}),
            _digest(root),
            source.licence,
            reused=False,
        )
        write_json(root / MARKER, _marker(source, summary, limit), indent=2)
        os.sync()  # once: a flush of each of 70,000 files takes minutes
        root.rename(destination)  # fails where somebody has put something there meanwhile
    sync_folder(destination.parent)
    return summary


def _marker(source: Source, summary: Summary, limit: int | None) -> dict[str, Any]:
    return {
        "name": source.name,
        "digest": summary.digest,
        "licence": source.licence,
        "files": [{"name": file.name, "url": file.url, "md5": file.md5} for file in source.files],
        "limit": limit,
    }


def _existing(source: Source, destination: Path, limit: int | None) -> Summary:
    try:
        marker = json.loads((destination / MARKER).read_bytes())
        wanted, name, had = marker["digest"], marker["name"], marker.get("limit")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{destination} exists and is not the {source.name} data set",
            hint="choose another folder, or remove this one",
        ) from error
    if (name, had) != (source.name, limit):
        said = f"{name} with {f'at most {had} pictures a class' if had else 'all pictures'}"
        raise UserError(f"{destination} holds {said}", hint="choose another folder, or remove this one")
    digest = _digest(destination)
    if digest != wanted:
        raise UserError(f"the {source.name} in {destination} were changed", hint="remove the folder to get them anew")
    pictures = _pictures(destination)
    classes = {path.parent.name for path in pictures}
    return Summary(destination, len(pictures), len(classes), digest, source.licence, reused=True)


def _pictures(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.name != MARKER and path.is_file())


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _pictures(root):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()

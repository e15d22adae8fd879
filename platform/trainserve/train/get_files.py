"""The files of a published data set: downloaded, or found on this machine, and in either case the very ones.

Downloads lie in `$TRAINSERVE_HOME/downloads`. What was interrupted lies there as `NAME.part`; the next try goes on from
its end; what has changed meanwhile is told by the digest, without which no file gets its
name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine import locks
from trainserve.machine.download import fetch_whole
from trainserve.machine.files import publish
from trainserve.train.get_sources import Remote, Source

Progress = Callable[[str, int, int], None]  # (file, bytes done, bytes in all or 0 where not known)


def local_files(source: Source, place: Path) -> dict[str, Path]:
    """Name -> path of the data set's files in a folder (at any depth), or of the one that `place` is.

    Raises UserError when one is missing or is not the published one.
    """
    if not place.exists():
        raise UserError(f"--from {place}: no such file or folder", hint=_hint(source))
    candidates = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    found: dict[str, Path] = {}
    for wanted in source.files:
        names = {wanted.name, *(other.name for other in source.others)}
        same = [path for path in candidates if path.name in names or path == place]
        if not same:
            raise UserError(f"--from {place}: {wanted.name} of {source.name} is not there", hint=_hint(source))
        digests = {path: md5_of(path) for path in same}
        fitting = [path for path, md5 in digests.items() if md5 == wanted.md5 or (source.others and source.wanted(md5))]
        if not fitting:
            path, md5 = next(iter(digests.items()))
            raise UserError(
                f"{path} is not {wanted.name} as {source.name} publishes it: md5 {md5}, expected {wanted.md5}",
                hint=_hint(source),
            )
        found[wanted.name] = fitting[0]
    return found


def _hint(source: Source) -> str:
    return "get " + ", ".join(file.url for file in source.files) + " and give their folder with --from"


def downloaded(source: Source, folder: Path, progress: Progress | None = None) -> dict[str, Path]:
    """Name -> path of the data set's files, downloaded into `folder` where they are not there yet.

    Raises EnvironmentProblem with the address when one cannot be had, OSError where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {file.name: download(file, folder, source.name, progress) for file in source.files}


def download(file: Remote, folder: Path, dataset: str, progress: Progress | None = None) -> Path:
    """One file, whole and with its digest, or EnvironmentProblem; a part stays for the next try."""
    path, part = folder / file.name, folder / f"{file.name}.part"
    lock = locks.take(folder / f".{file.name}.lock")
    if lock is None:
        raise EnvironmentProblem(f"{file.name} is being downloaded by another command", hint="wait for it")
    try:
        if path.exists() and md5_of(path) == file.md5:
            return path
        fetch_whole(
            file.url,
            part,
            lambda done, total: progress(file.name, done, total) if progress else None,
            hint=f"get it where there is a network, then: platform data get {dataset} --from FOLDER",
        )
        md5 = md5_of(part)
        if md5 != file.md5:
            part.unlink()
            raise EnvironmentProblem(
                f"{file.url} is not the file it was, or came damaged: md5 {md5}, expected {file.md5}; removed",
                hint=f"try again, or get it elsewhere: platform data get {dataset} --from FOLDER",
            )
        publish(part, path)
        return path
    finally:
        os.close(lock)


def md5_of(path: Path) -> str:
    """Hex MD5 of a file: what data sets are published with."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

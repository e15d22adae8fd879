"""Pictures from a URL into a cache folder: once a node, whole or not at all, and known by their digest.

    <cache>/<key>/                   pictures, and the marker .dataset.json with their digest
    <cache>/.<key>.lock              held by the one who fetches; others wait for it
    <cache>/.<key>.part/             what an interrupted fetch has left: the next one goes on from it

The key is the digest where it is known beforehand, else that of the URL and of what the place says of its version. A
name appears by one rename after everything is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import DataError, EnvironmentProblem
from trainserve.machine import locks
from trainserve.machine.bucket.store import Item, open_bucket, split
from trainserve.machine.bucket.words import Absent
from trainserve.machine.files import sync_folder, write_json
from trainserve.machine.usage import MIB, size_words
from trainserve.train import archive, manifest
from trainserve.train.fetch_files import Objects, fetch_archive, fetch_objects
from trainserve.train.folders import MARKER

RESERVE = 64 * MIB  # bytes that stay free on the disk
TELL_S = 10.0  # between two words about waiting

Heard = Callable[[int, int], None]  # (bytes done, bytes in all or 0 where not known)


@dataclass(frozen=True)
class Fetched:
    """A data set in the cache."""

    path: Path  # where class folders, or train/ and val/, are
    digest: str  # sha256:..., of its pictures
    pictures: int
    bytes: int
    reused: bool  # it was there before


def fetch(
    url: str, cache: Path, *, digest: str | None = None, heard: Heard | None = None, say: Callable[[str], None] = print
) -> Fetched:
    """The pictures of `url`, an archive or a folder, in a folder of `cache`.

    `digest` is what they must be. `heard` is told of progress, `say` what is done, in sentences.

    Raises DataError (not what it should be), EnvironmentProblem (cannot be had, no room), UserError (no such place).
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if digest is not None and (known := _known(cache / _key(digest), digest)):
            return known
        source = _Source(url)
        key = _key(digest or f"{url}\0{source.version}")
        with _turn(cache, key, say) as work:
            known = _known(cache / key, digest)
            return known or _fetch(source, cache / key, work, digest, heard or (lambda _done, _total: None), say)
    except OSError as error:
        where = error.filename or cache
        raise EnvironmentProblem(
            f"{url} cannot be kept in {where}: {error.strerror or error}",
            hint="give the cache more room, or another place: spec.data.cache",
        ) from error


class _Source:
    """What there is at a URL: an archive, or the objects of a folder."""

    def __init__(self, url: str) -> None:
        self.url = url
        folder, name = split(url.partition("?")[0])
        self.name = name
        self.archive: Item | None = None
        self.objects: Objects | None = None
        if archive.is_archive(name):
            self.folder = open_bucket(folder)
            self.object = url.rstrip("/").rpartition(f"{folder}/")[2] if "?" in url else name
            found = self.folder.head(self.object)
            if found is None:
                raise Absent(f"{url}: there is no such archive", hint="check the URL")
            self.archive = found
            self.version = f"{found.size} {found.version}"
        else:
            self.objects = Objects.at(url)
            self.version = self.objects.version

    @property
    def is_loose(self) -> bool:
        """Whether there may be a folder around the data set: nothing says where it begins."""
        return self.objects is None or self.objects.wanted is None

    @property
    def room(self) -> int:
        """Bytes that fetching it takes on the disk, about."""
        if self.archive is not None:
            return 2 * self.archive.size
        assert self.objects is not None
        return self.objects.bytes


def _fetch(
    source: _Source, final: Path, work: Path, digest: str | None, heard: Heard, say: Callable[[str], None]
) -> Fetched:
    _check_room(source, final.parent, work)
    work.mkdir(exist_ok=True)
    pictures = work / "pictures"
    if source.archive is not None:
        packed = fetch_archive(source.url, source.folder, source.object, source.archive, work, heard, say)
        shutil.rmtree(pictures, ignore_errors=True)  # of an extraction that was interrupted
        pictures.mkdir()
        say(f"{source.url}: extracting {size_words(packed.stat().st_size)}")
        try:
            files = archive.extract(packed, source.name, pictures, lambda _: None)
        except DataError:
            shutil.rmtree(work, ignore_errors=True)  # the next try begins anew: somebody may have mended it
            raise
    else:
        assert source.objects is not None
        files = fetch_objects(source.objects, pictures, heard)
    top = archive.top(pictures) if source.is_loose else pictures
    files = [file._replace(path=(pictures / file.path).relative_to(top).as_posix()) for file in files]
    found = manifest.digest_of(files)
    if digest is not None and found != digest:
        shutil.rmtree(work, ignore_errors=True)
        raise DataError(
            f"{source.url} is not what it should be: its {len(files)} pictures have {found}, "
            f"spec.data.digest is {digest}",
            hint="push the data again, or set spec.data.digest to what it is now",
        )
    total = sum(file.size for file in files)
    about = {"url": source.url, "digest": found, "pictures": len(files), "bytes": total}
    write_json(top / MARKER, about, indent=2)
    os.sync()  # once: a flush of each of many small files takes minutes
    try:
        top.rename(final)
    except OSError:  # a file system without locks, and another pod was faster
        if known := _known(final, found):
            shutil.rmtree(work, ignore_errors=True)
            return known
        raise
    shutil.rmtree(work, ignore_errors=True)
    sync_folder(final.parent)
    return Fetched(final, found, len(files), total, reused=False)


def _known(path: Path, digest: str | None) -> Fetched | None:
    """What an earlier fetch has left under this name, if its pictures are still there."""
    try:
        about = json.loads((path / MARKER).read_bytes())
        found = Fetched(path, about["digest"], about["pictures"], about["bytes"], reused=True)
        same = digest in {None, found.digest} and _counted(path) == (found.pictures, found.bytes)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if same:
        return found
    if path.exists():  # somebody has changed it: never trained on, never repaired
        shutil.rmtree(path)
    return None


def _counted(path: Path) -> tuple[int, int]:
    sizes = [file.stat().st_size for file in path.rglob("*") if file.name != MARKER and file.is_file()]
    return len(sizes), sum(sizes)


def _key(text: str) -> str:
    if text.startswith("sha256:"):
        return text.replace(":", "-")
    return f"url-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _check_room(source: _Source, cache: Path, work: Path) -> None:
    have = sum(file.stat().st_size for file in work.rglob("*") if file.is_file()) if work.is_dir() else 0
    needed = max(0, source.room - have) + RESERVE
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise EnvironmentProblem(
            f"{source.url} needs about {size_words(needed)} in {cache}, and {size_words(free)} are free there",
            hint="a larger place for it: spec.data.cache (hostpath:///DIR or pvc://CLAIM), or smaller pictures",
        )


@contextmanager
def _turn(cache: Path, key: str, say: Callable[[str], None]) -> Iterator[Path]:
    """Wait until no other process of this node fetches the same; the folder to work in."""
    path = cache / f".{key}.lock"
    told = 0.0
    held: int | None = None
    work = cache / f".{key}.part"
    while True:
        try:
            held = locks.take(path)
        except OSError:
            if not path.exists():
                raise
            # A file system without locks: two may fetch the same, each by itself, and the first rename counts.
            work = cache / f".{key}.{secrets.token_hex(4)}.part"
            break
        if held is not None:
            break
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            say(f"another process of this node fetches the same pictures into {cache}: waiting for it")
    try:
        yield work
    finally:
        if held is not None:
            os.close(held)
        else:
            shutil.rmtree(work, ignore_errors=True)

"""The bytes of an archive or of many objects, several at a time, from where an earlier try ended."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trainserve.errors import DataError, EnvironmentProblem
from trainserve.machine.bucket.store import WEB, Bucket, Item, open_bucket, read
from trainserve.machine.bucket.words import Absent
from trainserve.machine.download import fetch_whole
from trainserve.machine.files import sha256_of
from trainserve.train import manifest
from trainserve.train.manifest import File

AT_ONCE = 32  # objects on their way: small ones are bound by the time of a request, not by the wire
TRIES = 5  # of one object, beside what the client itself repeats
PAUSE_S = 0.5  # doubled each time

Heard = Callable[[int, int], None]


@dataclass(frozen=True)
class Objects:
    """The pictures of a folder of a bucket."""

    bucket: Bucket
    items: tuple[Item, ...]
    wanted: tuple[File, ...] | None  # as a manifest says; None where there is none
    version: str

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.items)

    @classmethod
    def at(cls, url: str) -> Objects:
        """What there is under `url`: by its manifest, else by what the bucket lists. Raises DataError, UserError."""
        bucket = open_bucket(url)
        where = f"{bucket.url}/{manifest.NAME}"
        try:
            wanted = manifest.decode(read(bucket, manifest.NAME, manifest.LARGEST), where)
        except Absent as absent:
            if urlsplit(url).scheme.lower() in WEB:
                raise Absent(
                    f"{where} is not there, and a web server has no list of its files",
                    hint="give an archive (.zip, .tar, .tar.gz), or what `platform data push` has written",
                ) from absent
            items = sorted((item for item in bucket.list() if manifest.is_picture(item.name)), key=lambda i: i.name)
            if not items:
                raise Absent(f"{url} holds no pictures", hint="check bucket and path: s3://BUCKET/FOLDER") from absent
            for item in items:
                manifest.check_name(item.name, url)
            lines = "".join(f"{item.name}\0{item.size}\0{item.version}\n" for item in items)
            return cls(bucket, tuple(items), None, hashlib.sha256(lines.encode()).hexdigest())
        items = [Item(file.path, file.size, file.sha256) for file in wanted]
        return cls(bucket, tuple(items), wanted, manifest.digest_of(wanted))


def fetch_objects(source: Objects, folder: Path, heard: Heard) -> list[File]:
    """Write all of them below `folder`; what is there with its size, and its digest where that is known, stays.

    Raises DataError for one that is not what the manifest says, EnvironmentProblem where one cannot be had.
    """
    digests = {file.path: file.sha256 for file in source.wanted or ()}
    total, done = source.bytes, 0
    lock = threading.Lock()
    for parent in sorted({(folder / item.name).parent for item in source.items}):
        parent.mkdir(parents=True, exist_ok=True)

    def one(item: Item) -> File:
        nonlocal done
        file = _one(source.bucket, item, folder / item.name, digests.get(item.name))
        with lock:
            done += item.size
            heard(done, total)
        return file

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(one, item) for item in source.items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done() and future.exception() is not None:
                    future.result()
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one(bucket: Bucket, item: Item, path: Path, wanted: str | None) -> File:
    where = f"{bucket.url}/{item.name}"
    if path.is_file() and path.stat().st_size == item.size:
        found = sha256_of(path)
        if wanted in {None, found}:
            return File(item.name, found, item.size)
    draft = path.with_name(f".{path.name}.tmp")  # one process at a time works here
    for attempt in range(TRIES):
        digest, size = hashlib.sha256(), 0
        try:
            with draft.open("wb") as out:
                for piece in bucket.stream(item.name):
                    digest.update(piece)
                    size += len(piece)
                    out.write(piece)
                    if size > item.size:
                        break
            if size == item.size:
                break
            problem: EnvironmentProblem = EnvironmentProblem(
                f"{where} gave {size:,} bytes of {item.size:,}", hint="somebody writes to it, or the connection broke"
            )
        except EnvironmentProblem as error:
            problem = error
        if attempt == TRIES - 1:
            raise problem
        time.sleep(PAUSE_S * 2**attempt)
    found = digest.hexdigest()
    if wanted not in {None, found}:
        draft.unlink()
        raise DataError(
            f"{where} has sha256 {found[:12]}, its manifest says {wanted[:12] if wanted else ''}",
            hint="somebody has changed it: push the data again",
        )
    draft.replace(path)
    return File(item.name, found, size)


def fetch_archive(
    url: str, bucket: Bucket, name: str, item: Item, folder: Path, heard: Heard, say: Callable[[str], None]
) -> Path:
    """The archive as a file in `folder`, whole."""
    whole, part = folder / "archive", folder / "archive.part"
    if whole.is_file() and (not item.size or whole.stat().st_size == item.size):
        return whole
    if part.is_file() and part.stat().st_size:
        say(f"{url}: going on from {part.stat().st_size:,} bytes that an earlier try has left")
    if urlsplit(url).scheme.lower() in WEB:
        fetch_whole(url, part, heard, hint="try again; check the network and the URL", largest=sys.maxsize)
    else:
        _append(bucket, name, item, part, heard)
    part.replace(whole)
    return whole


def _append(bucket: Bucket, name: str, item: Item, part: Path, heard: Heard) -> None:
    failures = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have > item.size:
            part.unlink()  # of another version
            have = 0
        before = have
        try:
            with part.open("ab") as out:
                for piece in _from(bucket, name, have, item.size):
                    out.write(piece)
                    have += len(piece)
                    heard(have, item.size)
            if have == item.size:
                return
            problem = EnvironmentProblem(f"{bucket.url}/{name} gave {have:,} bytes of {item.size:,}")
        except EnvironmentProblem as error:
            problem = error
        failures = 1 if have > before else failures + 1
        if failures == TRIES:
            raise problem
        time.sleep(PAUSE_S * 2**failures)


def _from(bucket: Bucket, name: str, start: int, size: int) -> Iterator[bytes]:
    return bucket.stream(name, start) if start < size else iter(())

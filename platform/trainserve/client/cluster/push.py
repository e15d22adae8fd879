"""A folder of this machine into a store, for the pods of a cluster: `platform data push`.

    <store>/<digest>/                 the pictures, under their names in the folder
    <store>/<digest>/manifest.json    their digests, written last: what has it is whole

The digest is that of the pictures (train/manifest.py), so the same pictures are never sent twice, and what an
interrupted push has sent is not sent again: a file of the same name and size under the same digest is the same file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainserve.client.cluster.connect import Place
from trainserve.client.cluster.reach import reached
from trainserve.client.listener import Listener
from trainserve.errors import DataError, EnvironmentProblem, UserError
from trainserve.machine.bucket.store import Bucket
from trainserve.machine.files import sha256_of
from trainserve.machine.usage import size_words
from trainserve.spec import location
from trainserve.spec.location import Claim, Url
from trainserve.train import manifest
from trainserve.train.folders import Passed, entries, ids, pictures
from trainserve.train.imagefolder import scan
from trainserve.train.manifest import File

AT_ONCE = 16  # files on their way
READ_AT_ONCE = 4  # files that are read for their digests
TRIES = 5  # of one file, beside what the client itself repeats
PAUSE_S = 0.5  # doubled each time


@dataclass(frozen=True)
class Pushed:
    """A data set in a store."""

    url: str  # for spec.data.path
    digest: str  # for spec.data.digest
    pictures: int
    bytes: int
    sent: int  # bytes of this push; 0 where all was there


def push(folder: Path, store: str, place: Place | None, listener: Listener, *, image: str | None = None) -> Pushed:
    """Send the pictures of `folder` below `store`: a bucket's URL, or `pvc://CLAIM[/sub/path]` of `place`.

    `image` is what the helper pod for a claim runs. Raises DataError for what is no data set, UserError for what is no
    store, EnvironmentProblem where it cannot be written to.
    """
    try:
        where = location.parse(store)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not isinstance(where, Claim | Url):
        raise UserError(
            f"{store!r} is no place that a cluster's pods see", hint="a bucket, s3://BUCKET/PATH, or pvc://CLAIM/PATH"
        )
    scan(folder, allow_empty_classes=True)  # what no training would take is not sent
    files = digests(folder, listener)
    digest = manifest.digest_of(files)
    total = sum(file.size for file in files)
    url = url_of(store, digest)
    with reached(url, place, listener, image=image) as target:
        if _is_whole(target, digest):
            listener.notice(f"all {len(files)} pictures are there already")
            return Pushed(url, digest, len(files), total, 0)
        sent = _send(folder, files, target, listener, name=folder.name or str(folder))
        target.write(manifest.NAME, manifest.encode(files))
    return Pushed(url, digest, len(files), total, sent)


def url_of(store: str, digest: str) -> str:
    """Where in a store the data of this digest is."""
    return f"{store.rstrip('/')}/{location.folder_of(digest)}"


def digests(folder: Path, listener: Listener) -> tuple[File, ...]:
    """Every picture of a folder with its digest. Raises DataError for one that cannot be read or has no usable name."""
    passed = Passed()
    folders, loose = entries(folder, "", passed)
    found = [(name, (folder / name).stat().st_size) for name in loose if manifest.is_picture(name)]
    above = ids(folder)
    for name in folders:
        found += [(entry.path, entry.size) for entry in pictures(folder / name, name, passed, above)]
    listener.notice(f"{len(found)} pictures, {size_words(sum(size for _, size in found))}: computing their digest")

    def one(path: str) -> File:
        manifest.check_name(path, str(folder))
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(f"{folder}: {path!r} is no name in UTF-8", hint="rename it: convmv -r -t utf8") from None
        file = folder / path
        try:
            return File(path, sha256_of(file), file.stat().st_size)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        return tuple(pool.map(one, sorted(path for path, _ in found)))


def _is_whole(target: Bucket, digest: str) -> bool:
    if target.head(manifest.NAME) is None:
        return False
    where = f"{target.url}/{manifest.NAME}"
    data = b"".join(target.stream(manifest.NAME))
    return manifest.digest_of(manifest.decode(data, where)) == digest


def _send(folder: Path, files: tuple[File, ...], target: Bucket, listener: Listener, *, name: str) -> int:
    """Send what is not there with its size; the bytes that were sent."""
    there = {item.name: item.size for item in target.list()}
    missing = [file for file in files if there.get(file.path) != file.size]
    total = sum(file.size for file in files)
    to_send = sum(file.size for file in missing)
    if to_send < total:
        listener.notice(f"{len(files) - len(missing)} of {len(files)} pictures are there already")
    done = total - to_send
    lock = threading.Lock()
    stopped = threading.Event()

    def one(file: File) -> None:
        nonlocal done
        if stopped.is_set():
            return
        _again(partial(target.send, folder / file.path, file.path), stopped)
        with lock:
            done += file.size

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
        futures = [pool.submit(one, file) for file in missing]
        try:
            waiting = set(futures)
            while waiting:  # in this thread, which the listener expects, and where Ctrl-C comes
                ended, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in ended:
                    future.result()
                listener.uploading(name, done, total)
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return to_send


def _again(send: Callable[[], None], stopped: threading.Event) -> None:
    for attempt in range(TRIES):
        try:
            return send()
        except EnvironmentProblem:
            if attempt == TRIES - 1 or stopped.is_set():
                raise
            time.sleep(PAUSE_S * 2**attempt)
    return None

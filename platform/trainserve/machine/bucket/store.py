"""A place for objects under a URL, by what its scheme says: S3, GCS and Azure, the web, or whatever fsspec opens.

Names are relative to the URL, parted by slashes. What is written is whole under its name or not there. Every method may
be called from several threads, blocks, and raises the errors of errors.py in words (`words.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from trainserve.errors import UserError

CHUNK = 4 * 2**20  # bytes: what a stream gives at a time, about

CLOUDS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}  # scheme -> extra
WEB = ("http", "https")


@dataclass(frozen=True)
class Item:
    """One object: its name, its size in bytes, and what changes when its bytes do (an ETag or a time; may be "")."""

    name: str
    size: int
    version: str


class Bucket(Protocol):
    """What there is under one URL."""

    url: str  # without a slash at its end

    def list(self, prefix: str = "") -> Iterator[Item]:
        """All objects below the folder `prefix`, in any order; none where there is no such folder."""
        ...

    def head(self, name: str) -> Item | None:
        """The object of this name, or None."""
        ...

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """The bytes of an object from byte `start` on."""
        ...

    def send(self, file: Path, name: str) -> None:
        """Store a file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Store some bytes."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        ...


def open_bucket(url: str) -> Bucket:
    """The place under `url`; nothing is asked of it yet. Raises UserError, EnvironmentProblem (no package)."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if not scheme:
        raise UserError(f"{url!r} is no URL", hint="s3://BUCKET/PATH, gs://BUCKET/PATH, https://HOST/PATH, ...")
    whole = url.rstrip("/")
    if scheme in CLOUDS:
        from trainserve.machine.bucket.cloud import Cloud

        return Cloud(whole, CLOUDS[scheme])
    if scheme in WEB:
        from trainserve.machine.bucket.web import Web

        return Web(whole)
    from trainserve.machine.bucket.filesystems import FileSystem

    return FileSystem(whole)


def read(bucket: Bucket, name: str, limit: int) -> bytes:
    """A small object. Raises UserError where it has more than `limit` bytes, or is not there."""
    data = bytearray()
    for piece in bucket.stream(name):
        data += piece
        if len(data) > limit:
            raise UserError(f"{bucket.url}/{name} has more than {limit:,} bytes")
    return bytes(data)


def split(url: str) -> tuple[str, str]:
    """The URL of the folder that an object is in, and the object's name."""
    folder, _, name = url.rstrip("/").rpartition("/")
    return folder, name

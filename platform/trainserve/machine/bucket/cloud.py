"""S3 (and what speaks its protocol), Google Cloud Storage and Azure, by obstore: one compiled package for all three.

A put is atomic there, and so is the end of an upload in parts: an object is whole or not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainserve.errors import UserError, not_installed
from trainserve.machine.bucket import awsfiles
from trainserve.machine.bucket.store import CHUNK, Item
from trainserve.machine.bucket.words import Absent, told

RETRIES = 6  # of a request: refused connections, 5xx, broken answers
RETRY_S = 90.0  # for all of them together
PARTS = 8  # of one large file, side by side
PART = 8 * 2**20  # bytes; a file that is smaller goes in one request
SILENCE_S = 60.0  # of one request


class Cloud:
    """One bucket, or a folder in it."""

    def __init__(self, url: str, kind: str) -> None:
        try:
            import obstore
        except ImportError as error:
            raise not_installed("obstore, which reads and writes buckets,", kind) from error
        self.url = url
        self._kind = kind
        self._api: Any = obstore
        self._store = _open(url, kind)

    def list(self, prefix: str = "") -> Iterator[Item]:
        try:
            for page in self._store.list(prefix=prefix or None, chunk_size=1000):
                for found in page:
                    yield _item(found)
        except Exception as error:
            problem = told(error, self._named(prefix), "listed", self._kind)
            if isinstance(problem, Absent) and "bucket" not in problem.message.rpartition(":")[2]:
                return
            raise problem from error

    def head(self, name: str) -> Item | None:
        try:
            return _item(self._store.head(name))
        except Exception as error:
            problem = told(error, self._named(name), "read", self._kind)
            if isinstance(problem, Absent):
                return None
            raise problem from error

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        options = {"range": {"offset": start}} if start else None
        try:
            for piece in self._store.get(name, options=options).stream(min_chunk_size=CHUNK):
                yield bytes(piece)
        except Exception as error:
            raise told(error, self._named(name), "read", self._kind) from error

    def send(self, file: Path, name: str) -> None:
        try:
            self._store.put(name, file, chunk_size=PART, max_concurrency=PARTS)
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not file.exists():
                raise
            raise told(error, self._named(name), "written", self._kind) from error

    def write(self, name: str, data: bytes) -> None:
        try:
            self._store.put(name, data)
        except Exception as error:
            raise told(error, self._named(name), "written", self._kind) from error

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._store.delete(name)
            except Exception as error:
                problem = told(error, self._named(name), "removed", self._kind)
                if not isinstance(problem, Absent):
                    raise problem from error

    def _named(self, name: str) -> str:
        return f"{self.url}/{name}".rstrip("/")


def _open(url: str, kind: str) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    parts = urlsplit(url)
    prefix = parts.path.strip("/") or None
    retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)}
    client: Any = {"timeout": timedelta(seconds=SILENCE_S), "connect_timeout": timedelta(seconds=10)}
    try:
        if kind == "s3":
            config = awsfiles.config(os.environ)
            client["allow_http"] = config.get("endpoint", "").startswith("http://")
            return S3Store(
                parts.netloc, prefix=prefix, config=config, client_options=client, retry_config=retry  # type: ignore[arg-type]
            )  # fmt: skip
        if kind == "gs":
            return GCSStore(parts.netloc, prefix=prefix, client_options=client, retry_config=retry)
        return AzureStore(parts.netloc, prefix=prefix, client_options=client, retry_config=retry)
    except Exception as error:
        raise UserError(
            f"{url}: {str(error).splitlines()[0]}", hint="check the environment's settings for it"
        ) from error


def _item(found: Any) -> Item:
    version = found.get("e_tag") or str(found.get("last_modified") or "")
    return Item(found["path"], found["size"], version)

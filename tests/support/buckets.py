"""Buckets in memory, whole and faulty."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from trainserve.errors import EnvironmentProblem
from trainserve.machine.bucket.store import Bucket, open_bucket

URL = "memory://bucket/folder"


@contextmanager
def in_memory(url: str = URL) -> Iterator[Bucket]:
    """An empty folder of fsspec's memory, of which there is one a process."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield open_bucket(url)
    files.store.clear()


def contents(bucket: Bucket) -> dict[str, bytes]:
    return {item.name: b"".join(bucket.stream(item.name)) for item in bucket.list()}


class Failing:
    """A bucket that refuses every n-th request, and says which names it was asked to write."""

    def __init__(self, bucket: Bucket, every: int = 3) -> None:
        self._bucket, self._every = bucket, every
        self._count = 0
        self._lock = threading.Lock()
        self.url = bucket.url
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def asked(*args: Any) -> Any:
            with self._lock:
                self._count += 1
                failing = self._count % self._every == 0
                if name in {"write", "send"} and not failing:
                    self.written.append(args[0] if name == "write" else args[1])
            if failing:
                raise EnvironmentProblem("it is not in the mood")
            return getattr(self._bucket, name)(*args)

        return asked

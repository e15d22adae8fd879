"""Versioned objects and the history of their changes: what etcd is to an API server.

Stored objects are never changed in place, so the history and the readers share them. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainserve.kube.cluster import Gone, Manifest
from trainserve.kube.names import Kind


class Key(NamedTuple):
    """What names one object."""

    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True)
class Change:
    """One write. `before` is None for a creation, `after` is None for a removal."""

    version: int
    key: Key
    before: Manifest | None
    after: Manifest | None


def copy_json(value: Any) -> Any:
    """A deep copy of a JSON value (a third of copy.deepcopy's time). Raises TypeError for what JSON cannot carry."""
    if isinstance(value, dict):
        return {str(key): copy_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copy_json(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be part of an object: JSON values only")


class Store:
    """Objects by key. Each write takes the next version, is remembered, and wakes whoever is subscribed."""

    def __init__(self, history: int) -> None:
        self.version = 1  # not 0: a watch from "0" means from any version
        self.on_change: Callable[[], None] | None = None
        self._objects: dict[Key, Manifest] = {}
        self._history: deque[Change] = deque()
        self._limit = history
        self._compacted = 0  # changes up to this version are forgotten
        self._subscribers: set[asyncio.Event] = set()

    def get(self, key: Key) -> Manifest | None:
        return self._objects.get(key)

    def items(self) -> list[tuple[Key, Manifest]]:
        return list(self._objects.items())

    def put(self, key: Key, manifest: Manifest) -> Manifest:
        """Store `manifest`, which the store keeps; its resourceVersion becomes the new version."""
        before = self._objects.get(key)
        self.version += 1
        after = _at_version(manifest, self.version)
        self._objects[key] = after
        self._record(Change(self.version, key, before, after))
        return after

    def remove(self, key: Key) -> Manifest:
        """Forget an object; returns its last state."""
        last = self._objects.pop(key)
        self.version += 1
        self._record(Change(self.version, key, last, None))
        return last

    def load(self, version: int, objects: dict[Key, Manifest]) -> None:
        """Begin with these objects and no history, as a restarted server does."""
        self._objects = dict(objects)
        self.version = self._compacted = version
        self._history.clear()

    def compact(self) -> None:
        """Forget all changes up to now."""
        self._history.clear()
        self._compacted = self.version

    def since(self, version: int) -> list[Change]:
        """Changes after `version`, oldest first. Raises Gone when some of them are forgotten."""
        if version < self._compacted:
            raise Gone(f"too old resource version: {version} ({self._compacted})")
        newer: list[Change] = []
        for change in reversed(self._history):
            if change.version <= version:
                break
            newer.append(change)
        newer.reverse()
        return newer

    def at(self, version: int) -> dict[Key, Manifest]:
        """All objects as they were at `version`. Raises Gone when that is forgotten."""
        objects = dict(self._objects)
        for change in reversed(self.since(version)):
            if change.before is None:
                del objects[change.key]
            else:
                objects[change.key] = change.before
        return objects

    @contextmanager
    def subscribed(self) -> Iterator[asyncio.Event]:
        """An event that each change sets."""
        event = asyncio.Event()
        self._subscribers.add(event)
        try:
            yield event
        finally:
            self._subscribers.discard(event)

    def _record(self, change: Change) -> None:
        self._history.append(change)
        if len(self._history) > self._limit:
            self._compacted = self._history.popleft().version
        for event in self._subscribers:
            event.set()
        if self.on_change is not None:
            self.on_change()


def _at_version(manifest: Manifest, version: int) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(version)}}

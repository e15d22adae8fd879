"""A local cache of one kind's objects, kept by list and watch, and calls for every change.

The pattern of client-go's reflector: list in pages, watch from that version on, take the watch up again from the last
version seen, list anew when that version is gone. Works on the `Cluster` protocol alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from trainserve.kube.cluster import ApiError, Cluster, Gone, Manifest
from trainserve.kube.names import Kind
from trainserve.kube.outage import level

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Manifest | None, Manifest | None], None]
Index: TypeAlias = Callable[[Manifest], Iterable[str]]
Place: TypeAlias = tuple[str, str]  # namespace, name

# What a failing connection raises beside the server's own answers; all else is a bug and ends `run`.
_ENVIRONMENT = (ApiError, OSError)

# A refused watch that only a new list can mend: the version is gone, unreadable, or ahead of a server set back.
_LIST_ANEW = (400, 410, 504)


@dataclass(frozen=True)
class Backoff:
    """Seconds to wait after the nth failure in a row (from 0): doubling up to a limit, times 1 to 1 + jitter."""

    first_s: float = 0.8
    limit_s: float = 15.0  # a server that is back is heard within half a minute
    jitter: float = 0.5

    def delay_s(self, failures: int, chance: float) -> float:
        """`chance`: a random number from 0 to 1."""
        return min(self.limit_s, self.first_s * 2.0 ** min(failures, 32)) * (1.0 + self.jitter * chance)


DEFAULT_BACKOFF = Backoff()


class Informer:
    """`await run()` keeps the cache; `get`, `list` and `indexed` read it.

    What they return is shared with the cache: do not change it. Handlers are called as `handler(before, after)` after
    the cache has the change: `before` is None for an addition, `after` is None for a deletion. They must not block;
    what they raise ends `run`. `synced` is set when the first list is in the cache and its handlers have been called.

    A watch that ends sooner than `steady_s` without having brought a change counts as a failure, so that a server or
    proxy that ends watches at once is not asked in a busy loop.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        indexes: Mapping[str, Index] | None = None,
        page_size: int = 500,
        watch_timeout_s: float = 300.0,
        steady_s: float = 1.0,
        backoff: Backoff = DEFAULT_BACKOFF,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.synced = asyncio.Event()
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._selectors = {"labels": dict(labels or {}), **({"fields": dict(fields)} if fields else {})}
        self._page_size = page_size
        self._watch_timeout_s = watch_timeout_s
        self._steady_s = steady_s
        self._backoff = backoff
        self._sleep = sleep
        self._chance = chance
        self._clock = clock
        self._objects: dict[Place, Manifest] = {}
        self._index_of = dict(indexes or {})
        self._indexed: dict[str, dict[str, set[Place]]] = {name: {} for name in self._index_of}
        self._handlers: list[Handler] = []
        self._told = ""  # what is wrong, as it was logged

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change from now on, and now for every object already there."""
        self._handlers.append(handler)
        for _, found in sorted(self._objects.items()):
            handler(None, found)

    def get(self, namespace: str, name: str) -> Manifest | None:
        return self._objects.get((namespace, name))

    def all(self) -> Sequence[Manifest]:
        """Every object, ordered by namespace and name."""
        return [found for _, found in sorted(self._objects.items())]

    def __str__(self) -> str:
        return self._kind.plural + (f" of {self._namespace}" if self._namespace is not None else "")

    def indexed(self, index: str, value: str) -> Sequence[Manifest]:
        """Objects for which the index named `index` gives `value`, ordered by namespace and name."""
        return [self._objects[place] for place in sorted(self._indexed[index].get(value, ()))]

    async def run(self) -> None:
        """Keep the cache until cancelled."""
        version = ""  # nothing to watch from: list first
        failures = 0
        listed_anew = False  # because the version was gone, and nothing was seen since
        while True:
            began = self._clock()
            changed = False
            failed: ApiError | OSError | None = None
            try:
                if not version:
                    version = await self._load()
                    self.synced.set()
                    self._say("")
                async for event in self._cluster.watch(
                    self._kind,
                    self._namespace,
                    **self._selectors,
                    resource_version=version,
                    timeout_s=self._watch_timeout_s,
                ):
                    if event.type != "BOOKMARK":
                        changed = True
                        self._apply(event.object, deleted=event.type == "DELETED")
                        self._say("")
                    version = event.object["metadata"]["resourceVersion"]
            except _ENVIRONMENT as error:
                failed = error
                if isinstance(error, ApiError) and error.status in _LIST_ANEW:
                    version = ""
            if changed or (failed is None and self._clock() - began >= self._steady_s):
                failures, listed_anew = 0, False
                if failed is None:
                    self._say("")
                    continue
            if isinstance(failed, Gone) and not listed_anew:
                # A new list helps, and at once: a server that says so is back, whatever failed before. If the next
                # watch is Gone too, it waits.
                failures, listed_anew = 1, True
                continue
            delay_s = self._backoff.delay_s(failures, self._chance())
            failures += 1
            told = logging.WARNING if failed is None else level(failed)
            self._say(str(failed or "the watch ended at once"), told, again_s=delay_s)
            await self._sleep(delay_s)

    def _say(self, what: str, at: int = logging.INFO, again_s: float = 0.0) -> None:
        """Once for as long as the same is wrong, and once that it is well again ("")."""
        if what and what != self._told:
            log.log(at, "%s: %s; tried again, now in %.1f s", self, what, again_s)
        elif not what and self._told:
            log.info("%s: heard of again", self)
        self._told = what

    async def _load(self) -> str:
        """Bring the cache to the state of a list, page by page; returns the list's version."""
        found: dict[Place, Manifest] = {}
        token = ""
        while True:
            page = await self._cluster.list(
                self._kind, self._namespace, **self._selectors, limit=self._page_size, continue_token=token
            )
            found.update((_place(item), item) for item in page.items)
            token = page.continue_token
            if not token:
                break
        for place in self._objects.keys() - found.keys():
            self._apply(self._objects[place], deleted=True)
        for item in found.values():
            self._apply(item, deleted=False)
        return page.resource_version

    def _apply(self, item: Manifest, *, deleted: bool) -> None:
        place = _place(item)
        before = self._objects.get(place)
        if deleted:
            if before is not None:
                self._replace(place, before, None)
                self._call(item, None)
        elif before is None:
            self._replace(place, None, item)
            self._call(None, item)
        elif before["metadata"]["uid"] != item["metadata"]["uid"]:  # deleted and made anew, unseen
            self._replace(place, before, None)
            self._call(before, None)
            self._replace(place, None, item)
            self._call(None, item)
        elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            self._replace(place, before, item)
            self._call(before, item)

    def _replace(self, place: Place, before: Manifest | None, after: Manifest | None) -> None:
        if after is None:
            self._objects.pop(place, None)
        else:
            self._objects[place] = after
        for name, index in self._index_of.items():
            entries = self._indexed[name]
            for value in index(before) if before is not None else ():
                entries[value].discard(place)
                if not entries[value]:
                    del entries[value]
            for value in index(after) if after is not None else ():
                entries.setdefault(value, set()).add(place)

    def _call(self, before: Manifest | None, after: Manifest | None) -> None:
        for handler in self._handlers:
            handler(before, after)


def by_owner_uid(manifest: Manifest) -> Iterable[str]:
    """An index: the uids of an object's owners."""
    return {owner["uid"] for owner in manifest["metadata"].get("ownerReferences", [])}


def _place(manifest: Manifest) -> Place:
    """An object's place in the cache; the namespace is "" where its kind has none."""
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]

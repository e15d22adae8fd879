"""An API server in memory: `kube.cluster.Cluster` for the kinds of `resources`, with an API server's semantics.

What `tests/conformance` says of it, it also says of a real one. Beyond the protocol: `bind` (a scheduler's part),
`snapshot` and `restore`, `on_change`. Belongs to one event loop; each verb is atomic, and yields once to the loop
before it acts, so that callers interleave as they do over a network.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from trainserve.kube.cluster import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Invalid,
    Manifest,
    NotFound,
    Page,
    WatchEvent,
)
from trainserve.kube.moments import rfc3339
from trainserve.kube.names import POD, Kind
from trainserve.local.admission import created, patched, title
from trainserve.local.resources import RESOURCES, Resource
from trainserve.local.store import Change, Key, Store, copy_json

SNAPSHOT_FORMAT = 1

Selector: TypeAlias = Callable[[Manifest], bool]

# What field selectors may name (https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/).
_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS_OF_PODS = ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "status.phase")


class MemoryCluster:
    """All objects of a run.

    `clock` gives unix seconds and `uid` a new unique id; both can be replaced for tests. `history` is the number of
    changes a watch can go back, `bookmark_s` the time between a watch's bookmarks. `on_change` is called, with the
    change made, after every write.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        *,
        resources: Mapping[Kind, Resource] = RESOURCES,
        history: int = 4096,
        bookmark_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._uid = uid
        self._resources = resources
        self._bookmark_s = bookmark_s
        self._store = Store(history)

    @property
    def on_change(self) -> Callable[[], None] | None:
        return self._store.on_change

    @on_change.setter
    def on_change(self, hook: Callable[[], None] | None) -> None:
        self._store.on_change = hook

    # The protocol.

    async def serves(self, kind: Kind) -> bool:
        await asyncio.sleep(0)
        return kind in self._resources

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        await asyncio.sleep(0)
        return _copy(self._find(kind, namespace or "", name))

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        continue_token: str = "",
    ) -> Page:
        """Every page of a list shows the moment of the first one; Gone when that is no longer known."""
        await asyncio.sleep(0)
        self._resource(kind)
        version, after = _decode_token(continue_token) if continue_token else (self._store.version, None)
        selector = _selector(kind, labels, fields)
        found = _matching(self._store.at(version).items(), kind, namespace, selector)
        rest = [(key, item) for key, item in found if after is None or (key.namespace, key.name) > after]
        page = rest[:limit] if limit else rest
        token = _encode_token(version, page[-1][0]) if len(page) < len(rest) else ""
        return Page([_copy(item) for _, item in page], str(version), token)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        resource_version: str,
        timeout_s: float = 300.0,
    ) -> AsyncIterator[WatchEvent]:
        """From "" or "0" on: first an ADDED for each object that exists. A bookmark comes last."""
        resource = self._resource(kind)
        selector = _selector(kind, labels, fields)
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline, bookmark_at = now + timeout_s, now + self._bookmark_s
        with self._store.subscribed() as changed:
            position, existing = self._watch_start(kind, namespace, selector, resource_version)
            for item in existing:
                yield WatchEvent("ADDED", _copy(item))
            while True:
                changed.clear()
                for change in self._store.since(position):
                    position = change.version
                    if change.key.kind == kind and namespace in (None, change.key.namespace):
                        event = _watch_event(change, selector)
                        if event is not None:
                            yield event
                now = loop.time()
                if now >= min(deadline, bookmark_at):
                    yield _bookmark(resource.kind, position)
                    bookmark_at = now + self._bookmark_s
                    if now >= deadline:
                        return
                try:
                    async with asyncio.timeout_at(min(deadline, bookmark_at)):
                        await changed.wait()
                except TimeoutError:
                    continue  # time for a bookmark

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """With `metadata.generateName` and no name, the server appends five characters."""
        await asyncio.sleep(0)
        resource = self._resource(kind)
        new = created(resource, namespace, manifest, self._uid(), rfc3339(self._clock()))
        name = new["metadata"]["name"]
        key = Key(kind, namespace, name)
        if self._store.get(key) is not None:
            raise AlreadyExists(f"{title(kind, name)} already exists")
        self._expire(resource)
        stored = self._store.put(key, new)
        self._collect(key)
        return _copy(stored)

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Manifest,
        *,
        subresource: Literal["", "status"] = "",
    ) -> Manifest:
        """A patch that changes nothing writes nothing. Fields that only the server sets are passed over."""
        await asyncio.sleep(0)
        resource = self._resource(kind)
        if subresource == "status" and not resource.has_status:
            raise NotFound(f"{kind.plural} has no status subresource")
        old = self._find(kind, namespace, name)
        new = patched(resource, old, patch, subresource)
        if new == old:
            return _copy(old)
        key = Key(kind, namespace, name)
        written = self._store.put(key, new)
        meta = written["metadata"]
        if meta.get("deletionGracePeriodSeconds") == 0 and not meta.get("finalizers"):
            self._remove(key)  # that was the last finalizer
        else:
            self._collect(key)
        return _copy(written)

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        """Dependents go right after their owner."""
        await asyncio.sleep(0)
        found = self._find(kind, namespace, name)
        if uid is not None and uid != found["metadata"]["uid"]:
            raise Conflict(
                f"{title(kind, name)}: the UID in the precondition ({uid}) is not that of the object "
                f"({found['metadata']['uid']})"
            )
        if grace_period_s is not None and grace_period_s < 0:
            raise Invalid(f"gracePeriodSeconds: Invalid value: {grace_period_s}: must be greater than or equal to 0")
        self._begin_delete(Key(kind, namespace, name), grace_period_s)

    # Beyond the protocol.

    async def bind(self, namespace: str, name: str, node: str) -> Manifest:
        """Give a pod its node, as a scheduler does by the subresource `binding`. Raises Conflict when it has one."""
        await asyncio.sleep(0)
        pod = self._find(POD, namespace, name)
        if pod["spec"].get("nodeName"):
            raise Conflict(f"{title(POD, name)} is already assigned to node {pod['spec']['nodeName']}")
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(self._clock())}
        bound = {
            **pod,
            "spec": {**pod["spec"], "nodeName": node},
            "status": {
                **pod.get("status", {}),
                "conditions": [*pod.get("status", {}).get("conditions", []), scheduled],
            },
        }
        return _copy(self._store.put(Key(POD, namespace, name), bound))

    def compact(self) -> None:
        """Forget all history, as etcd's compaction does: watches and lists from older versions are Gone."""
        self._store.compact()

    def snapshot(self) -> Manifest:
        """All objects and the version counter, as JSON can carry them."""
        return {
            "format": SNAPSHOT_FORMAT,
            "resourceVersion": self._store.version,
            "objects": [_copy(item) for _, item in sorted(self._store.items(), key=lambda pair: _order(pair[0]))],
        }

    @classmethod
    def restore(
        cls,
        snapshot: Manifest,
        clock: Callable[[], float] = time.time,
        uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        **options: Any,
    ) -> MemoryCluster:
        """A server with a snapshot's objects and versions; watches from older versions are Gone.

        `options` are those of the constructor. Raises ValueError for a snapshot of another format or an unknown kind.
        """
        if snapshot.get("format") != SNAPSHOT_FORMAT:
            raise ValueError(f"format {snapshot.get('format')!r} of the snapshot is not {SNAPSHOT_FORMAT}")
        cluster = cls(clock, uid, **options)
        objects: dict[Key, Manifest] = {}
        for item in snapshot["objects"]:
            kind = cluster._kind_of(item["apiVersion"], item["kind"])
            if kind is None:
                raise ValueError(f"the snapshot has an object of unknown kind {item['apiVersion']} {item['kind']}")
            objects[Key(kind, item["metadata"]["namespace"], item["metadata"]["name"])] = copy_json(item)
        cluster._store.load(snapshot["resourceVersion"], objects)
        return cluster

    # Parts.

    def _resource(self, kind: Kind) -> Resource:
        try:
            return self._resources[kind]
        except KeyError:
            raise NotFound(f"the server could not find the requested resource: {kind.api_version} {kind}") from None

    def _kind_of(self, api_version: str, kind: str) -> Kind | None:
        for known in self._resources:
            if (known.api_version, known.kind) == (api_version, kind):
                return known
        return None

    def _find(self, kind: Kind, namespace: str, name: str) -> Manifest:
        self._resource(kind)
        found = self._store.get(Key(kind, namespace, name))
        if found is None:
            raise NotFound(f"{title(kind, name)} not found")
        return found

    def _watch_start(
        self, kind: Kind, namespace: str | None, selector: Selector, resource_version: str
    ) -> tuple[int, Sequence[Manifest]]:
        version = self._store.version
        if resource_version in ("", "0"):
            return version, [item for _, item in _matching(self._store.items(), kind, namespace, selector)]
        if not resource_version.isascii() or not resource_version.isdigit():
            raise BadRequest(
                f'resourceVersion: Invalid value: "{resource_version}": must be a version from this server'
            )
        if int(resource_version) > version:
            raise ApiError(
                f"Too large resource version: {resource_version}, current: {version}", status=504, reason="Timeout"
            )
        return int(resource_version), []

    def _begin_delete(self, key: Key, grace_period_s: int | None) -> None:
        found = self._store.get(key)
        assert found is not None
        meta = found["metadata"]
        if "deletionTimestamp" in meta:
            if grace_period_s is None or grace_period_s >= meta["deletionGracePeriodSeconds"]:
                return  # on its way, and not sooner by this call
            grace_s = grace_period_s
        else:
            grace_s = self._resources[key.kind].grace_s(found)
            if grace_s and grace_period_s is not None:
                grace_s = grace_period_s
        if not grace_s and not meta.get("finalizers"):
            self._remove(key)
            return
        marked = {
            **meta,
            "deletionTimestamp": rfc3339(self._clock() + grace_s),
            "deletionGracePeriodSeconds": grace_s,
        }
        if "generation" in meta and "deletionTimestamp" not in meta:
            marked["generation"] = meta["generation"] + 1
        self._store.put(key, {**found, "metadata": marked})

    def _remove(self, key: Key) -> None:
        removed = self._store.remove(key)
        uid = removed["metadata"]["uid"]
        for other, item in self._store.items():
            if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences", [])):
                self._collect(other)

    def _collect(self, key: Key) -> None:
        """Garbage collection of one object: deleted when it has owners and none of them exists."""
        item = self._store.get(key)
        if item is None:
            return  # gone with another owner meanwhile
        owners = item["metadata"].get("ownerReferences", [])
        if owners and not any(self._owner_exists(key.namespace, owner) for owner in owners):
            self._begin_delete(key, None)

    def _owner_exists(self, namespace: str, owner: Manifest) -> bool:
        kind = self._kind_of(owner["apiVersion"], owner["kind"])
        if kind is None:
            return True  # of a kind this server cannot look up: never collected by mistake
        found = self._store.get(Key(kind, namespace, owner["name"]))
        return found is not None and found["metadata"]["uid"] == owner["uid"]

    def _expire(self, resource: Resource) -> None:
        if resource.expires_s is None:
            return
        oldest = rfc3339(self._clock() - resource.expires_s)
        for key, item in self._store.items():
            if key.kind == resource.kind:
                seen = item.get("lastTimestamp") or item["metadata"]["creationTimestamp"]
                if seen < oldest:
                    self._remove(key)


def _copy(manifest: Manifest) -> Manifest:
    copied: Manifest = copy_json(manifest)
    return copied


def _order(key: Key) -> tuple[str, str, str, str]:
    return key.kind.group, key.kind.kind, key.namespace, key.name


def _matching(
    objects: Iterable[tuple[Key, Manifest]], kind: Kind, namespace: str | None, selector: Selector
) -> list[tuple[Key, Manifest]]:
    return sorted(
        (
            (key, item)
            for key, item in objects
            if key.kind == kind and namespace in (None, key.namespace) and selector(item)
        ),
        key=lambda pair: _order(pair[0]),
    )


def _selector(kind: Kind, labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> Selector:
    for path in fields or {}:
        if path not in (*_FIELDS, *(_FIELDS_OF_PODS if kind == POD else ())):
            raise BadRequest(f"field label not supported: {path}")

    def selects(manifest: Manifest) -> bool:
        carried = manifest["metadata"].get("labels", {})
        has_labels = all(carried.get(key) == value for key, value in (labels or {}).items())
        return has_labels and all(_field(manifest, path) == value for path, value in (fields or {}).items())

    return selects


def _field(manifest: Manifest, path: str) -> str:
    part, name = path.split(".")
    return str(manifest.get(part, {}).get(name, ""))


def _watch_event(change: Change, selector: Selector) -> WatchEvent | None:
    """The change as a watcher with this selector sees it: what stops to match is deleted for him."""
    before, after = change.before, change.after
    if after is not None and selector(after):
        return WatchEvent("MODIFIED" if before is not None and selector(before) else "ADDED", _copy(after))
    if before is None or not selector(before):
        return None
    last = _copy(before)
    last["metadata"]["resourceVersion"] = str(change.version)
    return WatchEvent("DELETED", last)


def _bookmark(kind: Kind, version: int) -> WatchEvent:
    return WatchEvent(
        "BOOKMARK",
        {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"resourceVersion": str(version)}},
    )


def _encode_token(version: int, after: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, after.namespace, after.name]).encode()).decode()


def _decode_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token.encode()))
        return int(version), (str(namespace), str(name))
    except (binascii.Error, UnicodeError, ValueError, TypeError):
        raise BadRequest(f'continue: Invalid value: "{token}": is no token of this server') from None

"""One pass over one job: read the caches, decide, apply.

The status is written first, on the version that was read: what follows from it is decided again from it, so the
controller may die between any two writes, and a decision made from stale caches is refused as a conflict. Events are
told after the status, children are changed last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from trainserve.kube import names
from trainserve.kube.cluster import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Cluster,
    Conflict,
    Invalid,
    Manifest,
    NotFound,
)
from trainserve.operator import events
from trainserve.operator.pytorchjob import conditions, invalid
from trainserve.operator.pytorchjob.decision import STOPPED_DEADLINE_S, Create, Decision, Delete, Event, Stop
from trainserve.operator.pytorchjob.draft import PROGRESS_EVERY_S, Draft
from trainserve.operator.pytorchjob.observed import observe
from trainserve.operator.pytorchjob.reconcile import reconcile
from trainserve.operator.status_patch import difference

log = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, str]  # namespace, name
ProgressSource: TypeAlias = Callable[[Manifest], Manifest | None]

LEFTOVER_RETRY_S = 1.0  # a job of the same name was deleted just now, and its children are being collected


@dataclass(frozen=True)
class Caches:
    """Where a pass reads: a job by namespace and name, its children by the job's uid. Nothing of it is changed."""

    job: Callable[[str, str], Manifest | None]
    pods: Callable[[str], Sequence[Manifest]]
    services: Callable[[str], Sequence[Manifest]]


class Syncer:
    """`await sync(key)` brings one job a step further; safe to repeat, to miss and to interrupt.

    `clock` gives unix seconds. `progress_source` gives a running job's `status.progress`, or None where there is none.
    """

    def __init__(
        self,
        cluster: Cluster,
        caches: Caches,
        *,
        clock: Callable[[], float] = time.time,
        progress_source: ProgressSource | None = None,
    ) -> None:
        self._cluster = cluster
        self._caches = caches
        self._clock = clock
        self._progress_source = progress_source
        self._written: dict[Key, Manifest] = {}  # jobs as our last status write left them, until the cache has them

    async def sync(self, key: Key) -> float | None:
        """Returns in how many seconds to look again without being told. Raises ApiError, to be tried again."""
        job = self._read(key)
        if job is None:
            return None
        uid = job["metadata"]["uid"]
        progress = self._progress(job)
        observed = observe(job, self._caches.pods(uid), self._caches.services(uid), progress)
        decision = reconcile(job, observed, self._clock())
        again_s = await self._apply(key, job, decision)
        if progress is not None:
            again_s = min(PROGRESS_EVERY_S, PROGRESS_EVERY_S if again_s is None else again_s)
        return again_s

    def _read(self, key: Key) -> Manifest | None:
        """The job from the cache, or as we wrote it where the cache has not caught up with that."""
        cached = self._caches.job(*key)
        written = self._written.get(key)
        if written is not None and (cached is None or not _is_behind(cached, written)):
            del self._written[key]
            written = None
        return written or cached

    def _progress(self, job: Manifest) -> Manifest | None:
        if self._progress_source is None or conditions.is_finished(job.get("status") or {}):
            return None
        try:
            return self._progress_source(job)
        except (OSError, ValueError) as error:
            log.warning("%s: progress cannot be read: %s", job["metadata"]["name"], error)
            return None

    async def _apply(self, key: Key, job: Manifest, decision: Decision) -> float | None:
        if decision.status is not None:
            job = await self._write_status(key, job, decision.status)
        for event in decision.events:
            await events.tell(self._cluster, job, event, self._clock())
        for delete in decision.deletes:
            await self._delete(job, delete)
        for stop in decision.stops:
            await self._stop(job, stop)
        again_s = decision.requeue_after_s
        for create in decision.creates:
            try:
                later_s = await self._create(job, create)
            except (BadRequest, Invalid) as error:
                # The template cannot be made a pod, now or later: that is the job's mistake, so the job fails.
                problem = f"{create.kind} {create.manifest['metadata']['name']}: {error.message}"
                return await self._apply(key, job, invalid.fail(Draft(job, self._clock()), problem))
            if later_s is not None:
                again_s = later_s if again_s is None else min(again_s, later_s)
        return again_s

    async def _write_status(self, key: Key, job: Manifest, status: Manifest) -> Manifest:
        metadata = job["metadata"]
        patch = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "status": difference(job.get("status") or {}, status),
        }
        written = await self._cluster.patch(names.PYTORCHJOB, *key, patch, subresource="status")
        self._written[key] = written
        return written

    async def _delete(self, job: Manifest, delete: Delete) -> None:
        namespace = job["metadata"]["namespace"]
        try:
            await self._cluster.delete(
                delete.kind, namespace, delete.name, uid=delete.uid, grace_period_s=delete.grace_s
            )
        except (NotFound, Conflict):
            return  # it is gone, and what is there by this name is another one
        except ApiError as error:
            await self._tell(job, "Warning", f"{names.REASON_FAILED_DELETE}{delete.kind}", f"{delete.name}: {error}")
            raise
        if delete.kind != names.PYTORCHJOB:
            message = f"Deleted {delete.kind.kind.lower()}: {delete.name}"
            await self._tell(job, "Normal", f"{names.REASON_SUCCESSFUL_DELETE}{delete.kind}", message)

    async def _stop(self, job: Manifest, stop: Stop) -> None:
        patch = {"metadata": {"uid": stop.uid}, "spec": {"activeDeadlineSeconds": STOPPED_DEADLINE_S}}
        try:
            await self._cluster.patch(names.POD, job["metadata"]["namespace"], stop.name, patch)
        except (NotFound, Conflict):
            return
        message = f"Stopped pod: {stop.name}; it stays for its logs"
        await self._tell(job, "Normal", f"{names.REASON_STOPPED}{names.POD}", message)

    async def _create(self, job: Manifest, create: Create) -> float | None:
        """Returns in how many seconds to try again where the name is not free yet."""
        name = create.manifest["metadata"]["name"]
        try:
            await self._cluster.create(create.kind, job["metadata"]["namespace"], create.manifest)
        except AlreadyExists:
            return await self._adopt(job, create)
        except ApiError as error:
            message = f"Error creating {create.kind.kind.lower()} {name}: {error.message}"
            await self._tell(job, "Warning", f"{names.REASON_FAILED_CREATE}{create.kind}", message)
            raise
        message = f"Created {create.kind.kind.lower()}: {name}"
        await self._tell(job, "Normal", f"{names.REASON_SUCCESSFUL_CREATE}{create.kind}", message)
        return None

    async def _adopt(self, job: Manifest, create: Create) -> float | None:
        """Something has the name already: our own from a moment ago, one that is going, or somebody else's."""
        name = create.manifest["metadata"]["name"]
        try:
            there = await self._cluster.get(create.kind, job["metadata"]["namespace"], name)
        except NotFound:
            return 0.0
        owner: Manifest = next(
            (owner for owner in there["metadata"].get("ownerReferences") or [] if owner.get("controller")), {}
        )
        if owner.get("uid") == job["metadata"]["uid"]:
            wanted = create.manifest["metadata"]["labels"].get(names.LABEL_GENERATION)
            return None if there["metadata"]["labels"].get(names.LABEL_GENERATION) == wanted else LEFTOVER_RETRY_S
        predecessor = owner.get("kind") == names.PYTORCHJOB.kind and owner.get("name") == job["metadata"]["name"]
        if predecessor or "deletionTimestamp" in there["metadata"]:
            return LEFTOVER_RETRY_S
        message = (
            f"Error creating {create.kind.kind.lower()} {name}: there is one of this name that does not belong to this "
            "job. hint: delete it, or give the job another name"
        )
        await self._tell(job, "Warning", f"{names.REASON_FAILED_CREATE}{create.kind}", message)
        raise AlreadyExists(message)

    async def _tell(self, job: Manifest, kind: str, reason: str, message: str) -> None:
        event = Event("Warning" if kind == "Warning" else "Normal", reason, message)
        await events.tell(self._cluster, job, event, self._clock())


def _is_behind(cached: Manifest, written: Manifest) -> bool:
    """Whether the cache shows the same object at an older version. Versions of one kind are comparable numbers."""
    if cached["metadata"]["uid"] != written["metadata"]["uid"]:
        return False
    try:
        return int(cached["metadata"]["resourceVersion"]) < int(written["metadata"]["resourceVersion"])
    except ValueError:
        return False

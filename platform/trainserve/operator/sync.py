"""One pass over one job: read the caches, decide, apply.

The status is written first, on the version that was read: what follows from it is decided again from it, so the
controller may die between any two writes, and a decision made from stale caches is refused as a conflict. Events are
told after the status, children are changed last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from trainserve.kube import names
from trainserve.kube.cluster import (
    BadRequest,
    Cluster,
    Conflict,
    Invalid,
    Manifest,
    NotFound,
)
from trainserve.operator import events
from trainserve.operator.asked import Asked
from trainserve.operator.creating import create_all
from trainserve.operator.pytorchjob import conditions, invalid, refused
from trainserve.operator.pytorchjob.decision import STOPPED_DEADLINE_S, Create, Decision, Delete, Event, Stop, Update
from trainserve.operator.pytorchjob.draft import PROGRESS_EVERY_S, Draft
from trainserve.operator.pytorchjob.observed import Observed
from trainserve.operator.pytorchjob.reading import observe
from trainserve.operator.pytorchjob.reconcile import reconcile
from trainserve.operator.refusals import Key, Refusals
from trainserve.operator.removing import delete_all
from trainserve.operator.status_patch import difference

log = logging.getLogger(__name__)

ProgressSource: TypeAlias = Callable[[Manifest], Manifest | None]
Surroundings: TypeAlias = Callable[[Manifest, Observed, float], Awaitable[Observed]]  # job, what was observed, time
StatusWritten: TypeAlias = Callable[[Manifest, Manifest, Manifest], None]  # the job, its status before and after

_COUNTS = frozenset({"replicaStatuses", "assembled", "nodes", "lastReconcileTime"})


@dataclass(frozen=True)
class Caches:
    """Where a pass reads: a job by namespace and name, its children by the job's uid. Nothing of it is changed."""

    job: Callable[[str, str], Manifest | None]
    pods: Callable[[str], Sequence[Manifest]]
    services: Callable[[str], Sequence[Manifest]]


class Syncer:
    """`await sync(key)` brings one job a step further; safe to repeat, to miss and to interrupt.

    `clock` gives unix seconds. `progress_source` gives a running job's `status.progress`, or None where there is none.
    `surroundings` adds what there is beside pods and services, and what the cluster can do for the job.
    `status_written` is told of every status that was written. A status that differs in how many pods are active or
    ended and in nothing else is written at most every `counts_every_s` seconds: a gang's pods start one by one. A job
    that has a progress is looked at again after `progress_again_s` seconds (None: its source tells what is new).
    """

    def __init__(
        self,
        cluster: Cluster,
        caches: Caches,
        *,
        clock: Callable[[], float] = time.time,
        progress_source: ProgressSource | None = None,
        status_written: StatusWritten | None = None,
        counts_every_s: float = 0.0,
        surroundings: Surroundings | None = None,
        progress_again_s: float | None = PROGRESS_EVERY_S,
    ) -> None:
        self._cluster = cluster
        self._caches = caches
        self._clock = clock
        self._progress_source = progress_source
        self._status_written = status_written
        self._counts_every_s = counts_every_s
        self._surroundings = surroundings
        self._progress_again_s = progress_again_s
        self._written_at: dict[Key, float] = {}
        self._refusals = Refusals()
        self._asked = Asked()
        self._written: dict[Key, Manifest] = {}  # jobs as our last status write left them, until the cache has them

    async def sync(self, key: Key) -> float | None:
        """Returns in how many seconds to look again without being told. Raises ApiError, to be tried again."""
        job = self._read(key)
        if job is None:
            self._refusals.forget(key)
            self._asked.forget(key)
            self._written_at.pop(key, None)
            return None
        uid = job["metadata"]["uid"]
        progress = self._progress(job)
        observed = observe(job, self._caches.pods(uid), self._caches.services(uid), progress)
        if self._surroundings is not None:
            observed = await self._surroundings(job, observed, self._clock())
        decision = self._asked.left(key, job, observed, reconcile(job, observed, self._clock()))
        again_s = await self._apply(key, job, decision)
        return again_s if progress is None else _sooner(again_s, self._progress_again_s)

    def forget_all(self) -> None:
        """Begin anew, from what the caches show: between two terms of a leader others have worked on the jobs."""
        self._refusals = Refusals()
        self._asked = Asked()
        self._written_at.clear()
        self._written.clear()

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
        again_s = decision.requeue_after_s
        if decision.status is not None:
            wait_s = self._wait_s(key, job.get("status") or {}, decision.status)
            if wait_s > 0:
                again_s = _sooner(again_s, wait_s)
            else:
                job = await self._write_status(key, job, decision.status)
        for event in decision.events:
            await events.tell(self._cluster, job, event, self._clock())
        if decision.deletes:
            await self._delete(key, job, decision.deletes)
        for stop in decision.stops:
            await self._stop(key, job, stop)
        for update in decision.updates:
            await self._update(key, job, update)
        if not decision.creates:
            return again_s
        return _sooner(again_s, await self._create(key, job, decision.creates))

    def _wait_s(self, key: Key, old: Manifest, new: Manifest) -> float:
        """Seconds until a status that says so little that is new may be written."""
        changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        if changed - _COUNTS:
            return 0.0
        return max(0.0, self._written_at.get(key, 0.0) + self._counts_every_s - self._clock())

    async def _write_status(self, key: Key, job: Manifest, status: Manifest) -> Manifest:
        metadata = job["metadata"]
        patch = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "status": difference(job.get("status") or {}, status),
        }
        written = await self._cluster.patch(names.PYTORCHJOB, *key, patch, subresource="status")
        self._written[key] = written
        self._written_at[key] = self._clock()
        if self._status_written is not None:
            self._status_written(written, job.get("status") or {}, written.get("status") or {})
        return written

    async def _delete(self, key: Key, job: Manifest, deletes: Sequence[Delete]) -> None:
        removed = await delete_all(self._cluster, job["metadata"]["namespace"], deletes)
        self._asked.note(key, removed.done)
        for event in events.of_deleted(removed.done):
            await events.tell(self._cluster, job, event, self._clock())
        if removed.failed is not None:
            delete, error = removed.failed
            await self._tell(job, "Warning", f"{names.REASON_FAILED_DELETE}{delete.kind}", f"{delete.name}: {error}")
            raise error

    async def _stop(self, key: Key, job: Manifest, stop: Stop) -> None:
        patch = {"metadata": {"uid": stop.uid}, "spec": {"activeDeadlineSeconds": STOPPED_DEADLINE_S}}
        try:
            await self._cluster.patch(names.POD, job["metadata"]["namespace"], stop.name, patch)
        except (NotFound, Conflict):
            return
        self._asked.note(key, (stop,))
        message = f"Stopped pod: {stop.name}; it stays for its logs"
        await self._tell(job, "Normal", f"{names.REASON_STOPPED}{names.POD}", message)

    async def _update(self, key: Key, job: Manifest, update: Update) -> None:
        """Raises Conflict where another object has the name meanwhile: that is seen in the next pass."""
        patch = {**update.patch, "metadata": {**update.patch.get("metadata", {}), "uid": update.uid}}
        try:
            await self._cluster.patch(update.kind, job["metadata"]["namespace"], update.name, patch)
        except (BadRequest, Invalid) as error:  # the job's mistake: its pods go on with what there is
            self._asked.note(key, (update,))
            reason = f"{names.REASON_FAILED_UPDATE}{update.kind}"
            await self._tell(job, "Warning", reason, f"{update.name}: {error.message}")

    async def _create(self, key: Key, job: Manifest, creates: Sequence[Create]) -> float | None:
        """Returns in how many seconds to try again, where not everything could be created."""
        wait_s = self._refusals.wait_s(key, job, self._clock())
        if wait_s > 0:
            creates = self._refusals.before(key, creates)
        done = await create_all(self._cluster, job, creates)
        for event in events.of_created(done.manifests):
            await events.tell(self._cluster, job, event, self._clock())
        if done.failed is None:
            if wait_s > 0:
                return _sooner(wait_s, done.again_s)
            self._refusals.forget(key)
            return done.again_s
        create, error = done.failed
        if isinstance(error, (BadRequest, Invalid)) and not refused.is_refusal(error):
            # The template cannot be made a pod, now or later: that is the job's mistake, so the job fails.
            problem = f"{create.kind} {create.manifest['metadata']['name']}: {error.message}"
            return await self._apply(key, job, invalid.fail(Draft(job, self._clock()), problem))
        if not refused.is_refusal(error):
            raise error
        again_s = self._refusals.record(key, job, create.kind, self._clock())
        decision = refused.told(Draft(job, self._clock()), create, error)
        return _sooner(again_s, await self._apply(key, job, decision))

    async def _tell(self, job: Manifest, kind: str, reason: str, message: str) -> None:
        event = Event("Warning" if kind == "Warning" else "Normal", reason, message)
        await events.tell(self._cluster, job, event, self._clock())


def _sooner(first_s: float | None, second_s: float | None) -> float | None:
    return min((wait_s for wait_s in (first_s, second_s) if wait_s is not None), default=None)


def _is_behind(cached: Manifest, written: Manifest) -> bool:
    """Whether the cache shows the same object at an older version. Versions of one kind are comparable numbers."""
    if cached["metadata"]["uid"] != written["metadata"]["uid"]:
        return False
    try:
        return int(cached["metadata"]["resourceVersion"]) < int(written["metadata"]["resourceVersion"])
    except ValueError:
        return False

"""The status that one pass is writing, and the events to tell once it is written."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339, unix
from trainserve.operator.pytorchjob import columns, conditions, counting
from trainserve.operator.pytorchjob.decision import Create, Decision, Delete, Event, Stop, Update
from trainserve.operator.pytorchjob.observed import Pod

PROGRESS_EVERY_S = 5.0  # a status written for progress alone costs a write of every job in the cluster
_PROGRESS = {"progress", "progressSummary", "eta"}
_LONGEST_MESSAGE = 1024  # letters; what an Event may hold


def run_policy(job: Manifest) -> Manifest:
    """`spec.runPolicy`; {} also where a job is so wrong that there is none to read."""
    spec = job.get("spec")
    policy = spec.get("runPolicy") if isinstance(spec, dict) else None
    return policy if isinstance(policy, dict) else {}


class Draft:
    """A copy of the job's status to write into. The job itself is never changed."""

    def __init__(self, job: Manifest, now: float) -> None:
        self.job = job
        self.now = now
        self.status: Manifest = copy.deepcopy(job.get("status") or {})
        self._events: list[Event] = []
        self._look_again_s: list[float] = []

    @property
    def name(self) -> str:
        name: str = self.job["metadata"]["name"]
        return name

    @property
    def run_policy(self) -> Manifest:
        return run_policy(self.job)

    @property
    def generation(self) -> int:
        return int(self.status.get("generation") or 0)

    @property
    def restarts(self) -> int:
        return int(self.status.get("restarts") or 0)

    def look_again(self, after_s: float) -> None:
        """Decide again after `after_s` seconds at the latest."""
        self._look_again_s.append(max(after_s, 0.0))

    def tell(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self._events.append(Event(kind, reason, message[:_LONGEST_MESSAGE]))

    def condition(self, condition_type: str, reason: str, message: str, kind: Literal["Normal", "Warning"]) -> None:
        """Set a condition to True, with an event when that says something new."""
        if conditions.set_condition(self.status, condition_type, reason, message, self.now):
            self.tell(kind, reason, message)

    def start_clock(self) -> None:
        """`startTime`, which activeDeadlineSeconds counts from: when the job first was not suspended."""
        self.status.setdefault("startTime", rfc3339(self.now))

    def started_at(self) -> float:
        return unix(self.status.get("startTime")) or self.now

    def next_generation(self) -> None:
        """From now on the pods of the gang before are old: to be deleted, and no longer evidence of anything."""
        self.status["generation"] = self.generation + 1
        self.status.pop("podRestarts", None)

    def count(self, replica_statuses: Manifest) -> None:
        self.status["replicaStatuses"] = replica_statuses
        self.status["nodes"] = columns.nodes(self.job, replica_statuses)
        self.status.setdefault("restarts", 0)  # a column of kubectl's would be empty

    def succeed(self, pods: Iterable[Pod]) -> None:
        self.count(counting.final_statuses(self.job, pods, succeeded=True))
        message = names.MESSAGE_SUCCEEDED.format(job=self.name)
        self._finish(names.SUCCEEDED, names.REASON_SUCCEEDED, message, "Normal")

    def fail(self, reason: str, message: str, pods: Iterable[Pod] = (), cause: str | None = None) -> None:
        """The end of the job. `cause` is the sentence of the failure that led to it."""
        self.count(counting.final_statuses(self.job, pods, succeeded=False))
        if cause is not None:
            self.status["cause"] = cause
        self._finish(names.FAILED, reason, message, "Warning")

    def _finish(self, condition: str, reason: str, message: str, kind: Literal["Normal", "Warning"]) -> None:
        self.condition(condition, reason, message, kind)
        self.status["completionTime"] = rfc3339(self.now)
        self.status.pop("podRestarts", None)
        self.look_again(0.0)  # what is to be cleaned up follows from the status, once it is written

    def decision(
        self,
        *,
        deletes: Iterable[Delete] = (),
        stops: Iterable[Stop] = (),
        updates: Iterable[Update] = (),
        creates: Iterable[Create] = (),
    ) -> Decision:
        """Everything together; the status only when it says something new."""
        return Decision(
            status=self._new_status(),
            events=tuple(self._events),
            deletes=tuple(deletes),
            stops=tuple(stops),
            updates=tuple(updates),
            creates=tuple(creates),
            requeue_after_s=min(self._look_again_s, default=None),
        )

    def _new_status(self) -> Manifest | None:
        old = self.job.get("status") or {}
        if not conditions.is_finished(old):
            columns.fill(self.status)
        changed = {key for key in {*old, *self.status} if old.get(key) != self.status.get(key)} - {"lastReconcileTime"}
        if not changed:
            return None
        if changed <= _PROGRESS and "progress" in old:
            written_at = unix(old.get("lastReconcileTime")) or 0.0
            too_early_s = written_at + PROGRESS_EVERY_S - self.now
            if too_early_s > 0:
                self.look_again(too_early_s)
                return None
        self.status["lastReconcileTime"] = rfc3339(self.now)
        return self.status

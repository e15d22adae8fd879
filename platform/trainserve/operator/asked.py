"""What the API server has already agreed to delete or to stop, and the caches do not show yet.

A finalizer, a grace period or a slow watch lets an object stand for a while. It is asked to go once, and told once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob.decision import Decision, Delete, Stop
from trainserve.operator.pytorchjob.observed import Observed
from trainserve.operator.refusals import Key

Mark: TypeAlias = tuple[type[Delete | Stop], str]  # what was asked, of which uid


class Asked:
    """Of each job: deletes and stops that were accepted, for as long as the object is seen as if they were not."""

    def __init__(self) -> None:
        self._of: dict[Key, set[Mark]] = {}

    def left(self, key: Key, job: Manifest, observed: Observed, decision: Decision) -> Decision:
        """`decision` without what was accepted before."""
        standing = _standing(job, observed)
        asked = {mark for mark in self._of.get(key, ()) if mark[1] in standing}
        if not asked:
            self.forget(key)
            return decision
        self._of[key] = asked
        return replace(
            decision,
            deletes=tuple(delete for delete in decision.deletes if _mark(delete) not in asked),
            stops=tuple(stop for stop in decision.stops if _mark(stop) not in asked),
        )

    def note(self, key: Key, accepted: Iterable[Delete | Stop]) -> None:
        """The server has said yes to these."""
        self._of.setdefault(key, set()).update(map(_mark, accepted))

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._of.pop(key, None)


def _mark(change: Delete | Stop) -> Mark:
    return type(change), change.uid


def _standing(job: Manifest, observed: Observed) -> set[str]:
    """Uids of the job and its children that are there and not on their way out, as far as the caches show."""
    children = (*observed.pods, *observed.services, *observed.pod_groups, *observed.autoscalers)
    found = {child.uid for child in children if not child.deleting}
    return found if "deletionTimestamp" in job["metadata"] else found | {job["metadata"]["uid"]}

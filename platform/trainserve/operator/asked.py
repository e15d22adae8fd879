"""What the API server has answered once and for all: the same is not asked again, nor told again.

It has agreed to delete or to stop an object, which a finalizer, a grace period or a slow watch lets stand for a while;
or it has refused a change as wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob.decision import Decision, Delete, Stop, Update
from trainserve.operator.pytorchjob.observed import Autoscaler, Observed, Pod, PodGroup, Service
from trainserve.operator.refusals import Key

Change: TypeAlias = Delete | Stop | Update
Mark: TypeAlias = tuple[str, type[Change], str]  # the object's uid, what was asked of it, and how it was to change


class Asked:
    """Of each job: what was asked, for as long as the object is seen as if it was not."""

    def __init__(self) -> None:
        self._of: dict[Key, set[Mark]] = {}

    def left(self, key: Key, job: Manifest, observed: Observed, decision: Decision) -> Decision:
        """`decision` without what was answered before."""
        standing = _standing(job, observed)
        asked = {mark for mark in self._of.get(key, ()) if mark[0] in standing}
        if not asked:
            self.forget(key)
            return decision
        self._of[key] = asked
        return replace(
            decision,
            deletes=tuple(delete for delete in decision.deletes if _mark(delete) not in asked),
            stops=tuple(stop for stop in decision.stops if _mark(stop) not in asked),
            updates=tuple(update for update in decision.updates if _mark(update) not in asked),
        )

    def note(self, key: Key, answered: Iterable[Change]) -> None:
        """The server has answered these."""
        self._of.setdefault(key, set()).update(map(_mark, answered))

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._of.pop(key, None)


def _mark(change: Change) -> Mark:
    return change.uid, type(change), json.dumps(change.patch, sort_keys=True) if isinstance(change, Update) else ""


def _standing(job: Manifest, observed: Observed) -> set[str]:
    """Uids of the job and its children that are there and not on their way out, as far as the caches show."""
    children: list[Pod | Service | PodGroup | Autoscaler] = [*observed.pods, *observed.services]
    children += [*observed.pod_groups, *observed.autoscalers]
    found = {child.uid for child in children if not child.deleting}
    return found if "deletionTimestamp" in job["metadata"] else found | {job["metadata"]["uid"]}

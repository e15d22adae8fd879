"""What a reconcile decides: data, to be applied by `operator.sync` in the order of the fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainserve.kube.cluster import Manifest
from trainserve.kube.names import Kind

STOPPED_DEADLINE_S = 1  # the smallest activeDeadlineSeconds that the API accepts: over at once


@dataclass(frozen=True)
class Event:
    """A fact about the job, told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Delete:
    """Delete this very object: another one of the same name has another uid."""

    kind: Kind
    name: str
    uid: str
    grace_s: int | None = None  # None: the pod's own


@dataclass(frozen=True)
class Stop:
    """End a pod's processes and keep the object and its logs: its `activeDeadlineSeconds` is lowered to the past."""

    name: str
    uid: str


@dataclass(frozen=True)
class Create:
    kind: Kind
    manifest: Manifest


@dataclass(frozen=True)
class Update:
    """Change this very object by a merge patch."""

    kind: Kind
    name: str
    uid: str
    patch: Manifest


@dataclass(frozen=True)
class Decision:
    """The status first: whatever follows from it is decided again from it if the controller dies in between.

    status         the whole new status, or None when the one that is written says the same
    events         told after the status was written
    deletes, stops, updates, creates   in this order
    requeue_after_s   look again after so long even if nothing is seen to change
    """

    status: Manifest | None = None
    events: tuple[Event, ...] = ()
    deletes: tuple[Delete, ...] = ()
    stops: tuple[Stop, ...] = ()
    updates: tuple[Update, ...] = ()
    creates: tuple[Create, ...] = ()
    requeue_after_s: float | None = None

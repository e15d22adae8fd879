"""A pod's status as a kubelet writes it: pure, from what happened to its containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339
from trainserve.machine.ports import LOOPBACK

CRASH_LOOP = "CrashLoopBackOff"


@dataclass(frozen=True)
class Ended:
    """How a container ended; times in unix seconds."""

    code: int
    reason: str  # Completed, Error, OOMKilled, ContainerCannotRun
    message: str
    started: float
    finished: float
    container_id: str = ""


@dataclass
class ContainerState:
    """One container over its restarts. Waiting where it neither runs nor has ended for good."""

    name: str
    image: str = ""
    restarts: int = 0
    running_since: float | None = None
    container_id: str = ""
    ended: Ended | None = None  # for good, or until the next start
    previous: Ended | None = None
    waiting: str = "ContainerCreating"
    waiting_message: str = ""

    def status(self) -> Manifest:
        """The container's entry in containerStatuses."""
        is_running = self.running_since is not None
        entry: Manifest = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": is_running or (self.ended is not None and self.ended.code == 0),
            "started": is_running,
            "restartCount": self.restarts,
            "state": self._state(),
        }
        if self.container_id:
            entry["containerID"] = self.container_id
        if self.previous is not None:
            entry["lastState"] = {"terminated": terminated(self.previous)}
        return entry

    def _state(self) -> Manifest:
        if self.running_since is not None:
            return {"running": {"startedAt": rfc3339(self.running_since)}}
        if self.ended is not None:
            return {"terminated": terminated(self.ended)}
        message = {"message": self.waiting_message} if self.waiting_message else {}
        return {"waiting": {"reason": self.waiting, **message}}


def terminated(ended: Ended) -> Manifest:
    state: Manifest = {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": rfc3339(ended.started),
        "finishedAt": rfc3339(ended.finished),
    }
    if ended.message:
        state["message"] = ended.message
    if ended.container_id:
        state["containerID"] = ended.container_id
    return state


def phase(containers: Sequence[ContainerState], *, initialized: bool, over: bool) -> str:
    """Pending, Running, Succeeded or Failed. `over`: no container will be started any more."""
    if over:
        ended_well = all(state.ended is not None and state.ended.code == 0 for state in containers)
        return "Succeeded" if initialized and ended_well else "Failed"
    started = any(state.running_since or state.ended or state.restarts for state in containers)
    return "Running" if initialized and started else "Pending"


def pod_status(
    now: float,
    *,
    old: Mapping[str, object],
    phase: str,
    init: Sequence[ContainerState],
    containers: Sequence[ContainerState],
    initialized: bool,
    started: float,
    reason: str = "",
    message: str = "",
) -> Manifest:
    """The whole status. `old` is the one it replaces: conditions that keep their status keep their time."""
    ready = phase == "Running" and all(state.running_since is not None for state in containers)
    why_not = "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"
    values = [
        ("PodScheduled", True, ""),
        ("Initialized", initialized, "ContainersNotInitialized"),
        ("ContainersReady", ready, why_not),
        ("Ready", ready, why_not),
    ]
    status: Manifest = {
        "phase": phase,
        "hostIP": LOOPBACK,
        "podIP": LOOPBACK,
        "podIPs": [{"ip": LOOPBACK}],
        "startTime": rfc3339(started),
        "qosClass": "BestEffort",
        "conditions": [_condition(now, old, *value) for value in values],
        "containerStatuses": [state.status() for state in containers],
    }
    if init:
        status["initContainerStatuses"] = [state.status() for state in init]
    if reason:
        status |= {"reason": reason, "message": message}
    return status


def _condition(now: float, old: Mapping[str, object], kind: str, holds: bool, why_not: str) -> Manifest:
    value = "True" if holds else "False"
    before = old.get("conditions") or []
    assert isinstance(before, list)
    since = next(
        (c.get("lastTransitionTime") for c in before if c["type"] == kind and c["status"] == value), rfc3339(now)
    )
    condition: Manifest = {"type": kind, "status": value, "lastTransitionTime": since}
    if not holds:
        condition["reason"] = why_not
    return condition

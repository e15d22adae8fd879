"""What the pods of a job wait for, in one line: pure, from the job, its pods and its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.observe.why.evidence import ON_ITS_WAY

_MOST_NAMES = 3


def waits_for(job: Manifest, pods: Sequence[Manifest], events: Iterable[Manifest] = ()) -> str | None:
    """Why not every pod runs; None where all do. What is refused goes before what is only on its way."""
    conditions = (job.get("status") or {}).get("conditions") or []
    pending = next((each for each in conditions if each["type"] == names.PENDING and each["status"] == "True"), None)
    if not pods:
        if pending:
            return str(pending.get("message") or pending.get("reason"))
        return None if conditions else "the controller has not seen the job yet: is it installed, and does it run?"
    said: dict[str, list[str]] = {}
    newest = _newest(events)
    unplaced = bool(pending and pending.get("message"))  # told of all such pods together
    for pod in pods:
        reason = None if unplaced and _is_unplaced(pod) else _of_pod(pod, newest.get(pod["metadata"]["name"]))
        if reason:
            said.setdefault(reason, []).append(pod["metadata"]["name"])
    parts = [f"{_some(who)}: {reason}" for reason, who in said.items()]
    if pending and unplaced and any(map(_is_unplaced, pods)):
        parts.insert(0, str(pending["message"]))
    return "; ".join(parts) or None


def _is_unplaced(pod: Manifest) -> bool:
    return not pod["spec"].get("nodeName") and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _of_pod(pod: Manifest, event: Manifest | None) -> str | None:
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (each.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in ON_ITS_WAY:
            message = waiting.get("message") or ""
            return f"{waiting.get('reason')}: {message}" if message else str(waiting.get("reason"))
    if status.get("phase") == "Running":
        return None
    scheduled = {each["type"]: each for each in status.get("conditions") or []}.get(names.CONDITION_POD_SCHEDULED)
    if scheduled and scheduled["status"] == "False":
        return f"{scheduled.get('reason')}: {scheduled.get('message') or 'no node yet'}"
    if any("running" in (each.get("state") or {}) for each in status.get("initContainerStatuses") or []):
        return "waits for the master"
    if event is not None:
        return f"{event.get('reason')}: {event.get('message', '')}"
    return "has no node yet" if not pod["spec"].get("nodeName") else f"starts on {pod['spec']['nodeName']}"


def _newest(events: Iterable[Manifest]) -> dict[str, Manifest]:
    """The newest event of each object, by name."""
    found: dict[str, Manifest] = {}
    for event in sorted(events, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or "")):
        found[event.get("involvedObject", {}).get("name", "")] = event
    return found


def _some(who: Sequence[str]) -> str:
    shown = ", ".join(who[:_MOST_NAMES])
    return shown if len(who) <= _MOST_NAMES else f"{shown} and {len(who) - _MOST_NAMES} more"

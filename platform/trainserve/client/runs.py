"""Runs as data: one in a few numbers, one whole, all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from trainserve.errors import PlatformError
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local import rundir
from trainserve.local.rundir import RunDir
from trainserve.observe import events
from trainserve.observe.summary import Summary, summarize

POLL_S = 0.2
CLUSTER_SCHEME = "k8s://"
DAMAGED = "Damaged"  # a state that only a list and a cancel know: elsewhere it is an error


class PodRow(TypedDict):
    """One pod of a run."""

    pod: str
    phase: str  # Kubernetes', or Terminating
    exit: int | str  # code; "" while there is none
    reason: str


class EventRow(TypedDict):
    """One Kubernetes Event of a run."""

    since: str  # RFC 3339
    type: str  # Normal or Warning
    reason: str
    object: str
    count: int
    message: str


class RunStatus(Summary):
    """One run, whole: what `platform status -o json` prints."""

    folder: str
    cause: str | None  # of the last failure
    generation: int | None  # gang starts so far
    conditions: list[dict[str, Any]]  # as the PyTorchJob has them
    events: list[EventRow]
    pods: list[PodRow]
    ranks: list[dict[str, Any]]  # rank, localRank, node, pid, pod; of what runs now


def reference(run: Mapping[str, Any]) -> str:
    """What every verb knows the run by, wherever it is: its name, or `k8s://NAMESPACE/NAME[@CONTEXT]`."""
    namespace, context = run.get("namespace"), run.get("context")
    if not namespace:
        return str(run["name"])
    return f"{CLUSTER_SCHEME}{namespace}/{run['name']}" + (f"@{context}" if context else "")


def summary(run: RunDir) -> Summary:
    """The run in a few numbers, as of now. Raises Damaged, and EnvironmentProblem when its folder is gone."""
    run.check_there()
    state = run.state()
    found = summarize(run.name, state, run.known_job(), events.ends(run.events_path))
    if state == names.INTERRUPTED:
        found["message"] = run.why_interrupted()  # the newest condition says that it runs
    return found


def summaries() -> list[Summary]:
    """All runs on this machine, newest first. One that cannot be read is Damaged, with the reason as its message."""
    found = [(run, readable(run)) for run in rundir.all_runs()]
    # What was removed while they were read is none any more.
    return sorted((each for run, each in found if run.path.is_dir()), key=lambda each: -(each["created"] or 0))


def readable(run: RunDir) -> Summary:
    """One run, also where it cannot be read: its state is Damaged then, and its message says why and what helps."""
    try:
        return summary(run)
    except (PlatformError, OSError) as error:
        damaged = summarize(run.name, DAMAGED, None, [])
        damaged["message"] = str(error)
        if isinstance(error, PlatformError):
            damaged["message"] = f"{error.message} ({error.hint})" if error.hint else error.message
        return damaged


def status(run: RunDir) -> RunStatus:
    """One run, whole."""
    job_status = (run.job() or {}).get("status", {})
    told = sorted((event_row(event) for event in run.objects(names.EVENT)), key=lambda event: event["since"])
    return {
        **summary(run),
        "folder": str(run.path),
        "cause": job_status.get("cause"),
        "generation": job_status.get("generation"),
        "conditions": job_status.get("conditions", []),
        "events": told,
        "pods": [pod_row(pod) for pod in run.pods()],
        "ranks": [
            {"localRank" if key == "local_rank" else key: value for key, value in row.items()} for row in run.ranks()
        ],
    }


def told(run: RunDir, *, follow: bool = False) -> Iterator[EventRow]:
    """Kubernetes' Events of a run, oldest first; with `follow` new ones and further counts, until the run ends."""
    seen: dict[str, int] = {}
    while True:
        alive = run.alive()  # before the events, so that nothing that was told before the end is missed
        run.check_there()
        found = sorted(run.objects(names.EVENT), key=lambda event: event_row(event)["since"])
        for event in found:
            row = event_row(event)
            if seen.get(event["metadata"]["name"]) != row["count"]:
                seen[event["metadata"]["name"]] = row["count"]
                yield row
        if not (follow and alive):
            return
        time.sleep(POLL_S)


def pod_row(pod: Manifest) -> PodRow:
    """A pod, whoever runs it."""
    status = pod.get("status", {})
    state = ((status.get("containerStatuses") or [{}])[0]).get("state", {})
    ended = state.get("terminated", {})
    waiting = state.get("waiting", {})
    return {
        "pod": pod["metadata"]["name"],
        "phase": "Terminating" if "deletionTimestamp" in pod["metadata"] else status.get("phase", "Pending"),
        "exit": ended.get("exitCode", ""),
        "reason": status.get("reason") or ended.get("reason") or waiting.get("reason") or "",
    }


def event_row(event: Manifest) -> EventRow:
    """A core/v1 Event."""
    return {
        "since": event.get("lastTimestamp") or event.get("eventTime") or "",
        "type": event.get("type", ""),
        "reason": event.get("reason", ""),
        "object": event.get("involvedObject", {}).get("name", ""),
        "count": event.get("count") or 1,
        "message": event.get("message", ""),
    }

"""After the end: cleanPodPolicy says which pods go. Those that stay are stopped: none holds a GPU for nothing."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.moments import unix
from trainserve.operator.pytorchjob import autoscale, conditions, gang
from trainserve.operator.pytorchjob.decision import STOPPED_DEADLINE_S, Decision, Delete, Stop
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Observed, Pod

# Workers of a job that succeeded are about to end by themselves; after so long they are not.
END_BY_ITSELF_S = 60.0


def clean(draft: Draft, observed: Observed) -> Decision:
    policy = draft.run_policy.get("cleanPodPolicy") or "None"
    pods: list[Pod] = []
    services: set[str] = set()
    stops: list[Stop] = []
    if policy == "All":
        pods = list(observed.pods)
        services = {service.name for service in observed.services}
    elif policy == "Running":  # Pending counts as Running
        pods = [pod for pod in observed.pods if not pod.ended]
        services = {pod.name for pod in pods}
    elif _may_stop(draft, observed):
        # A pod that never started has no log to keep, and may still make a cluster grow.
        pods = [pod for pod in observed.pods if not pod.ended and pod.started_at is None]
        stops = [Stop(pod.name, pod.uid) for pod in observed.pods if _must_be_stopped(pod)]
    deletes = [Delete(names.POD, pod.name, pod.uid) for pod in pods if not pod.deleting]
    deletes += [
        Delete(names.SERVICE, service.name, service.uid)
        for service in observed.services
        if service.name in services and not service.deleting
    ]
    deletes += autoscale.all_of(observed)
    if all(pod.ended for pod in observed.pods):
        deletes += gang.all_of(observed)
    return draft.decision(deletes=deletes, stops=stops)


def _may_stop(draft: Draft, observed: Observed) -> bool:
    if conditions.is_true(draft.status, names.FAILED) or all(pod.ended for pod in observed.pods):
        return True
    left_s = (unix(conditions.finished_at(draft.status)) or 0.0) + END_BY_ITSELF_S - draft.now
    if left_s > 0:
        draft.look_again(left_s)
    return left_s <= 0


def _must_be_stopped(pod: Pod) -> bool:
    if pod.ended or pod.deleting or pod.started_at is None or _ends_by_itself(pod):
        return False
    deadline_s = (pod.raw.get("spec") or {}).get("activeDeadlineSeconds")
    return deadline_s is None or deadline_s > STOPPED_DEADLINE_S


def _ends_by_itself(pod: Pod) -> bool:
    """No container of it will run again: its phase is a moment late, and a deadline would become the pod's reason."""
    spec, status = pod.raw.get("spec") or {}, pod.raw.get("status") or {}
    ends = [(each.get("state") or {}).get("terminated") for each in status.get("containerStatuses") or []]
    return spec.get("restartPolicy") == "Never" and len(ends) == len(spec["containers"]) and all(ends)

"""Suspending stops the pods with their grace, so that they checkpoint; resuming starts a new generation.

`Suspended` becomes True when the last pod is gone: from then on nothing of the job holds a resource, and whatever the
pods had to save is saved. Until then `Running` is False and `replicaStatuses` count the pods that are still there.
"""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339
from trainserve.operator.pytorchjob import autoscale, conditions, counting, gang
from trainserve.operator.pytorchjob.decision import Decision, Delete
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Observed


def is_wanted(job: Manifest) -> bool:
    return bool((job["spec"].get("runPolicy") or {}).get("suspend"))


def stop(draft: Draft, observed: Observed) -> Decision:
    """Everything goes, pods first: while they save what they have, their names still resolve."""
    # A generation that is being stopped is over: should the job be resumed while pods of it are ending, their exit
    # codes are nobody's failure.
    if observed.of_generation(draft.generation):
        draft.next_generation()
    draft.count(counting.alive_statuses(draft.job, observed.pods))
    reason_given = (draft.job["metadata"].get("annotations") or {}).get(names.ANNOTATION_SUSPEND_REASON)
    message = names.MESSAGE_SUSPENDED.format(job=draft.name) + (f" Reason: {reason_given}" if reason_given else "")
    autoscalers = autoscale.all_of(observed)
    if observed.pods:
        if conditions.is_true(draft.status, names.RUNNING) or conditions.is_true(draft.status, names.RESTARTING):
            conditions.end_running(draft.status, names.REASON_SUSPENDED, message, draft.now)
        return draft.decision(
            deletes=[
                *autoscalers,
                *(Delete(names.POD, pod.name, pod.uid) for pod in observed.pods if not pod.deleting),
            ]
        )
    if not conditions.is_true(draft.status, names.SUSPENDED):
        draft.condition(names.SUSPENDED, names.REASON_SUSPENDED, message, "Normal")
    services = [
        Delete(names.SERVICE, service.name, service.uid) for service in observed.services if not service.deleting
    ]
    return draft.decision(deletes=[*autoscalers, *services, *gang.all_of(observed)])


def resume(draft: Draft) -> None:
    """The job is wanted again: its clock starts anew."""
    message = names.MESSAGE_RESUMED.format(job=draft.name)
    conditions.resume(draft.status, names.REASON_RESUMED, message, draft.now)
    draft.status["startTime"] = rfc3339(draft.now)
    draft.tell("Normal", names.REASON_RESUMED, message)

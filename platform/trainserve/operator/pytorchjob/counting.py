"""How many pods of each replica type are active, succeeded and failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.replicas import replica_counts
from trainserve.operator.pytorchjob.observed import Pod


def replica_statuses(job: Manifest, pods: Iterable[Pod]) -> Manifest:
    """`status.replicaStatuses`. Running is active, Running and being deleted is failed, Pending is not counted."""
    pods = list(pods)
    return {
        replica_type: {
            "active": _count(pods, replica_type, lambda pod: pod.phase == "Running" and not pod.deleting),
            "succeeded": _count(pods, replica_type, lambda pod: pod.phase == "Succeeded"),
            "failed": _count(
                pods, replica_type, lambda pod: pod.phase == "Failed" or (pod.phase == "Running" and pod.deleting)
            ),
            "selector": _selector(job, replica_type),
        }
        for replica_type in replica_counts(job)
    }


def alive_statuses(job: Manifest, pods: Iterable[Pod]) -> Manifest:
    """While a job is being suspended: a pod is active until it is gone, because it holds its resources until then."""
    pods = list(pods)
    return {
        replica_type: {
            "active": _count(pods, replica_type, lambda pod: not pod.ended),
            "succeeded": 0,
            "failed": 0,
            "selector": _selector(job, replica_type),
        }
        for replica_type in replica_counts(job)
    }


def final_statuses(job: Manifest, pods: Iterable[Pod], *, succeeded: bool) -> Manifest:
    """At the end nothing is active: pods that still run count as succeeded with the job, as upstream has it."""
    statuses = replica_statuses(job, pods)
    for counts in statuses.values():
        if succeeded:
            counts["succeeded"] += counts["active"]
        counts["active"] = 0
    return statuses


def _count(pods: Iterable[Pod], replica_type: str, wanted: Callable[[Pod], bool]) -> int:
    return sum(1 for pod in pods if pod.replica_type == replica_type and wanted(pod))


def _selector(job: Manifest, replica_type: str) -> str:
    labels = {**names.job_selector(job["metadata"]["name"]), names.LABEL_REPLICA_TYPE: replica_type.lower()}
    return ",".join(f"{name}={value}" for name, value in labels.items())

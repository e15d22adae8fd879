"""When a job has succeeded."""

from __future__ import annotations

from collections.abc import Iterable

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.replicas import is_elastic, replica_counts
from trainserve.operator.pytorchjob.observed import Pod


def has_succeeded(job: Manifest, pods: Iterable[Pod]) -> bool:
    """The Master decides; without one all Workers, and in an elastic job any of them. `pods`: of one generation."""
    done = {(pod.replica_type, pod.index) for pod in pods if pod.phase == "Succeeded"}
    counts = replica_counts(job)
    if names.REPLICA_MASTER in counts:
        return (names.REPLICA_MASTER, 0) in done
    workers = [(names.REPLICA_WORKER, index) in done for index in range(counts[names.REPLICA_WORKER])]
    return any(workers) if is_elastic(job) else all(workers)

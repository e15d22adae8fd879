"""What a PyTorchJob says about its replicas, read from the raw, defaulted object: counts, ranks, who is the master.

The functions expect what `spec.pytorchjob.default` returns; source: kubeflow.org/v1 of the Training Operator v1.9.
"""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest


def replica_counts(job: Manifest) -> dict[str, int]:
    """Number of replicas by type, Master first."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    order = (names.REPLICA_MASTER, names.REPLICA_WORKER)
    return {kind: int(specs[kind].get("replicas", 1)) for kind in order if kind in specs}


def total_replicas(job: Manifest) -> int:
    """Nodes of the job: pods, not processes."""
    return sum(replica_counts(job).values())


def replicas(job: Manifest) -> list[tuple[str, int]]:
    """Every (type, index) of the job, in the order of node ranks."""
    return [(kind, index) for kind, count in replica_counts(job).items() for index in range(count)]


def node_rank(job: Manifest, replica_type: str, index: int) -> int:
    """Master 0 and Worker i is i + 1; without a Master, Worker i is i."""
    after_master = replica_type == names.REPLICA_WORKER and names.REPLICA_MASTER in replica_counts(job)
    return index + 1 if after_master else index


def restart_policy(job: Manifest, replica_type: str) -> str:
    """The replica's own policy: Always, OnFailure, Never or ExitCode."""
    return str(job["spec"]["pytorchReplicaSpecs"][replica_type].get("restartPolicy", "OnFailure"))


def is_elastic(job: Manifest) -> bool:
    """Whether torchrun itself takes members in and out: pods come and go one by one."""
    return job["spec"].get("elasticPolicy") is not None


def is_gang(job: Manifest) -> bool:
    """All pods start and stop together: a rank that came back alone would meet peers that wait for the old one."""
    annotations = job["metadata"].get("annotations") or {}
    return not is_elastic(job) and annotations.get(names.ANNOTATION_RESTART) != names.RESTART_IN_PLACE


def leader(job: Manifest) -> tuple[str, int]:
    """(type, index) of the pod that holds the master's port: the Master, else Worker 0."""
    for kind, count in replica_counts(job).items():
        if count:
            return kind, 0
    raise ValueError("a job without replicas has no leader")  # the validation of the job rules this out


def main_container(template_spec: Manifest) -> Manifest:
    """The container named `pytorch` of a pod spec."""
    for container in template_spec.get("containers") or []:
        if container.get("name") == names.CONTAINER:
            found: Manifest = container
            return found
    raise ValueError(f"no container named {names.CONTAINER!r}")  # the validation of the job rules this out


def port(job: Manifest, replica_type: str) -> int:
    """The port named `pytorchjob-port` of the replica's `pytorch` container."""
    container = main_container(job["spec"]["pytorchReplicaSpecs"][replica_type]["template"]["spec"])
    for entry in container.get("ports") or []:
        if entry.get("name") == names.PORT_NAME:
            return int(entry["containerPort"])
    return names.PORT


def owner_reference(job: Manifest) -> Manifest:
    """The reference by which the API server collects a child when the job goes."""
    return {
        "apiVersion": names.PYTORCHJOB.api_version,
        "kind": names.PYTORCHJOB.kind,
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }

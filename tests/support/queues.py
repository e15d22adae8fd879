"""Kueue's queues and priorities, and jobs in them."""

from __future__ import annotations

from typing import Any

from support.kubectl import Kubectl
from trainserve.kube import names

QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
GROUP = "kueue.x-k8s.io/pod-group-name"
GROUP_SIZE = "kueue.x-k8s.io/pod-group-total-count"


def make_queue(kubectl: Kubectl, cpus: int) -> str:
    """A queue of the test's namespace with room for so many CPUs; higher priorities preempt lower ones in it."""
    name = str(kubectl.namespace)
    quota = {"name": "cpu", "nominalQuota": str(cpus)}
    kubectl.apply(
        {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": name}},
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [
                    {"coveredResources": ["cpu"], "flavors": [{"name": name, "resources": [quota]}]},
                ],
            },
        },
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": {"name": "training", "namespace": name},
            "spec": {"clusterQueue": name},
        },
    )
    return "training"


def make_priority(kubectl: Kubectl, name: str, value: int) -> None:
    """A priority of workloads; the higher preempts the lower."""
    kubectl.apply(
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "WorkloadPriorityClass",
            "metadata": {"name": name},
            "value": value,
        }
    )


def state(kubectl: Kubectl, name: str) -> str:
    """The type of the job's last condition; "" before it has one."""
    conditions = (kubectl.json("get", "pytorchjob", name).get("status") or {}).get("conditions") or [{"type": ""}]
    return str(conditions[-1]["type"])


def pods_of(kubectl: Kubectl, name: str) -> list[dict[str, Any]]:
    """The pods that carry the job's name."""
    found: list[dict[str, Any]] = kubectl.json("get", "pods", "-l", f"{names.LABEL_JOB_NAME}={name}")["items"]
    return found


def running(kubectl: Kubectl, name: str) -> int:
    """How many of them are Running."""
    return sum(1 for pod in pods_of(kubectl, name) if (pod.get("status") or {}).get("phase") == "Running")

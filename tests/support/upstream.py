"""Objects as Kubeflow's Training Operator v1 and its manifests make them: of a job `flowers`, of an installation."""

from __future__ import annotations

from typing import Any

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.crd import CRD_NAME
from trainserve.kube.moments import rfc3339

# The label values that its Go code gives; spelt out, because they are its words and not ours.
LABELS = {
    "training.kubeflow.org/job-name": "flowers",
    "training.kubeflow.org/operator-name": "pytorchjob-controller",
}
REPLICAS = (("master", 0, 0), ("worker", 0, 1), ("worker", 1, 2))


def labels(kind: str, index: int) -> dict[str, str]:
    return {**LABELS, "training.kubeflow.org/replica-type": kind, "training.kubeflow.org/replica-index": str(index)}


def owner(job: Manifest) -> list[Manifest]:
    metadata = job["metadata"]
    return [
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def pod(job: Manifest, kind: str, index: int, rank: int, restart_policy: str) -> Manifest:
    env = {
        "PYTHONUNBUFFERED": "1",
        "MASTER_PORT": "23456",
        "PET_MASTER_PORT": "23456",
        "MASTER_ADDR": "flowers-master-0",
        "PET_MASTER_ADDR": "flowers-master-0",
        "WORLD_SIZE": "3",
        "RANK": str(rank),
        "PET_NPROC_PER_NODE": "auto",
        "PET_NODE_RANK": str(rank),
        "PET_NNODES": "3",
    }
    role = {"training.kubeflow.org/job-role": "master"} if kind == "master" else {}
    container = {
        "name": "pytorch",
        "image": "localhost/train:1",
        "command": ["train"],
        "ports": [{"name": "pytorchjob-port", "containerPort": 23456, "protocol": "TCP"}],
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
    waiting = {"name": "init-pytorch", "image": "alpine:3.10", "command": ["sh", "-c", "nslookup flowers-master-0"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"flowers-{kind}-{index}",
            "labels": {**labels(kind, index), **role},
            "ownerReferences": owner(job),
        },
        "spec": {
            "restartPolicy": restart_policy,
            "containers": [container],
            **({"initContainers": [waiting]} if kind == "worker" else {}),
        },
    }


def service(job: Manifest, kind: str, index: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"flowers-{kind}-{index}",
            "labels": labels(kind, index),
            "ownerReferences": owner(job),
        },
        "spec": {
            "clusterIP": "None",
            "selector": labels(kind, index),
            "ports": [{"name": "pytorchjob-port", "port": 23456, "targetPort": 23456}],
        },
    }


def condition(kind: str, status: str = "True") -> Manifest:
    moment = rfc3339(1_699_999_000)
    return {
        "type": kind,
        "status": status,
        "reason": f"PyTorchJob{kind}",
        "message": f"PyTorchJob flowers is {kind.lower()}.",
        "lastUpdateTime": moment,
        "lastTransitionTime": moment,
    }


def status(*conditions: Manifest, **fields: Any) -> Manifest:
    selector = "training.kubeflow.org/job-name=flowers,training.kubeflow.org/replica-type=worker"
    counts = {"Master": {"active": 1, "selector": selector}, "Worker": {"active": 2, "selector": selector}}
    return {
        "conditions": list(conditions),
        "replicaStatuses": counts,
        "startTime": rfc3339(1_699_999_000),
        **fields,
    }


def kubeflows_crd() -> Manifest:
    """Its shape, in small: a schema made by controller-gen, two columns, a field that ours does not have."""
    spec = {
        "type": "object",
        "properties": {
            "pytorchReplicaSpecs": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "paused": {"type": "boolean"},
        },
        "x-kubernetes-preserve-unknown-fields": True,
    }
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": "State", "type": "string", "jsonPath": ".status.conditions[-1:].type"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME, "annotations": {names.ANNOTATION_CONTROLLER_GEN: "v0.14.0", "a": "b"}},
        "spec": {
            "group": "kubeflow.org",
            "names": {
                "kind": "PyTorchJob",
                "listKind": "PyTorchJobList",
                "plural": "pytorchjobs",
                "singular": "pytorchjob",
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def webhooks(*kinds: str) -> Manifest:
    """Kubeflow's, which refuse every change of these kinds (`pytorchjob`, ...) when their service does not answer."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": names.KUBEFLOW_WEBHOOKS},
        "webhooks": [
            {
                "name": f"validator.{kind}.training-operator.kubeflow.org",
                "admissionReviewVersions": ["v1"],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "clientConfig": {
                    "service": {
                        "namespace": "kubeflow",
                        "name": "training-operator",
                        "path": f"/validate-kubeflow-org-v1-{kind}",
                    }
                },
                "rules": [
                    {
                        "apiGroups": ["kubeflow.org"],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE", "DELETE"],
                        "resources": [f"{kind}s"],
                    }
                ],
            }
            for kind in kinds
        ],
    }

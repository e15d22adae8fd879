"""The headless Service of one replica: it gives the pod its name in DNS."""

from __future__ import annotations

from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest


def replica_service(job: Manifest, replica_type: str, index: int) -> Manifest:
    """The whole Service of replica (type, index). It outlives gang generations: its selector names the replica only."""
    name = job["metadata"]["name"]
    labels = names.replica_labels(name, replica_type, index)
    container = replicas.main_container(job["spec"]["pytorchReplicaSpecs"][replica_type]["template"]["spec"])
    return {
        "apiVersion": names.SERVICE.api_version,
        "kind": names.SERVICE.kind,
        "metadata": {
            "name": names.replica_name(name, replica_type, index),
            "namespace": job["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [replicas.owner_reference(job)],
        },
        "spec": {
            "clusterIP": "None",
            # A rank is Ready only after the rendezvous, which needs the name: so the name resolves before.
            "publishNotReadyAddresses": True,
            "selector": dict(labels),
            "ports": [_service_port(port) for port in container.get("ports") or [_default_port()]],
        },
    }


def _service_port(port: Manifest) -> Manifest:
    # A Service wants a name on each of several ports; a container does not.
    entry = {"name": port.get("name") or f"port-{port['containerPort']}", "port": port["containerPort"]}
    return {**entry, "protocol": port["protocol"]} if "protocol" in port else entry


def _default_port() -> Manifest:
    return {"name": names.PORT_NAME, "containerPort": names.PORT}

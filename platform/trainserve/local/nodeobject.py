"""The Node object and the Lease of a machine whose pods are processes: pure.

Source: https://kubernetes.io/docs/concepts/architecture/nodes/ (heartbeats, addresses, capacity, info).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainserve.kube import moments, names
from trainserve.kube.cluster import Manifest

LEASE_S = 40  # a controller manager takes a node for lost that has renewed its Lease for longer than this
MESSAGE_READY = "pods run as processes of this machine, without isolation"
MESSAGE_STOPPED = "platform node run was stopped"
CONTAINER_RUNTIME = "process"
_OS = {"linux": "linux", "darwin": "darwin"}
_ARCH = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}  # Go's names


@dataclass(frozen=True)
class Machine:
    """What a node says of the machine it is on."""

    system: str  # sys.platform
    architecture: str  # platform.machine()
    boot: str
    kernel: str
    release: str  # of the system, in words
    version: str  # of this package
    folder: str = ""  # which of the nodes of one machine: a digest of its --root


@dataclass(frozen=True)
class NodeShape:
    """What a node is called and offers. `resources`: quantities by name, cpu, memory and pods among them."""

    name: str
    resources: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Manifest, ...] = ()


def labels(shape: NodeShape, machine: Machine) -> dict[str, str]:
    """The labels by which pods choose a node; a user's own win."""
    return {
        names.LABEL_HOSTNAME: shape.name,
        names.LABEL_OS: _OS.get(machine.system, machine.system),
        names.LABEL_ARCH: _ARCH.get(machine.architecture.lower(), machine.architecture),
        names.LABEL_NODE: names.NODE_OF_PROCESSES,
        **shape.labels,
    }


def node(shape: NodeShape, machine: Machine) -> Manifest:
    """The whole Node as it is created; its status is written after that."""
    manifest: Manifest = {
        "apiVersion": names.NODE.api_version,
        "kind": names.NODE.kind,
        "metadata": {"name": shape.name, "labels": labels(shape, machine)},
    }
    if shape.taints:
        manifest["spec"] = {"taints": list(shape.taints)}
    return manifest


def status(shape: NodeShape, machine: Machine, old: Manifest, now: float, *, ready: bool) -> Manifest:
    """The node's status. `old` is the one it replaces: a condition that stays as it was keeps its time."""
    moment = moments.rfc3339(now)
    before: Manifest = next((c for c in old.get("conditions") or [] if c["type"] == names.NODE_READY), {})
    value = "True" if ready else "False"
    condition = {
        "type": names.NODE_READY,
        "status": value,
        "reason": names.NODE_OK if ready else names.NODE_STOPPED,
        "message": MESSAGE_READY if ready else MESSAGE_STOPPED,
        "lastHeartbeatTime": moment,
        "lastTransitionTime": before.get("lastTransitionTime") if before.get("status") == value else moment,
    }
    others = [c for c in old.get("conditions") or [] if c["type"] != names.NODE_READY]
    return {
        "capacity": dict(shape.resources),
        "allocatable": dict(shape.resources),
        # No IP: nothing answers here, and a loopback one would lead the API server to itself.
        "addresses": [{"type": "Hostname", "address": shape.name}],
        "conditions": [*others, condition],
        "nodeInfo": {
            "architecture": _ARCH.get(machine.architecture.lower(), machine.architecture),
            "operatingSystem": _OS.get(machine.system, machine.system),
            "bootID": machine.boot,
            "kernelVersion": machine.kernel,
            "osImage": machine.release,
            "machineID": machine.folder,
            "systemUUID": "",
            "containerRuntimeVersion": f"{CONTAINER_RUNTIME}://{machine.version}",
            "kubeletVersion": f"trainserve-{machine.version}",
            "kubeProxyVersion": "",
        },
    }


def tainted(found: Manifest, taints: Sequence[Manifest]) -> list[Manifest]:
    """The node's taints with `taints`, which go before others of the same key and effect."""
    given = {(taint["key"], taint["effect"]) for taint in taints}
    before: list[Manifest] = (found.get("spec") or {}).get("taints") or []
    return [*(taint for taint in before if (taint["key"], taint["effect"]) not in given), *taints]


def not_ready_taints(found: Manifest) -> list[Manifest]:
    """The node's taints with the one that keeps pods away; the node controller takes it off once it is Ready."""
    taints: list[Manifest] = list(found.get("spec", {}).get("taints") or [])
    if any(taint["key"] == names.TAINT_NOT_READY and taint["effect"] == "NoSchedule" for taint in taints):
        return taints
    return [*taints, {"key": names.TAINT_NOT_READY, "effect": "NoSchedule"}]


def lease(found: Manifest, now: float) -> Manifest:
    """The Lease of the Node `found`, which goes with it."""
    name = found["metadata"]["name"]
    return {
        "apiVersion": names.LEASE.api_version,
        "kind": names.LEASE.kind,
        "metadata": {
            "name": name,
            "namespace": names.NODE_LEASE_NAMESPACE,
            "ownerReferences": [
                {
                    "apiVersion": names.NODE.api_version,
                    "kind": names.NODE.kind,
                    "name": name,
                    "uid": found["metadata"]["uid"],
                }
            ],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_S, "renewTime": moments.rfc3339_micro(now)},
    }

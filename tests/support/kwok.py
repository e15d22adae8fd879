"""Simulated nodes: KWOK plays the kubelet of any number of nodes that are objects only; the real scheduler binds.

A pod on such a node is Running at once, and gone at once when it is deleted. It ends when a test says so
(`support.real.Team.end`), or by itself (`ending`): annotations of its template say how and when.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import clusterbinaries
from support.guarded import Guarded
from support.kubectl import Kubectl
from trainserve.errors import EnvironmentProblem
from trainserve.kube.cluster import Manifest
from trainserve.machine.ports import LOOPBACK, Reserved

LABEL = "test.trainserve.dev/node"  # of nodes that KWOK looks after; a node that loses it is dead
SIMULATED = "simulated"
OWNER = "test.trainserve.dev/owner"  # label and taint of the nodes that one test has to itself
EXIT_CODE = "test.trainserve.dev/exit-code"
AFTER = "test.trainserve.dev/exit-after"  # in Go's notation, such as 2s; at once without it
LEASE_S = 40  # of a node: renewed four times as often, so that a machine busy with tests may be late
READY_S = 30.0
# As many pods change at a time: with its default of four some tests wait for the pods of the others.
OPTIONS = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokConfiguration",
    "options": {"podPlayStageParallelism": 32, "nodePlayStageParallelism": 8},
}
NODE_IP = "192.0.2.1"  # of all of them: an address that is reserved for documents, so nothing is reached there


class Kwok:
    """Looks after the nodes labelled LABEL of the cluster of `kubeconfig`. Its files lie in `folder`."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._ports = Reserved()
        self._process: Guarded | None = None

    def start(self) -> None:
        """Returns when it is ready. Raises EnvironmentProblem."""
        program = clusterbinaries.binaries("kwok") / "kwok"
        config = self._folder / "kwok.json"
        config.write_text("\n---\n".join(json.dumps(each) for each in (OPTIONS, *_stages())))
        port = self._ports.port("kwok")
        self._process = Guarded(
            [
                program,
                f"--kubeconfig={self._kubeconfig}",
                f"--config={config}",
                "--manage-all-nodes=false",
                f"--manage-nodes-with-label-selector={LABEL}={SIMULATED}",
                f"--node-lease-duration-seconds={LEASE_S}",
                f"--node-ip={NODE_IP}",
                f"--server-address={LOOPBACK}:{port}",
            ],
            self._folder / "kwok.log",
        )
        give_up = time.monotonic() + READY_S
        while not _answers(f"http://{LOOPBACK}:{port}/healthz"):
            if not self._process.alive() or time.monotonic() > give_up:
                raise EnvironmentProblem(f"KWOK does not start:\n{self._process.tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._ports.release_all()


def add_nodes(
    kubectl: Kubectl,
    count: int,
    capacity: Mapping[str, str],
    *,
    prefix: str,
    start: int = 0,
    only_for: str | None = None,
) -> list[str]:
    """Nodes `<prefix>-<i>`, from `start` on, once they are Ready; `only_for`: for pods of `on_own_nodes` alone."""
    nodes = [f"{prefix}-{index}" for index in range(start, start + count)]
    amounts = {"pods": "110", **capacity}
    labels = {LABEL: SIMULATED, **({OWNER: only_for} if only_for else {})}
    taints = [{"key": OWNER, "value": only_for, "effect": "NoSchedule"}] if only_for else []
    manifests: list[Manifest] = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node, **labels}},
            "spec": {"taints": taints},
            "status": {"capacity": amounts, "allocatable": amounts},
        }
        for node in nodes
    ]
    kubectl.create(*manifests)
    kubectl("wait", "--for=condition=Ready", f"--timeout={READY_S:.0f}s", *(f"node/{node}" for node in nodes))
    return nodes


def on_own_nodes(pod_spec: Manifest, owner: str) -> Manifest:
    """A pod's spec that is bound to the nodes that are `only_for` this owner."""
    toleration = {"key": OWNER, "operator": "Exists"}
    return {**pod_spec, "nodeSelector": {OWNER: owner}, "tolerations": [toleration]}


def ending(job: Manifest, replica_type: str, code: int, after: str = "0s") -> Manifest:
    """The PyTorchJob with pods of this replica type that end with this exit code by themselves, so long after start."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    template = {**specs[replica_type]["template"], "metadata": {"annotations": {EXIT_CODE: str(code), AFTER: after}}}
    replica = {**specs[replica_type], "template": template}
    return {**job, "spec": {**job["spec"], "pytorchReplicaSpecs": {**specs, replica_type: replica}}}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _stage(name: str, kind: str, expressions: list[Manifest], next_: Manifest, **more: Any) -> Manifest:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": expressions},
            "next": next_,
            **more,
        },
    }


def _stages() -> list[Manifest]:
    alive = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    exit_code = f'.metadata.annotations["{EXIT_CODE}"]'
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    return [
        _stage(
            "node-ready",
            "Node",
            [{"key": ready, "operator": "NotIn", "values": ["True"]}],
            {"statusTemplate": _NODE_READY},
        ),
        _stage(
            "pod-running",
            "Pod",
            [alive, {"key": ".status.podIP", "operator": "DoesNotExist"}],
            {"statusTemplate": _POD_RUNNING},
        ),
        _stage(
            "pod-ended",
            "Pod",
            [
                alive,
                {"key": ".status.phase", "operator": "In", "values": ["Running"]},
                {"key": exit_code, "operator": "Exists"},
            ],
            {"statusTemplate": _POD_ENDED},
            delay={"durationMilliseconds": 0, "durationFrom": {"expressionFrom": f'.metadata.annotations["{AFTER}"]'}},
        ),
        _stage(
            "pod-deleted",
            "Pod",
            [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}],
            {"finalizers": {"empty": True}, "delete": True},
        ),
    ]


_NODE_READY = """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- {type: {{ .type | Quote }}, status: {{ .status | Quote }}, reason: {{ .reason | Quote }},
   message: {{ .message | Quote }}, lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $now | Quote }}}
{{ end }}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
- {type: Hostname, address: {{ NodeName | Quote }}}
phase: Running
"""

_POD_RUNNING = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
initContainerStatuses:
{{ range .spec.initContainers }}
- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: true, restartCount: 0,
   state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: true, restartCount: 0,
   state: {running: {startedAt: {{ $now | Quote }}}}}
{{ end }}
"""

_POD_ENDED = (
    """
{{ $now := Now }}
{{ $code := index .metadata.annotations "EXIT_CODE" }}
{{ $good := eq $code "0" }}
phase: {{ if $good }}Succeeded{{ else }}Failed{{ end }}
containerStatuses:
{{ range .spec.containers }}
- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: false, restartCount: 0,
   state: {terminated: {exitCode: {{ $code }}, reason: {{ if $good }}Completed{{ else }}Error{{ end }},
   startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}}
{{ end }}
"""
).replace("EXIT_CODE", EXIT_CODE)

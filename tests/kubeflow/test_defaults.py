"""A bare job beside Kubeflow's own Training Operator, as a process on the same API server: `make test-kubeflow`.

What the two make of it is compared field by field. What differs on purpose is listed here, and nothing else may differ.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support import kubeflow, real
from support.controlplane import ControlPlane
from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team, condition_of
from support.testserver import OwnServer
from trainserve.kube import names
from trainserve.kube.client import KubeCluster
from trainserve.kube.cluster import Manifest
from trainserve.kube.crd import pytorchjob_crd

pytestmark = pytest.mark.slow

# Of the stored job: Kubeflow's fills defaults in where it works, ours in the CRD, so that `kubectl get` shows them.
FILLED_IN = {
    "spec.runPolicy.cleanPodPolicy": "None",
    "spec.runPolicy.suspend": False,
    "spec.pytorchReplicaSpecs.Master.replicas": 1,
    "spec.pytorchReplicaSpecs.Master.restartPolicy": "OnFailure",
    "spec.pytorchReplicaSpecs.Worker.replicas": 1,
    "spec.pytorchReplicaSpecs.Worker.restartPolicy": "OnFailure",
}

# What ours adds to a pod or a service, and why it may: docs/reference/pytorchjob.md, "Objects" and "Environment".
OURS = (
    f"metadata.labels.{names.LABEL_GENERATION}",
    "spec.publishNotReadyAddresses",
    "spec.volumes",
    "spec.containers[0].volumeMounts",
    "spec.initContainers",
    "spec.schedulingGroup",
    "spec.containers[0].env[TRAINSERVE_",
)

# The server's, the scheduler's and the simulated node's; the pod's account is mounted by a name of its own.
OTHERS = (
    *("metadata.uid", "metadata.resourceVersion", "metadata.creationTimestamp", "metadata.managedFields", "status"),
    *("metadata.namespace", "metadata.ownerReferences[0].uid", "metadata.generation", "metadata.annotations"),
    *("spec.nodeName", "spec.clusterIPs", "metadata.generateName"),
)


# What differs: a gang restarts as a whole, by its controller, and no container of it by itself.
DELIBERATE = {"spec.restartPolicy": ("OnFailure", "Never")}


def bare(namespace: str) -> Manifest:
    template = {"spec": {"containers": [{"name": names.CONTAINER, "image": "localhost/train:1"}]}}
    return {
        "apiVersion": names.PYTORCHJOB.api_version,
        "kind": names.PYTORCHJOB.kind,
        "metadata": {"name": "flowers", "namespace": namespace},
        "spec": {"pytorchReplicaSpecs": {"Master": {"template": template}, "Worker": {"template": template}}},
    }


def fields(value: Any, path: str = "") -> dict[str, Any]:
    """Each leaf by its path; variables and ports by their names, so that an addition moves nothing."""
    if isinstance(value, dict) and value:
        inner = {f"{path}.{key}" if path else key: each for key, each in value.items()}
    elif isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value):
        by_name = path.endswith((".env", ".ports"))
        inner = {f"{path}[{each['name'] if by_name else number}]": each for number, each in enumerate(value)}
    elif isinstance(value, list) and value:
        inner = {f"{path}[{number}]": each for number, each in enumerate(value)}
    else:
        return {path: value}
    return {name: leaf for way, each in inner.items() for name, leaf in fields(each, way).items()}


def compared(found: Manifest, *, without: tuple[str, ...]) -> dict[str, Any]:
    return {path: value for path, value in fields(found).items() if not path.startswith(without)}


async def applied(cluster: KubeCluster, kubectl: Kubectl, namespace: str) -> tuple[Team, Manifest]:
    """A bare job of this namespace once it runs, and the server's answer to `get`."""
    kubectl.apply(bare(namespace))
    team = Team(cluster, namespace)
    return team, await team.until(lambda job: condition_of(job, names.RUNNING).get("status") == "True", "it runs")


async def objects(team: Team) -> dict[str, Manifest]:
    kinds = (names.POD, names.SERVICE)
    return {f"{kind.kind} {each['metadata']['name']}": each for kind in kinds for each in await team.children(kind)}


def test_ctl_06_a_bare_job_is_what_the_reference_operator_makes_of_it(tmp_path: Path) -> None:
    server = OwnServer(tmp_path)
    server.start()
    try:
        asyncio.run(_compare(server.control_plane, Kubectl(server.server.kubeconfig), tmp_path))
    finally:
        server.stop()


async def _compare(plane: ControlPlane, kubectl: Kubectl, folder: Path) -> None:
    for namespace in ("theirs", "ours"):
        kubectl("create", "namespace", namespace)
        kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={namespace}", "--timeout=30s")
    async with real.connected(str(plane.kubeconfig)) as cluster:
        async with kubeflow.operating(plane, cluster, kubeflow.VERSION):
            team, their_job = await applied(cluster, kubectl, "theirs")
            await team.until_pods(2)
            theirs = await objects(team)
        await kubeflow.use_crd(cluster, pytorchjob_crd())
        operator = Operator(Kubectl(kubectl.kubeconfig, "ours"), folder)
        try:
            operator.start()
            team, our_job = await applied(cluster, kubectl, "ours")
            await team.until_pods(2)
            ours = await objects(team)
        finally:
            operator.close()

    sent, stored = fields({"spec": their_job["spec"]}), fields({"spec": our_job["spec"]})
    assert {path: value for path, value in stored.items() if sent.get(path, value) != value} == {}
    assert {path: value for path, value in stored.items() if path not in sent} == {
        path: value for path, value in FILLED_IN.items() if path not in sent
    }

    assert ours.keys() == theirs.keys()
    differences = {}
    for name, found in theirs.items():
        wanted = compared(found, without=(*OTHERS, *OURS))
        has = compared(ours[name], without=OTHERS)
        for path in {*wanted, *(path for path in has if not path.startswith(OURS))}:
            both = (wanted.get(path), has.get(path))
            if both[0] != both[1] and DELIBERATE.get(path) != both:
                differences[f"{name}: {path}"] = both
    assert differences == {}, "\n".join(f"{where}: theirs, ours: {what}" for where, what in sorted(differences.items()))

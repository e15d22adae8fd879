"""What a PyTorchJob may be, and what is filled in: the CRD's verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from support.server import job, template
from trainserve.kube.cluster import Cluster, Invalid, Manifest
from trainserve.kube.names import PYTORCHJOB


async def test_the_schemas_constants_are_filled_in(cluster: Cluster, namespace: str) -> None:
    spec = (await cluster.create(PYTORCHJOB, namespace, job("a")))["spec"]
    assert spec["runPolicy"] == {"cleanPodPolicy": "None", "suspend": False}
    master = spec["pytorchReplicaSpecs"]["Master"]
    assert (master["replicas"], master["restartPolicy"]) == (1, "OnFailure")


async def test_what_is_given_is_kept(cluster: Cluster, namespace: str) -> None:
    sent = job("a", runPolicy={"cleanPodPolicy": "All", "suspend": True, "ttlSecondsAfterFinished": 5})
    sent["spec"]["pytorchReplicaSpecs"]["Master"] |= {"replicas": 1, "restartPolicy": "ExitCode"}
    assert (await cluster.create(PYTORCHJOB, namespace, sent))["spec"] == sent["spec"]


async def test_a_template_is_kept_as_it_is(cluster: Cluster, namespace: str) -> None:
    odd = {"metadata": {"labels": {"a": "b"}}, **template(comand=["x"], future={"field": [1, 2.5, None, True]})}
    odd["spec"]["containers"][0]["future"]["field"].remove(None)
    sent = job("a")
    sent["spec"]["pytorchReplicaSpecs"]["Master"]["template"] = odd
    stored = (await cluster.create(PYTORCHJOB, namespace, sent))["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert stored == odd


def with_worker(**fields: Any) -> Manifest:
    sent = job("a", workers=1)
    sent["spec"]["pytorchReplicaSpecs"]["Worker"] |= fields
    return sent


def with_replicas(**replica_specs: Any) -> Manifest:
    sent = job("a")
    sent["spec"]["pytorchReplicaSpecs"] = replica_specs
    return sent


@pytest.mark.parametrize(
    "sent",
    [
        with_replicas(Worker={"replicas": 3, "template": template()}),
        with_worker(restartPolicy="ExitCode", replicas=12),
        job("a", nprocPerNode="gpu"),
        job("a", nprocPerNode="8"),
        job("a", workers=2, elasticPolicy={"minReplicas": 2, "maxReplicas": 2, "rdzvBackend": "c10d"}),
        job("a", workers=2, elasticPolicy={"nProcPerNode": 2, "rdzvConf": [{"key": "a", "value": "b"}]}),
        job("a", runPolicy={"managedBy": "kueue.x-k8s.io/multikueue", "schedulingPolicy": {"queue": "q"}}),
        job("a", runPolicy={"schedulingPolicy": {"minResources": {"cpu": 4, "memory": "1Gi"}}}),
    ],
)
async def test_jobs_of_kubeflows_users_are_accepted(cluster: Cluster, namespace: str, sent: Manifest) -> None:
    await cluster.create(PYTORCHJOB, namespace, sent)


@pytest.mark.parametrize(("workers", "longest"), [(0, 54), (1, 54), (10, 54), (11, 53), (101, 52)])
async def test_a_name_leaves_room_for_its_pods(cluster: Cluster, namespace: str, workers: int, longest: int) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a" * longest, workers=workers))
    with pytest.raises(Invalid, match=rf"metadata\.name.*{longest}"):
        await cluster.create(PYTORCHJOB, namespace, job("a" * (longest + 1), workers=workers))


STATUS = {
    "conditions": [
        {
            "type": "Created",
            "status": "True",
            "reason": "PyTorchJobCreated",
            "message": "PyTorchJob a is created.",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
    "replicaStatuses": {"Master": {"active": 1}, "Worker": {"active": 3, "failed": 1, "selector": "a=b"}},
    "startTime": "2026-01-01T00:00:00Z",
    "generation": 2,
    "restarts": 1,
    "cause": "Worker 1 was killed by SIGKILL",
    "progress": {"epoch": 1, "step": 10, "loss": 2, "top1": 0.5, "imagesPerSecond": 10.5, "checkpointStep": 8},
}


async def test_a_whole_status(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a", workers=3))
    patched = await cluster.patch(PYTORCHJOB, namespace, "a", {"status": STATUS}, subresource="status")
    assert patched["status"] == STATUS


@pytest.mark.parametrize(
    "status",
    [{"restarts": -1}, {"replicaStatuses": {"Chief": {}}}, {"conditions": [{"type": "Odd", "status": "True"}]}],
)
async def test_a_status_that_is_none(cluster: Cluster, namespace: str, status: dict[str, object]) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    with pytest.raises(Invalid, match="status"):
        await cluster.patch(PYTORCHJOB, namespace, "a", {"status": status}, subresource="status")

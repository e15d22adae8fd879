"""Kubernetes' own gang scheduling, by the real scheduler on simulated nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.kwok import on_own_nodes
from support.operating import Operator
from support.real import Team, condition_of, generation_of
from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest

GPU = "nvidia.com/gpu"
Nodes = Callable[..., list[str]]


def gpu_job(namespace: str, **how: Any) -> Manifest:
    """A PyTorchJob whose every pod wants one GPU of the test's own nodes."""
    job = pytorchjob(**how)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        spec = on_own_nodes(replica["template"]["spec"], namespace)
        spec["containers"][0]["resources"] = {"limits": {GPU: "1"}}
        replica["template"]["spec"] = spec
    return job


@pytest.fixture(autouse=True)
def gangs_are_served(kubectl: Kubectl) -> None:
    if not kubectl("api-resources", "--api-group=scheduling.k8s.io", "-o=name", "--namespaced").strip():
        pytest.skip("the cluster that KUBECONFIG names has no PodGroups: set the gate GenericWorkload on it")


@pytest.fixture
def sight_of_nodes(kubectl: Kubectl) -> Iterator[None]:
    """What an operator of the whole cluster is granted beside its Role: nodes, and the pods on them."""
    name = f"sees-nodes-{kubectl.namespace}"
    role = {
        "apiVersion": names.CLUSTER_ROLE.api_version,
        "kind": names.CLUSTER_ROLE.kind,
        "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]}],
    }
    subject = {"kind": "ServiceAccount", "name": names.OPERATOR_ACCOUNT, "namespace": kubectl.namespace}
    binding = {
        "apiVersion": names.CLUSTER_ROLE_BINDING.api_version,
        "kind": names.CLUSTER_ROLE_BINDING.kind,
        "metadata": {"name": name},
        "roleRef": {"apiGroup": names.CLUSTER_ROLE.group, "kind": names.CLUSTER_ROLE.kind, "name": name},
        "subjects": [subject],
    }
    kubectl.apply(role, binding)
    yield
    kubectl("delete", "clusterrole,clusterrolebinding", name)


@pytest.fixture
def high(kubectl: Kubectl) -> Iterator[str]:
    """The name of a PriorityClass above the default."""
    name = f"high-{kubectl.namespace}"
    kubectl.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000}
    )
    yield name
    kubectl("delete", "priorityclass", name)


async def bound(team: Team) -> list[str]:
    return [pod["metadata"]["name"] for pod in await team.children() if pod["spec"].get("nodeName")]


async def groups(team: Team) -> dict[str, Manifest]:
    found = (await team.cluster.list(names.POD_GROUP, team.namespace)).items
    return {group["metadata"]["name"]: group for group in found}


async def until_groups(team: Team, *expected: str) -> None:
    give_up = time.monotonic() + 30
    while set(found := await groups(team)) != set(expected):
        assert time.monotonic() < give_up, f"{list(found)}, not {expected}"
        await asyncio.sleep(0.1)


async def test_a_gang_that_does_not_fit_binds_no_pod_and_says_what_is_missing(
    kubectl: Kubectl, sight_of_nodes: None, nodes: Nodes, operator: Operator, team: Team
) -> None:
    nodes(3, {GPU: "1"})
    await team.create(gpu_job(team.namespace, workers=3))
    job = await team.until_state(names.PENDING)
    condition = condition_of(job, names.PENDING)
    assert condition["reason"] == "Unschedulable"
    assert "0 of 4 pods have a node. Needs 4 x nvidia.com/gpu, 3 free. The scheduler: " in condition["message"]
    assert await bound(team) == []
    assert len(await team.children()) == 4
    head, row = kubectl("get", "pytorchjobs").splitlines()
    assert row.split()[:2] == ["flowers", names.PENDING], f"{head}\n{row}"
    (told,) = await team.events("Unschedulable")
    assert (told["type"], told["count"]) == ("Warning", 1)

    nodes(1, {GPU: "1"})
    await team.until_pods(4)
    job = await team.until_state(names.RUNNING)
    assert condition_of(job, names.PENDING) == {}
    (group,) = (await groups(team)).values()
    assert group["metadata"]["name"] == "flowers-g1"
    assert group["spec"]["schedulingPolicy"] == {"gang": {"minCount": 4}}


async def test_without_sight_of_the_nodes_it_says_what_the_scheduler_says(
    nodes: Nodes, operator: Operator, team: Team
) -> None:
    nodes(1, {GPU: "1"})
    await team.create(gpu_job(team.namespace, workers=1))
    job = await team.until_state(names.PENDING)
    message = condition_of(job, names.PENDING)["message"]
    assert message.startswith("PyTorchJob flowers waits for a place: 0 of 2 pods have a node. The scheduler: ")
    assert await bound(team) == []


async def test_every_generation_has_its_group_and_none_is_left(nodes: Nodes, operator: Operator, team: Team) -> None:
    nodes(2, {GPU: "1"})
    await team.create(gpu_job(team.namespace, workers=1))
    await team.until_pods(2)
    await until_groups(team, "flowers-g1")
    await team.end("flowers-worker-0", 137)
    pods = await team.until_pods(2, generation=2)
    assert {pod["spec"]["schedulingGroup"]["podGroupName"] for pod in pods} == {"flowers-g2"}
    await until_groups(team, "flowers-g2")
    await team.patch({"spec": {"runPolicy": {"suspend": True}}})
    await team.until_state(names.SUSPENDED)
    await until_groups(team)
    await team.patch({"spec": {"runPolicy": {"suspend": False}}})
    await team.until_pods(2)
    await team.end("flowers-master-0", 0)
    await team.end("flowers-worker-0", 0)
    await team.until_state(names.SUCCEEDED)
    await until_groups(team)


async def test_a_gang_of_higher_priority_takes_the_nodes_of_a_whole_gang_which_waits_free_of_charge(
    high: str, nodes: Nodes, operator: Operator, team: Team
) -> None:
    nodes(2, {GPU: "1"})
    await team.create(gpu_job(team.namespace, name="low", workers=1, backoffLimit=0))
    await team.until_pods(2, name="low")
    await team.create(gpu_job(team.namespace, workers=1, schedulingPolicy={"priorityClass": high}))
    await team.until_pods(2)
    low = await team.until_state(names.PENDING, "low")
    assert low["status"].get("restarts", 0) == 0
    assert low["status"]["generation"] == 2
    assert "low-g2" in await groups(team)
    await team.end("flowers-master-0", 0)
    await team.end("flowers-worker-0", 0)
    await team.until_pods(2, name="low", generation=2)


async def test_an_elastic_job_starts_with_its_fewest_and_has_an_autoscaler_while_it_runs(
    nodes: Nodes, operator: Operator, team: Team
) -> None:
    nodes(2, {GPU: "1"})
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    elastic = {"minReplicas": 2, "maxReplicas": 4, "metrics": [metric]}
    job = gpu_job(team.namespace, workers=3, master=False, policy="OnFailure", elastic=elastic)
    await team.create(job)
    job = await team.until_state(names.RUNNING)
    assert len(await bound(team)) == 2
    scaler = await team.cluster.get(names.AUTOSCALER, team.namespace, "flowers")
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 4)

    # One that is lost is replaced within the same group, by itself.
    lost = (await bound(team))[0]
    await team.remove(lost)
    await until_bound(team, 2)
    assert {generation_of(pod) for pod in await team.children()} == {1}

    await team.patch({"spec": {"elasticPolicy": {"maxReplicas": 3}}})
    await until_autoscaler(team, 3)
    await team.patch({"spec": {"runPolicy": {"suspend": True}}})
    await until_autoscaler(team, None)
    await team.patch({"spec": {"runPolicy": {"suspend": False}}})
    await until_autoscaler(team, 3)
    await until_bound(team, 2)
    assert {generation_of(pod) for pod in await team.children()} == {2}


async def until_bound(team: Team, count: int) -> None:
    """Until all three pods are there, and so many have a node."""
    give_up = time.monotonic() + 60
    while True:
        pods = await team.children()
        found = [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName")]
        if len(pods) == 3 and len(found) == count:
            return
        assert time.monotonic() < give_up, f"{found} of {len(pods)} have a node, not {count} of 3"
        await asyncio.sleep(0.1)


async def until_autoscaler(team: Team, largest: int | None) -> None:
    """Until it has this maxReplicas; None: until it is gone."""
    give_up = time.monotonic() + 30
    while True:
        found = (await team.cluster.list(names.AUTOSCALER, team.namespace)).items
        if [each["spec"]["maxReplicas"] for each in found] == ([] if largest is None else [largest]):
            return
        assert time.monotonic() < give_up, f"{found}, not {largest}"
        await asyncio.sleep(0.1)


async def test_a_group_that_its_finalizer_holds_is_deleted_once_and_told_once(operator: Operator, team: Team) -> None:
    await team.create(pytorchjob(workers=3))
    for generation in (1, 2, 3):
        await team.until_pods(4, generation=generation)
        await team.until_state(names.RUNNING)
        await team.end("flowers-worker-1", 139)
    await team.until_pods(4, generation=4)
    await until_groups(team, "flowers-g4")
    told = await team.events(f"{names.REASON_SUCCESSFUL_DELETE}{names.POD_GROUP}")
    assert {each["message"]: each["count"] for each in told} == {
        f"Deleted podgroup: flowers-g{generation}": 1 for generation in (1, 2, 3)
    }

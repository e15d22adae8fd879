"""A job's life as its user sees it, with kubectl and by hand."""

from __future__ import annotations

import asyncio

from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team, condition_of, generation_of
from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest

PODS = ["flowers-master-0", "flowers-worker-0", "flowers-worker-1", "flowers-worker-2"]


def flowers(namespace: str) -> Manifest:
    job = pytorchjob(workers=3)
    return {**job, "metadata": {**job["metadata"], "namespace": namespace}}


def named(items: list[Manifest]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


async def test_from_apply_over_running_to_succeeded(kubectl: Kubectl, operator: Operator, team: Team) -> None:
    kubectl.apply(flowers(team.namespace))
    kubectl("wait", "--for=condition=Running", "pytorchjob/flowers", "--timeout=60s")
    assert named(await team.until_pods(4)) == PODS
    assert named(await team.children(names.SERVICE)) == PODS
    head, row = kubectl("get", "pytorchjobs").splitlines()
    assert head.split()[:2] == ["NAME", "STATE"]
    assert row.split()[:2] == ["flowers", names.RUNNING]

    await team.end("flowers-master-0", 0)
    kubectl("wait", "--for=condition=Succeeded", "pytorchjob/flowers", "--timeout=60s")
    status = (await team.job())["status"]
    assert [condition["type"] for condition in status["conditions"]] == [
        names.CREATED,
        names.RUNNING,
        names.SUCCEEDED,
    ]
    assert status["completionTime"] >= status["startTime"]

    kubectl("delete", "pytorchjob", "flowers", "--timeout=60s")
    await team.until_gone()


async def test_kubectl_scale_starts_a_gang_of_the_new_size(kubectl: Kubectl, operator: Operator, team: Team) -> None:
    await team.create(pytorchjob(workers=3))
    await team.until_pods(4)
    kubectl("scale", "pytorchjob/flowers", "--replicas=2")
    pods = await team.until_pods(3, generation=2)
    assert named(pods) == PODS[:3]
    [environment] = [
        {variable["name"]: variable.get("value") for variable in container["env"]}
        for container in pods[0]["spec"]["containers"]
    ]
    assert environment[names.ENV_PET_NNODES] == "3"
    # The status that `kubectl scale` reads: how many workers are at work, and how to find them.
    job = await team.until(lambda job: worker_status(job).get("active") == 2, "two workers are counted")
    found = kubectl.json("get", "pods", "--selector", worker_status(job)["selector"])
    assert [item["metadata"]["name"] for item in found["items"]] == PODS[1:3]
    assert job["status"].get("restarts", 0) == 0


def worker_status(job: Manifest) -> Manifest:
    status: Manifest = job["status"]["replicaStatuses"][names.REPLICA_WORKER]
    return status


async def test_suspend_takes_the_pods_and_resume_starts_them_anew(operator: Operator, team: Team) -> None:
    await team.create(pytorchjob(workers=3))
    await team.until_pods(4)
    started = (await team.until_state(names.RUNNING))["status"]["startTime"]
    await team.patch({"spec": {"runPolicy": {"suspend": True}}})
    job = await team.until_state(names.SUSPENDED)
    assert condition_of(job, names.SUSPENDED)["status"] == "True"
    assert condition_of(job, names.RUNNING)["status"] == "False"
    assert await team.children() == []
    await asyncio.sleep(1.1)  # times of the API have whole seconds

    await team.patch({"spec": {"runPolicy": {"suspend": False}}})
    await team.until_pods(4, generation=2)
    job = await team.until(lambda job: condition_of(job, names.RUNNING).get("status") == "True", "it runs again")
    assert condition_of(job, names.SUSPENDED)["status"] == "False"
    assert job["status"]["startTime"] > started


async def test_a_pod_deleted_by_hand_restarts_the_gang_free_of_charge(
    kubectl: Kubectl, operator: Operator, team: Team
) -> None:
    await team.create(pytorchjob(workers=3, backoffLimit=0))
    before = {pod["metadata"]["uid"] for pod in await team.until_pods(4)}
    kubectl("delete", "pod", "flowers-worker-1", "--wait=false")
    after = {pod["metadata"]["uid"] for pod in await team.until_pods(4, generation=2)}
    assert not before & after, "ranks of two gangs cannot meet"
    job = await team.until_state(names.RUNNING)
    assert job["status"].get("restarts", 0) == 0
    assert condition_of(job, names.FAILED) == {}


async def test_all_pods_and_services_deleted_by_hand_come_back(
    kubectl: Kubectl, operator: Operator, team: Team
) -> None:
    await team.create(pytorchjob(workers=3))
    await team.until_pods(4)
    lost = {service["metadata"]["uid"] for service in await team.children(names.SERVICE)}
    kubectl("delete", "services", "--all", "--wait=false")
    async with asyncio.timeout(60):
        while named(found := await team.children(names.SERVICE)) != PODS or lost & {
            s["metadata"]["uid"] for s in found
        }:
            await asyncio.sleep(0.1)
    assert {generation_of(pod) for pod in await team.until_pods(4)} == {1}, "no pod went for it"
    kubectl("delete", "pods", "--all", "--force")
    await team.until_pods(4, generation=2)
    await team.until_state(names.RUNNING)


async def test_a_job_deleted_while_it_restarts_leaves_nothing_and_its_name_is_free(
    operator: Operator, team: Team
) -> None:
    await team.create(pytorchjob(workers=3))
    await team.until_pods(4)
    await team.end("flowers-worker-2", 139)
    await team.until_state(names.RESTARTING)
    await team.delete()
    again = await team.create(pytorchjob(workers=1))
    pods = await team.until_pods(2, generation=1)
    assert {owner["uid"] for pod in pods for owner in pod["metadata"]["ownerReferences"]} == {again["metadata"]["uid"]}
    await team.until_state(names.RUNNING)
    await team.delete()
    await team.until_gone()
    await asyncio.sleep(2)  # a controller that looks at it once more would make them again
    assert await team.children() == []

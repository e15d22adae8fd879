"""Deletion: grace, preconditions, finalizers, garbage collection."""

from __future__ import annotations

import datetime

import pytest

from support.server import NODE, changes, eventually, job, owner_reference, pod, service
from trainserve.kube.cluster import AlreadyExists, Cluster, Conflict, Invalid, Manifest, NotFound
from trainserve.kube.names import POD, PYTORCHJOB, SERVICE, Kind

FINALIZER = "example.com/wait"


async def running(cluster: Cluster, namespace: str, name: str, **spec: object) -> Manifest:
    await cluster.create(POD, namespace, pod(name, nodeName=NODE, **spec))
    return await cluster.patch(POD, namespace, name, {"status": {"phase": "Running"}}, subresource="status")


async def is_gone(cluster: Cluster, kind: Kind, namespace: str, name: str) -> bool:
    try:
        await cluster.get(kind, namespace, name)
    except NotFound:
        return True
    return False


async def test_what_is_deleted_is_not_found(cluster: Cluster, namespace: str) -> None:
    await cluster.create(SERVICE, namespace, service("a"))
    await cluster.delete(SERVICE, namespace, "a")
    assert await is_gone(cluster, SERVICE, namespace, "a")
    with pytest.raises(NotFound):
        await cluster.delete(SERVICE, namespace, "a")


async def test_a_new_object_of_the_name_is_another(cluster: Cluster, namespace: str) -> None:
    first = await cluster.create(SERVICE, namespace, service("a"))
    await cluster.delete(SERVICE, namespace, "a")
    second = await cluster.create(SERVICE, namespace, service("a"))
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_another_uid_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(SERVICE, namespace, service("a"))
    with pytest.raises(Conflict):
        await cluster.delete(SERVICE, namespace, "a", uid="other")
    await cluster.delete(SERVICE, namespace, "a", uid=created["metadata"]["uid"])
    assert await is_gone(cluster, SERVICE, namespace, "a")


async def test_a_pod_without_a_node_goes_at_once(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    await cluster.delete(POD, namespace, "a")
    assert await is_gone(cluster, POD, namespace, "a")


async def test_a_running_pod_waits_for_its_kubelet(cluster: Cluster, namespace: str) -> None:
    before = await running(cluster, namespace, "a")
    await cluster.delete(POD, namespace, "a")
    metadata = (await cluster.get(POD, namespace, "a"))["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 30
    assert int(metadata["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    await cluster.delete(POD, namespace, "a", grace_period_s=0)
    assert await is_gone(cluster, POD, namespace, "a")


async def test_the_deletion_timestamp_is_the_end_of_the_grace(cluster: Cluster, namespace: str) -> None:
    await running(cluster, namespace, "a", terminationGracePeriodSeconds=600)
    await cluster.delete(POD, namespace, "a")
    end = datetime.datetime.fromisoformat((await cluster.get(POD, namespace, "a"))["metadata"]["deletionTimestamp"])
    assert 540 < (end - datetime.datetime.now(datetime.UTC)).total_seconds() < 660


async def test_a_second_delete_can_only_shorten_the_grace(cluster: Cluster, namespace: str) -> None:
    await running(cluster, namespace, "a")
    for asked, effective in ((20, 20), (25, 20), (None, 20), (5, 5)):
        await cluster.delete(POD, namespace, "a", grace_period_s=asked)
        metadata = (await cluster.get(POD, namespace, "a"))["metadata"]
        assert metadata["deletionGracePeriodSeconds"] == effective


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_an_ended_pod_goes_at_once(cluster: Cluster, namespace: str, phase: str) -> None:
    await running(cluster, namespace, "a")
    await cluster.patch(POD, namespace, "a", {"status": {"phase": phase}}, subresource="status")
    await cluster.delete(POD, namespace, "a")
    assert await is_gone(cluster, POD, namespace, "a")


async def test_a_terminating_pods_status_can_change(cluster: Cluster, namespace: str) -> None:
    await running(cluster, namespace, "a")
    await cluster.delete(POD, namespace, "a")
    patched = await cluster.patch(POD, namespace, "a", {"status": {"phase": "Failed"}}, subresource="status")
    assert patched["status"]["phase"] == "Failed"
    assert "deletionTimestamp" in patched["metadata"]


async def test_a_terminating_pod_that_ended_still_waits_for_its_kubelet(cluster: Cluster, namespace: str) -> None:
    await running(cluster, namespace, "a")
    await cluster.delete(POD, namespace, "a")
    await cluster.patch(POD, namespace, "a", {"status": {"phase": "Succeeded"}}, subresource="status")
    await cluster.delete(POD, namespace, "a")
    assert not await is_gone(cluster, POD, namespace, "a")
    await cluster.delete(POD, namespace, "a", grace_period_s=0)
    assert await is_gone(cluster, POD, namespace, "a")


async def test_the_name_of_a_terminating_pod_is_taken(cluster: Cluster, namespace: str) -> None:
    await running(cluster, namespace, "a")
    await cluster.delete(POD, namespace, "a")
    with pytest.raises(AlreadyExists):
        await cluster.create(POD, namespace, pod("a"))


async def test_a_watch_sees_both_steps_of_a_deletion(cluster: Cluster, namespace: str) -> None:
    version = (await running(cluster, namespace, "a"))["metadata"]["resourceVersion"]
    await cluster.delete(POD, namespace, "a")
    await cluster.delete(POD, namespace, "a", grace_period_s=0)
    seen = await changes(cluster, POD, namespace, version, 2)
    assert [change.type for change in seen] == ["MODIFIED", "DELETED"]
    assert all("deletionTimestamp" in change.object["metadata"] for change in seen)


async def test_a_finalizer_holds_an_object(cluster: Cluster, namespace: str) -> None:
    sent = job("a")
    sent["metadata"]["finalizers"] = [FINALIZER]
    await cluster.create(PYTORCHJOB, namespace, sent)
    await cluster.delete(PYTORCHJOB, namespace, "a")
    held = await cluster.get(PYTORCHJOB, namespace, "a")
    assert "deletionTimestamp" in held["metadata"]
    await cluster.patch(PYTORCHJOB, namespace, "a", {"metadata": {"finalizers": None}})
    assert await is_gone(cluster, PYTORCHJOB, namespace, "a")


async def test_no_finalizer_can_be_added_during_deletion(cluster: Cluster, namespace: str) -> None:
    sent = job("a")
    sent["metadata"]["finalizers"] = [FINALIZER]
    await cluster.create(PYTORCHJOB, namespace, sent)
    await cluster.delete(PYTORCHJOB, namespace, "a")
    with pytest.raises(Invalid, match="finalizers"):
        await cluster.patch(PYTORCHJOB, namespace, "a", {"metadata": {"finalizers": [FINALIZER, "example.com/more"]}})


async def test_dependents_go_after_their_owner(cluster: Cluster, namespace: str) -> None:
    owner = await cluster.create(PYTORCHJOB, namespace, job("a"))
    child = service("a-master-0")
    child["metadata"]["ownerReferences"] = [owner_reference(owner)]
    version = (await cluster.create(SERVICE, namespace, child))["metadata"]["resourceVersion"]
    await cluster.create(POD, namespace, pod("a-master-0", owner=owner))
    await cluster.delete(PYTORCHJOB, namespace, "a")
    (job_gone,) = await changes(cluster, PYTORCHJOB, namespace, version, 1)
    for kind in (SERVICE, POD):
        await eventually(lambda kind=kind: is_gone(cluster, kind, namespace, "a-master-0"))  # type: ignore[misc]
        gone = (await changes(cluster, kind, namespace, version, 2 if kind == POD else 1))[-1]
        assert gone.type == job_gone.type == "DELETED"
        assert int(gone.object["metadata"]["resourceVersion"]) > int(job_gone.object["metadata"]["resourceVersion"])


async def test_a_running_dependent_gets_its_grace(cluster: Cluster, namespace: str) -> None:
    owner = await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.create(POD, namespace, pod("b", owner=owner, nodeName=NODE))
    await cluster.delete(PYTORCHJOB, namespace, "a")

    async def is_terminating() -> bool:
        return "deletionTimestamp" in (await cluster.get(POD, namespace, "b"))["metadata"]

    await eventually(is_terminating)


async def test_a_dependent_of_nobody_is_collected(cluster: Cluster, namespace: str) -> None:
    owner = await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.delete(PYTORCHJOB, namespace, "a")
    created = await cluster.create(POD, namespace, pod("b", owner=owner))
    assert created["metadata"]["name"] == "b"
    await eventually(lambda: is_gone(cluster, POD, namespace, "b"))


async def test_a_namesake_of_the_owner_is_not_the_owner(cluster: Cluster, namespace: str) -> None:
    owner = await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.create(POD, namespace, pod("b", owner=owner))
    await cluster.delete(PYTORCHJOB, namespace, "a")
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    await eventually(lambda: is_gone(cluster, POD, namespace, "b"))


async def test_a_namesake_of_the_owner_holds_no_dependent(cluster: Cluster, namespace: str) -> None:
    owner = await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.delete(PYTORCHJOB, namespace, "a")
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.create(POD, namespace, pod("b", owner=owner))
    await eventually(lambda: is_gone(cluster, POD, namespace, "b"))


async def test_one_of_two_owners_is_enough(cluster: Cluster, namespace: str) -> None:
    owners = [await cluster.create(PYTORCHJOB, namespace, job(name)) for name in ("a", "b")]
    shared = pod("c")
    shared["metadata"]["ownerReferences"] = [{**owner_reference(owner), "controller": False} for owner in owners]
    await cluster.create(POD, namespace, shared)
    await cluster.create(POD, namespace, pod("mark", owner=owners[0]))
    await cluster.delete(PYTORCHJOB, namespace, "a")
    await eventually(lambda: is_gone(cluster, POD, namespace, "mark"))
    assert not await is_gone(cluster, POD, namespace, "c")
    await cluster.delete(PYTORCHJOB, namespace, "b")
    await eventually(lambda: is_gone(cluster, POD, namespace, "c"))


async def test_others_are_not_collected(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.create(POD, namespace, pod("a-master-0"))
    await cluster.delete(PYTORCHJOB, namespace, "a")
    assert not await is_gone(cluster, POD, namespace, "a-master-0")

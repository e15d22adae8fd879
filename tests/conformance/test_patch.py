"""Merge patches, generations, status, preconditions, what may not change."""

from __future__ import annotations

import pytest

from support.server import NODE, job, pod, service, template
from trainserve.kube.cluster import ApiError, BadRequest, Cluster, Conflict, Invalid, NotFound
from trainserve.kube.names import POD, PYTORCHJOB, SERVICE


async def test_a_patch_merges_objects_and_removes_by_null(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a", labels={"a": "1", "b": "2"}))
    patched = await cluster.patch(POD, namespace, "a", {"metadata": {"labels": {"a": None, "c": "3"}}})
    assert patched["metadata"]["labels"] == {"b": "2", "c": "3"}
    assert patched == await cluster.get(POD, namespace, "a")


async def test_no_labels_is_no_field(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a", labels={"a": "1"}))
    patched = await cluster.patch(POD, namespace, "a", {"metadata": {"labels": {"a": None}}})
    assert "labels" not in patched["metadata"]


async def test_a_patch_replaces_lists(cluster: Cluster, namespace: str) -> None:
    await cluster.create(SERVICE, namespace, service("a", port=1))
    patched = await cluster.patch(SERVICE, namespace, "a", {"spec": {"ports": [{"name": "new", "port": 2}]}})
    assert [port["name"] for port in patched["spec"]["ports"]] == ["new"]


async def test_a_patch_makes_a_new_version(cluster: Cluster, namespace: str) -> None:
    before = await cluster.create(POD, namespace, pod("a"))
    after = await cluster.patch(POD, namespace, "a", {"metadata": {"annotations": {"a": "b"}}})
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


@pytest.mark.parametrize("patch", [{}, {"metadata": {"labels": {"a": "1", "b": None}}}, {"status": {"phase": "x"}}])
async def test_a_patch_that_changes_nothing_makes_no_version(
    cluster: Cluster, namespace: str, patch: dict[str, object]
) -> None:
    before = await cluster.create(POD, namespace, pod("a", labels={"a": "1"}))
    assert await cluster.patch(POD, namespace, "a", patch) == before


async def test_a_status_patch_that_changes_nothing_makes_no_version(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    first = await cluster.patch(PYTORCHJOB, namespace, "a", {"status": {"restarts": 1}}, subresource="status")
    second = await cluster.patch(PYTORCHJOB, namespace, "a", {"status": {"restarts": 1}}, subresource="status")
    assert second == first


async def test_a_patch_of_nothing_is_not_found(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(NotFound):
        await cluster.patch(POD, namespace, "a", {})


async def test_an_unknown_field_in_a_patch_is_refused(cluster: Cluster, namespace: str) -> None:
    await cluster.create(SERVICE, namespace, service("a"))
    with pytest.raises(ApiError, match="publishNotReady") as caught:
        await cluster.patch(SERVICE, namespace, "a", {"spec": {"publishNotReady": True}})
    assert caught.value.status in (400, 422)


async def test_a_stale_version_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    before = await cluster.create(POD, namespace, pod("a"))
    await cluster.patch(POD, namespace, "a", {"metadata": {"labels": {"a": "1"}}})
    stale = {"resourceVersion": before["metadata"]["resourceVersion"], "labels": {"a": "2"}}
    with pytest.raises(Conflict):
        await cluster.patch(POD, namespace, "a", {"metadata": stale})
    assert (await cluster.get(POD, namespace, "a"))["metadata"]["labels"] == {"a": "1"}


async def test_a_current_version_is_none(cluster: Cluster, namespace: str) -> None:
    before = await cluster.create(POD, namespace, pod("a"))
    current = {"resourceVersion": before["metadata"]["resourceVersion"], "labels": {"a": "2"}}
    assert (await cluster.patch(POD, namespace, "a", {"metadata": current}))["metadata"]["labels"] == {"a": "2"}


async def test_a_stale_version_is_a_conflict_for_status_too(cluster: Cluster, namespace: str) -> None:
    before = await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.patch(PYTORCHJOB, namespace, "a", {"spec": {"runPolicy": {"backoffLimit": 1}}})
    patch = {"metadata": {"resourceVersion": before["metadata"]["resourceVersion"]}, "status": {"restarts": 1}}
    with pytest.raises(Conflict):
        await cluster.patch(PYTORCHJOB, namespace, "a", patch, subresource="status")


async def test_another_uid_is_refused(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    with pytest.raises((Conflict, Invalid)):
        await cluster.patch(POD, namespace, "a", {"metadata": {"uid": "other", "labels": {"a": "1"}}})


async def test_a_name_cannot_be_patched(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    with pytest.raises((BadRequest, Invalid), match="name"):
        await cluster.patch(POD, namespace, "a", {"metadata": {"name": "b"}})


async def test_generation_follows_the_spec(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(PYTORCHJOB, namespace, job("a"))
    assert created["metadata"]["generation"] == 1
    labelled = await cluster.patch(PYTORCHJOB, namespace, "a", {"metadata": {"labels": {"a": "1"}}})
    assert labelled["metadata"]["generation"] == 1
    observed = await cluster.patch(PYTORCHJOB, namespace, "a", {"status": {"restarts": 1}}, subresource="status")
    assert observed["metadata"]["generation"] == 1
    suspended = await cluster.patch(PYTORCHJOB, namespace, "a", {"spec": {"runPolicy": {"suspend": True}}})
    assert suspended["metadata"]["generation"] == 2


async def test_generation_cannot_be_patched(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    patched = await cluster.patch(PYTORCHJOB, namespace, "a", {"metadata": {"generation": 9, "labels": {"a": "1"}}})
    assert patched["metadata"]["generation"] == 1


async def test_a_created_job_has_no_status(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(PYTORCHJOB, namespace, {**job("a"), "status": {"restarts": 5}})
    assert "status" not in created


async def test_a_patch_of_the_job_leaves_its_status(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.patch(PYTORCHJOB, namespace, "a", {"status": {"restarts": 1}}, subresource="status")
    patch = {"metadata": {"labels": {"a": "1"}}, "status": {"restarts": 9}}
    patched = await cluster.patch(PYTORCHJOB, namespace, "a", patch)
    assert (patched["metadata"]["labels"], patched["status"]["restarts"]) == ({"a": "1"}, 1)


async def test_a_patch_of_the_status_leaves_the_job(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(PYTORCHJOB, namespace, job("a"))
    patch = {"spec": {"runPolicy": {"suspend": True}}, "status": {"restarts": 1}}
    patched = await cluster.patch(PYTORCHJOB, namespace, "a", patch, subresource="status")
    assert (patched["spec"], patched["status"]["restarts"]) == (created["spec"], 1)


async def test_a_patch_of_a_pods_status_leaves_the_pod(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(POD, namespace, pod("a"))
    patch = {"spec": {"activeDeadlineSeconds": 5}, "status": {"phase": "Running"}}
    patched = await cluster.patch(POD, namespace, "a", patch, subresource="status")
    assert (patched["spec"], patched["status"]["phase"]) == (created["spec"], "Running")


async def test_conditions_are_replaced_whole(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    created = {"type": "Created", "status": "True", "reason": "r", "message": "m"}
    running = {**created, "type": "Running"}
    for conditions in ([created], [created, running], [running]):
        patch = {"status": {"conditions": conditions}}
        patched = await cluster.patch(PYTORCHJOB, namespace, "a", patch, subresource="status")
        assert patched["status"]["conditions"] == conditions


@pytest.mark.parametrize(
    "spec",
    [
        {"restartPolicy": "Never"},
        {"nodeName": NODE},
        {"containers": [{"name": "pytorch", "image": "localhost/none:1", "command": ["other"]}]},
        {"terminationGracePeriodSeconds": 1},
    ],
)
async def test_a_pods_spec_is_immutable(cluster: Cluster, namespace: str, spec: dict[str, object]) -> None:
    await cluster.create(POD, namespace, pod("a"))
    with pytest.raises(Invalid, match="spec"):
        await cluster.patch(POD, namespace, "a", {"spec": spec})


async def test_a_pods_image_may_change(cluster: Cluster, namespace: str) -> None:
    container = (await cluster.create(POD, namespace, pod("a")))["spec"]["containers"][0]
    containers = [{**container, "image": "localhost/none:2"}]
    patched = await cluster.patch(POD, namespace, "a", {"spec": {"containers": containers}})
    assert patched["spec"]["containers"] == containers


async def test_a_pods_deadline_may_only_come_nearer(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    for seconds in (600, 1):
        patched = await cluster.patch(POD, namespace, "a", {"spec": {"activeDeadlineSeconds": seconds}})
        assert patched["spec"]["activeDeadlineSeconds"] == seconds
    for wrong in (2, None):
        with pytest.raises(Invalid, match="activeDeadlineSeconds"):
            await cluster.patch(POD, namespace, "a", {"spec": {"activeDeadlineSeconds": wrong}})


async def test_a_pods_tolerations_may_only_grow(cluster: Cluster, namespace: str) -> None:
    first = {"key": "a", "operator": "Exists", "effect": "NoSchedule"}
    tolerations = (await cluster.create(POD, namespace, pod("a", tolerations=[first])))["spec"]["tolerations"]
    more = [*tolerations, {**first, "key": "b"}]
    patched = await cluster.patch(POD, namespace, "a", {"spec": {"tolerations": more}})
    assert patched["spec"]["tolerations"] == more
    with pytest.raises(Invalid, match="toleration"):
        await cluster.patch(POD, namespace, "a", {"spec": {"tolerations": more[1:]}})


async def test_a_jobs_template_changes_only_while_it_is_suspended(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    change = {"pytorchReplicaSpecs": {"Master": {"template": template(image="localhost/none:2")}}}
    with pytest.raises(Invalid, match="template"):
        await cluster.patch(PYTORCHJOB, namespace, "a", {"spec": change})
    await cluster.patch(PYTORCHJOB, namespace, "a", {"spec": {"runPolicy": {"suspend": True}}})
    resumed = {**change, "runPolicy": {"suspend": False}}
    patched = await cluster.patch(PYTORCHJOB, namespace, "a", {"spec": resumed})
    assert patched["spec"]["pytorchReplicaSpecs"]["Master"]["template"] == template(image="localhost/none:2")


async def test_who_manages_a_job_cannot_change(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    patch = {"spec": {"runPolicy": {"managedBy": "kueue.x-k8s.io/multikueue"}}}
    with pytest.raises(Invalid, match=r"spec\.runPolicy\.managedBy"):
        await cluster.patch(PYTORCHJOB, namespace, "a", patch)


async def test_a_jobs_rules_hold_for_patches(cluster: Cluster, namespace: str) -> None:
    await cluster.create(PYTORCHJOB, namespace, job("a", workers=2))
    patch = {"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 0}}}}
    with pytest.raises(Invalid, match=r"spec\.pytorchReplicaSpecs.*Worker\]?\.replicas"):
        await cluster.patch(PYTORCHJOB, namespace, "a", patch)

"""Creation: what the server sets, what it refuses."""

from __future__ import annotations

import datetime

import pytest

from support.server import event, job, names_of, pod, service
from trainserve.kube.cluster import AlreadyExists, ApiError, BadRequest, Cluster, Invalid, NotFound
from trainserve.kube.names import EVENT, POD, PYTORCHJOB, SERVICE, Kind


async def test_the_server_sets_identity_and_version(cluster: Cluster, namespace: str) -> None:
    sent = pod("a")
    sent["metadata"] |= {"uid": "mine", "generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z"}
    metadata = (await cluster.create(POD, namespace, sent))["metadata"]
    assert metadata["namespace"] == namespace
    assert metadata["uid"] not in ("", "mine")
    assert int(metadata["resourceVersion"]) > 0
    created = datetime.datetime.fromisoformat(metadata["creationTimestamp"])
    assert abs((datetime.datetime.now(datetime.UTC) - created).total_seconds()) < 60


async def test_the_answer_is_what_is_stored(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(SERVICE, namespace, service("a"))
    assert created == await cluster.get(SERVICE, namespace, "a")


async def test_versions_grow(cluster: Cluster, namespace: str) -> None:
    made = [await cluster.create(POD, namespace, pod(name)) for name in ("c", "a", "b")]
    versions = [int(item["metadata"]["resourceVersion"]) for item in made]
    assert versions == sorted(set(versions))


async def test_what_the_caller_changes_later_is_not_stored(cluster: Cluster, namespace: str) -> None:
    sent = pod("a", labels={"a": "1"})
    answer = await cluster.create(POD, namespace, sent)
    sent["metadata"]["labels"]["a"] = answer["metadata"]["labels"]["a"] = "2"
    assert (await cluster.get(POD, namespace, "a"))["metadata"]["labels"] == {"a": "1"}


async def test_a_second_object_of_the_name_is_refused(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    with pytest.raises(AlreadyExists, match='pods "a" already exists'):
        await cluster.create(POD, namespace, pod("a"))


async def test_kinds_and_namespaces_do_not_share_names(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    await cluster.create(SERVICE, namespace, service("a"))
    assert names_of((await cluster.list(POD, namespace)).items) == ["a"]


async def test_generate_name(cluster: Cluster, namespace: str) -> None:
    sent = pod("")
    sent["metadata"] = {"generateName": "a-"}
    first, second = [(await cluster.create(POD, namespace, sent))["metadata"]["name"] for _ in range(2)]
    assert first != second
    assert all(name.startswith("a-") and len(name) == 7 for name in (first, second))


async def test_what_is_not_there_is_not_found(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(NotFound, match=r'pytorchjobs\.kubeflow\.org "a" not found'):
        await cluster.get(PYTORCHJOB, namespace, "a")


async def test_an_unknown_kind_is_not_found(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(NotFound):
        await cluster.list(Kind("example.com", "v1", "Nothing", "nothings"), namespace)


async def test_the_body_must_be_of_the_kind(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(BadRequest):
        await cluster.create(POD, namespace, service("a"))


async def test_the_body_must_be_of_the_namespace(cluster: Cluster, namespace: str) -> None:
    sent = pod("a")
    sent["metadata"]["namespace"] = "other"
    with pytest.raises(BadRequest, match="namespace"):
        await cluster.create(POD, namespace, sent)


async def test_a_version_cannot_be_created(cluster: Cluster, namespace: str) -> None:
    sent = pod("a")
    sent["metadata"]["resourceVersion"] = "1"
    with pytest.raises(ApiError, match="resourceVersion"):
        await cluster.create(POD, namespace, sent)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"restartPolcy": "Never"}, "spec.restartPolcy"),
        ({"containers": [{"name": "a", "image": "i", "comand": ["x"]}]}, r"spec.containers\[0\].comand"),
        ({"containers": [{"name": "a", "image": "i", "env": [{"nme": "A"}]}]}, r"spec.containers\[0\].env\[0\].nme"),
        ({"initContainers": [{"name": "a", "image": "i", "port": []}]}, r"spec.initContainers\[0\].port"),
        ({"volumes": [{"name": "shm", "emptyDir": {"medum": "Memory"}}]}, r"spec.volumes\[0\].emptyDir.medum"),
    ],
)
async def test_an_unknown_field_is_named_with_its_path(
    cluster: Cluster, namespace: str, spec: dict[str, object], path: str
) -> None:
    with pytest.raises(BadRequest, match=f'unknown field "{path}"'):
        await cluster.create(POD, namespace, pod("a", **spec))
    assert (await cluster.list(POD, namespace)).items == []


async def test_an_unknown_field_of_metadata(cluster: Cluster, namespace: str) -> None:
    sent = service("a")
    sent["metadata"]["lables"] = {"a": "b"}
    with pytest.raises(BadRequest, match=r'unknown field "metadata\.lables"'):
        await cluster.create(SERVICE, namespace, sent)


async def test_an_env_value_that_is_a_number_is_refused(cluster: Cluster, namespace: str) -> None:
    containers = [{"name": "a", "image": "i", "env": [{"name": "WORLD_SIZE", "value": 4}]}]
    with pytest.raises(BadRequest):
        await cluster.create(POD, namespace, pod("a", containers=containers))


async def test_a_pod_starts_pending_whatever_it_says(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(POD, namespace, {**pod("a"), "status": {"phase": "Running"}})
    assert created["status"]["phase"] == "Pending"


async def test_a_pods_defaults(cluster: Cluster, namespace: str) -> None:
    spec = (await cluster.create(POD, namespace, pod("a")))["spec"]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Always", 30)
    container = spec["containers"][0]
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["imagePullPolicy"] == "IfNotPresent"


async def test_a_null_field_is_an_absent_one(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(POD, namespace, pod("a", restartPolicy=None, nodeSelector=None))
    assert created["spec"]["restartPolicy"] == "Always"
    assert "nodeSelector" not in created["spec"]


async def test_a_ports_protocol_is_tcp(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(SERVICE, namespace, service("a", port=80))
    assert created["spec"]["ports"] == [{"name": "port", "port": 80, "protocol": "TCP", "targetPort": 80}]


async def test_an_event_belongs_to_its_objects_namespace(cluster: Cluster, namespace: str) -> None:
    await cluster.create(EVENT, namespace, event("a", namespace))
    with pytest.raises(Invalid, match=r"involvedObject\.namespace"):
        await cluster.create(EVENT, namespace, event("b", "other"))


@pytest.mark.parametrize("name", ["A", "a_b", "-a", "a-", "a..b", "a" * 254])
async def test_names_a_pod_may_not_have(cluster: Cluster, namespace: str, name: str) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await cluster.create(POD, namespace, pod(name))


@pytest.mark.parametrize("name", ["A", "a.b", "a-", "a" * 64])
async def test_names_a_service_may_not_have(cluster: Cluster, namespace: str, name: str) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await cluster.create(SERVICE, namespace, service(name))


@pytest.mark.parametrize("name", ["1st-run", "A", "a.b", "a-", "a" * 70])
async def test_names_a_job_may_not_have(cluster: Cluster, namespace: str, name: str) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await cluster.create(PYTORCHJOB, namespace, job(name))


async def test_a_name_is_required(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(Invalid, match="name or generateName is required"):
        await cluster.create(POD, namespace, pod(""))


@pytest.mark.parametrize("labels", [{"a": "x" * 64}, {"a": "a b"}, {"a": "-"}, {"a/b/c": "d"}, {"": "a"}])
async def test_labels_an_object_may_not_have(cluster: Cluster, namespace: str, labels: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"metadata\.labels"):
        await cluster.create(POD, namespace, pod("a", labels=labels))


async def test_labels_an_object_may_have(cluster: Cluster, namespace: str) -> None:
    labels = {"a": "", "training.kubeflow.org/job-name": "x" * 63, "A_b.c": "1.2_3-Z"}
    assert (await cluster.create(POD, namespace, pod("a", labels=labels)))["metadata"]["labels"] == labels


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"containers": []}, r"spec\.containers"),
        ({"containers": [{"name": "a"}]}, r"spec\.containers\[0\]\.image"),
        ({"containers": [{"name": "a", "image": "i"}] * 2}, r"spec\.containers\[1\]\.name"),
        ({"restartPolicy": "Sometimes"}, r"spec\.restartPolicy"),
        ({"activeDeadlineSeconds": 0}, r"spec\.activeDeadlineSeconds"),
    ],
)
async def test_values_a_pod_may_not_have(cluster: Cluster, namespace: str, spec: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid, match=path):
        await cluster.create(POD, namespace, pod("a", **spec))


async def test_an_owner_needs_its_uid(cluster: Cluster, namespace: str) -> None:
    sent = pod("a")
    sent["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": ""}]
    with pytest.raises(Invalid, match=r"ownerReferences\[0\]\.uid"):
        await cluster.create(POD, namespace, sent)

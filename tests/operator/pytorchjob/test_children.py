from __future__ import annotations

import copy

import pytest

from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Invalid, Manifest
from trainserve.operator.creating import create_all
from trainserve.operator.pytorchjob.decision import Create
from trainserve.operator.pytorchjob.observed import Observed
from trainserve.operator.pytorchjob.reconcile import reconcile


def test_a_job_gets_a_pod_and_a_service_for_each_replica() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        assert set(scenario.pods()) == scenario.services() == {"master-0", "worker-0", "worker-1"}
        assert scenario.conditions() == [("Created", "True")]
        assert scenario.message() == "PyTorchJob flowers is created."
        assert scenario.reason() == "PyTorchJobCreated"


def test_services_are_there_before_the_pods_and_the_status_before_both() -> None:
    writes: list[tuple[str, str]] = []
    with Scenario(pytorchjob(workers=1)) as scenario:
        cluster = scenario.cluster

        class Noting:
            def __getattr__(self, name: str) -> object:
                method = getattr(cluster, name)
                if name not in {"create", "patch", "delete"}:
                    return method

                async def write(kind: names.Kind, *args: object, **kwargs: object) -> object:
                    if kind != names.EVENT:
                        writes.append((name, str(kind)))
                    return await method(kind, *args, **kwargs)

                return write

        scenario.controller_restarts(Noting())  # type: ignore[arg-type]
        scenario.look()
        scenario.sync()
    assert writes == [
        ("patch", "PyTorchJob"),
        ("create", "Service"),
        ("create", "Service"),
        ("create", "Pod"),
        ("create", "Pod"),
    ]


@pytest.mark.parametrize("managed_by", ["", "kubeflow.org/training-operator"])
def test_managed_by_nobody_in_particular_is_ours(managed_by: str) -> None:
    with Scenario(pytorchjob(managedBy=managed_by)) as scenario:
        scenario.settle()
        assert scenario.pods()


def test_managed_by_another_is_left_alone() -> None:
    with Scenario(pytorchjob(managedBy="kueue.x-k8s.io/multikueue")) as scenario:
        scenario.settle()
        assert scenario.status() == {}
        assert scenario.pods() == {}


def _foreign(kind: names.Kind, name: str, owner: Manifest | None = None) -> Manifest:
    metadata: Manifest = {"name": name, "namespace": NAMESPACE, "labels": names.replica_labels("flowers", "Worker", 1)}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    spec: Manifest = {"containers": [{"name": "x", "image": "i"}]} if kind == names.POD else {"clusterIP": "None"}
    return {"apiVersion": "v1", "kind": kind.kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("kind", [names.POD, names.SERVICE])
def test_what_belongs_to_others_is_neither_taken_nor_deleted(kind: names.Kind) -> None:
    with Scenario(pytorchjob()) as scenario:
        theirs = scenario.run(scenario.cluster.create(kind, NAMESPACE, _foreign(kind, "flowers-worker-1")))
        scenario.settle()
        assert scenario.state() == "Pending"
        assert "does not belong to this job" in scenario.message()
        (told,) = scenario.events(f"FailedCreate{kind}")
        assert "give the job another name" in told["message"]
        scenario.suspend()
        scenario.settle()
        assert scenario.run(scenario.cluster.get(kind, NAMESPACE, "flowers-worker-1")) == theirs


def test_an_old_pod_whose_label_somebody_has_taken_away_is_told() -> None:
    """The caches go by that label: nobody would ever delete it, and its successor would wait without a word."""
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        job = scenario.job()
        assert job is not None
        old = scenario.pods()["worker-0"]
        successor = copy.deepcopy(old)
        successor["metadata"] = {key: old["metadata"][key] for key in ("name", "namespace", "labels")}
        successor["metadata"]["labels"] = {**old["metadata"]["labels"], names.LABEL_GENERATION: "2"}
        create = Create(names.POD, successor)
        assert scenario.run(create_all(scenario.cluster, job, [create])).again_s == 1.0
        hidden = {"metadata": {"labels": {names.LABEL_OPERATOR_NAME: None}}}
        scenario.run(scenario.cluster.patch(names.POD, NAMESPACE, old["metadata"]["name"], hidden))
        failed = scenario.run(create_all(scenario.cluster, job, [create])).failed
        assert failed is not None
        assert f"lacks the label {names.LABEL_OPERATOR_NAME}" in str(failed[1])


def test_children_of_a_deleted_job_of_the_same_name_are_waited_for() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.run(scenario.cluster.delete(names.PYTORCHJOB, NAMESPACE, "flowers"))
        scenario.run(scenario.cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob()))
        scenario.settle()
        assert scenario.again_s == 1.0
        assert scenario.events("FailedCreatePod") == []
        scenario.finish_deletions()
        assert len(scenario.pods()) == 3
        assert scenario.deleting() == set()


def test_a_template_that_is_no_pod_fails_the_job_with_the_path() -> None:
    job = pytorchjob()
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["comand"] = ["train"]
    with Scenario(job) as scenario:
        scenario.settle()
        assert scenario.state() == "Failed"
        assert scenario.reason() == "PyTorchJobInvalid"
        assert "containers[0].comand" in scenario.status()["cause"]
        assert scenario.status()["completionTime"]


def test_fields_without_effect_are_said_once() -> None:
    job = pytorchjob(schedulingPolicy={"minAvailable": 1})
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["restartPolicy"] = "Always"
    with Scenario(job) as scenario:
        scenario.settle()
        scenario.start_pods()
        (told,) = scenario.events("NotSupported")
        assert "schedulingPolicy" in told["message"]
        assert told["count"] == 1
        assert len(scenario.events("SettedPodTemplateRestartPolicy")) == 1


def test_a_deprecated_field_is_told_once() -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 2, "nProcPerNode": 4}
    with Scenario(pytorchjob(elastic=elastic, policy="OnFailure")) as scenario:
        scenario.settle()
        scenario.start_pods()
        (told,) = scenario.events("Deprecated")
        assert told["message"] == "spec.elasticPolicy.nProcPerNode is deprecated: say spec.nprocPerNode, a string"
        assert told["count"] == 1


def test_a_status_that_was_lost_starts_after_the_pods_that_are_there() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        scenario.start_pods()
        status = dict.fromkeys(scenario.status())
        patch = {"status": status}
        scenario.run(scenario.cluster.patch(names.PYTORCHJOB, NAMESPACE, "flowers", patch, subresource="status"))
        scenario.settle()
        scenario.finish_deletions()
        assert set(scenario.generations().values()) == {"2"}


@pytest.mark.parametrize("length", [40, 53])
def test_ctl_05_a_long_name_runs_with_whole_labels(length: int) -> None:
    with Scenario(pytorchjob("a" * length, workers=12)) as scenario:
        scenario.settle()
        assert len(scenario.pods()) == 13
        for pod in scenario.pods().values():
            assert pod["metadata"]["labels"][names.LABEL_JOB_NAME] == "a" * length


@pytest.mark.parametrize("length", [54, 63, 70])
def test_ctl_05_a_longer_one_is_refused_with_the_longest_allowed(length: int) -> None:
    with pytest.raises(Invalid, match="at most 53 are allowed"):
        Scenario(pytorchjob("a" * length, workers=12))


@pytest.mark.parametrize("length", [54, 70])
def test_ctl_05_and_where_the_server_does_not_refuse_it_the_job_fails_with_that(length: int) -> None:
    job = pytorchjob("a" * length, workers=12)
    job["metadata"]["uid"] = "u"
    decision = reconcile(job, Observed(), 0.0)
    assert decision.status is not None
    assert decision.status["conditions"][-1]["type"] == "Failed"
    assert "at most 53 are allowed" in decision.status["conditions"][-1]["message"]
    assert decision.creates == ()

"""What each scheduler of gangs is given: whole objects, and the number that is placed together."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from support.golden import check_golden, golden_input
from support.scenario import pytorchjob
from trainserve.kube import autoscaler, names, pods, replicas
from trainserve.kube.podgroup import KINDS, Gang, gang_of_pod, join, minimum, pod_group
from trainserve.spec.pytorchjob import default, validate

GANGS: list[Gang] = ["kubernetes", "volcano", "scheduler-plugins"]


def _job(**how: Any) -> dict[str, Any]:
    job = default(pytorchjob(**how))
    job["metadata"]["uid"] = "uid-job"
    return job


@pytest.mark.parametrize("gang", GANGS)
def test_whole_groups_and_their_pods(gang: Gang, update_golden: bool) -> None:
    case = f"podgroup-{gang}"
    sent = golden_input(case)
    validate(sent)
    job = default(sent)
    before = copy.deepcopy(job)
    out = [pod_group(job, 3, gang)]
    out += [join(pods.replica_pod(job, *replica, 3), job, 3, gang) for replica in replicas.replicas(job)[:2]]
    assert job == before
    check_golden(case, out, update=update_golden)


def test_a_whole_autoscaler(update_golden: bool) -> None:
    check_golden("autoscaler", [autoscaler.autoscaler(default(golden_input("autoscaler")))], update=update_golden)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"workers": 3}, 4),
        ({"workers": 3, "schedulingPolicy": {}}, 4),
        ({"workers": 3, "schedulingPolicy": {"minAvailable": 2}}, 2),
        ({"workers": 3, "schedulingPolicy": {"minAvailable": 0}}, 0),
        ({"workers": 3, "schedulingPolicy": {"minAvailable": 9}}, 4),  # more than there are would wait for ever
        ({"workers": 3, "elastic": {"minReplicas": 2}}, 3),
        ({"workers": 3, "elastic": {"minReplicas": 5, "maxReplicas": 6}}, 4),
        ({"workers": 3, "master": False, "elastic": {"minReplicas": 1, "maxReplicas": 3}}, 1),
        ({"workers": 3, "elastic": {"minReplicas": 1, "maxReplicas": 3}, "schedulingPolicy": {"minAvailable": 4}}, 4),
        ({"workers": 0}, 1),
    ],
)
def test_how_many_are_placed_together(how: dict[str, Any], expected: int) -> None:
    assert minimum(_job(**how)) == expected


def test_none_together_is_kubernetes_basic_policy() -> None:
    job = _job(schedulingPolicy={"minAvailable": 0})
    assert pod_group(job, 1, "kubernetes")["spec"] == {"schedulingPolicy": {"basic": {}}}


def test_a_gang_is_disrupted_as_a_whole_and_an_elastic_job_pod_by_pod() -> None:
    assert pod_group(_job(), 1, "kubernetes")["spec"]["disruptionMode"] == {"all": {}}
    elastic = _job(elastic={"minReplicas": 1})
    assert "disruptionMode" not in pod_group(elastic, 1, "kubernetes")["spec"]


def test_what_the_template_says_of_scheduler_and_priority_stays() -> None:
    job = _job(schedulingPolicy={"priorityClass": "high"})
    spec = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    spec |= {"schedulerName": "mine", "priorityClassName": "low"}
    for gang in GANGS:
        pod = join(pods.replica_pod(job, "Worker", 0, 1), job, 1, gang)
        assert (pod["spec"]["schedulerName"], pod["spec"]["priorityClassName"]) == ("mine", "low")
        assert gang_of_pod(pod) == gang


@pytest.mark.parametrize(("gang", "expected"), [("none", "high"), ("kubernetes", "high"), ("volcano", None)])
def test_a_priority_has_an_effect_with_every_scheduler(gang: Gang, expected: str | None) -> None:
    job = _job(schedulingPolicy={"priorityClass": "high"})
    pod = join(pods.replica_pod(job, "Worker", 0, 1), job, 1, gang)
    assert pod["spec"].get("priorityClassName") == expected
    if gang in KINDS:
        assert pod_group(job, 1, gang)["spec"]["priorityClassName"] == "high"


def test_the_templates_priority_is_the_groups_where_nothing_else_is_given() -> None:
    job = _job()
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["priorityClassName"] = "low"
    assert pod_group(job, 1, "kubernetes")["spec"]["priorityClassName"] == "low"


def test_kueues_labels_of_a_plain_pod_group_are_passed_on() -> None:
    job = _job()
    job["metadata"]["labels"] = {names.LABEL_KUEUE_GROUP: "flowers", names.LABEL_KUEUE_QUEUE: "q", "mine": "1"}
    pod = pods.replica_pod(job, "Worker", 0, 1)["metadata"]
    assert pod["labels"][names.LABEL_KUEUE_GROUP] == "flowers"
    assert pod["labels"][names.LABEL_KUEUE_QUEUE] == "q"
    assert pod["annotations"] == {names.ANNOTATION_KUEUE_GROUP_SIZE: "3"}
    assert "mine" not in pod["labels"]


def test_a_job_that_kueue_admits_as_a_whole_has_no_queue_on_its_pods() -> None:
    job = _job()
    job["metadata"]["labels"] = {names.LABEL_KUEUE_QUEUE: "q"}
    assert names.LABEL_KUEUE_QUEUE not in pods.replica_pod(job, "Worker", 0, 1)["metadata"]["labels"]


def test_kueues_labels_of_the_template_stay_as_they_are() -> None:
    job = _job()
    job["metadata"]["labels"] = {names.LABEL_KUEUE_GROUP: "of-the-job"}
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["metadata"] = {
        "labels": {names.LABEL_KUEUE_GROUP: "of-the-template"},
        "annotations": {names.ANNOTATION_KUEUE_GROUP_SIZE: "7"},
    }
    pod = pods.replica_pod(job, "Worker", 0, 1)["metadata"]
    assert pod["labels"][names.LABEL_KUEUE_GROUP] == "of-the-template"
    assert pod["annotations"] == {names.ANNOTATION_KUEUE_GROUP_SIZE: "7"}

"""Kueue v0.17.0 admits, holds back and preempts our jobs; it edits `runPolicy.suspend`, and we do the rest."""

from __future__ import annotations

from typing import Any

from support.kubectl import Kubectl
from support.operating import Operator
from support.queues import GROUP, GROUP_SIZE, PRIORITY, QUEUE, make_priority, make_queue, pods_of, running, state
from support.runs import wait_until

WITHIN_S = 60.0


def _job(name: str, labels: dict[str, str], *, pod_labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Four replicas of one CPU each."""
    container = {"name": "pytorch", "image": "localhost/train:1", "command": ["train"]}
    template: dict[str, Any] = {
        "spec": {"containers": [{**container, "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}]}
    }
    if pod_labels:
        template["metadata"] = {"labels": pod_labels}
    replica = {"restartPolicy": "OnFailure", "template": template}
    specs = {"Master": {"replicas": 1, **replica}, "Worker": {"replicas": 3, **replica}}
    metadata = {"name": name, "labels": labels}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": metadata,
        "spec": {"pytorchReplicaSpecs": specs},
    }


def _suspended(kubectl: Kubectl, name: str) -> bool:
    return bool((kubectl.json("get", "pytorchjob", name)["spec"].get("runPolicy") or {}).get("suspend"))


def _succeed(kubectl: Kubectl, name: str) -> None:
    kubectl(
        "patch",
        "pod",
        f"{name}-master-0",
        "--subresource=status",
        "--type=merge",
        "-p",
        '{"status":{"phase":"Succeeded"}}',
    )


def test_a_queue_with_room_for_one_job_admits_two_one_after_the_other(kubectl: Kubectl, operator: Operator) -> None:
    queue = make_queue(kubectl, 4)
    kubectl.apply(_job("first", {QUEUE: queue}))
    wait_until(lambda: state(kubectl, "first") == "Running", "the first job runs", WITHIN_S)
    kubectl.apply(_job("second", {QUEUE: queue}))
    wait_until(lambda: state(kubectl, "second") == "Suspended", "the second one waits", WITHIN_S)
    assert pods_of(kubectl, "second") == []
    assert running(kubectl, "first") == 4
    _succeed(kubectl, "first")
    wait_until(lambda: state(kubectl, "first") == "Succeeded", "the first job ends", WITHIN_S)
    wait_until(lambda: running(kubectl, "second") == 4, "the second one runs", WITHIN_S)
    assert not _suspended(kubectl, "second")


def test_a_higher_priority_preempts_a_running_job_which_resumes(kubectl: Kubectl, operator: Operator) -> None:
    queue = make_queue(kubectl, 4)
    urgent = f"{kubectl.namespace}-urgent"
    make_priority(kubectl, urgent, 1000)
    kubectl.apply(_job("low", {QUEUE: queue}))
    wait_until(lambda: running(kubectl, "low") == 4, "the job of low priority runs", WITHIN_S)
    before = {pod["metadata"]["uid"] for pod in pods_of(kubectl, "low")}
    kubectl.apply(_job("high", {QUEUE: queue, PRIORITY: urgent}))
    wait_until(lambda: running(kubectl, "high") == 4, "the urgent one runs", WITHIN_S)
    assert state(kubectl, "low") == "Suspended"
    assert pods_of(kubectl, "low") == []
    _succeed(kubectl, "high")
    wait_until(lambda: running(kubectl, "low") == 4, "the preempted one runs again", WITHIN_S)
    again = kubectl.json("get", "pytorchjob", "low")["status"]
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in pods_of(kubectl, "low"))
    assert again.get("restarts", 0) == 0  # being preempted is nobody's failure
    assert again["conditions"][-1]["type"] == "Running"


def test_plain_pod_groups_by_labels_are_admitted_one_after_the_other(kubectl: Kubectl, operator: Operator) -> None:
    queue = make_queue(kubectl, 4)

    def grouped(name: str) -> dict[str, Any]:
        labels = {QUEUE: queue, GROUP: name}
        job = _job(name, {}, pod_labels=labels)
        for replica in job["spec"]["pytorchReplicaSpecs"].values():
            replica["template"]["metadata"]["annotations"] = {GROUP_SIZE: "4"}
        return job

    kubectl.apply(grouped("first"))
    wait_until(lambda: running(kubectl, "first") == 4, "the first group runs", WITHIN_S)
    kubectl.apply(grouped("second"))
    wait_until(lambda: len(pods_of(kubectl, "second")) == 4, "the second group is there", WITHIN_S)
    assert all(pod["spec"].get("schedulingGates") for pod in pods_of(kubectl, "second"))
    assert running(kubectl, "second") == 0
    for pod in pods_of(kubectl, "first"):
        kubectl(
            "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p",
            '{"status":{"phase":"Succeeded"}}',
        )  # fmt: skip
    wait_until(lambda: state(kubectl, "first") == "Succeeded", "the first job ends", WITHIN_S)
    wait_until(lambda: running(kubectl, "second") == 4, "the second group runs", WITHIN_S)

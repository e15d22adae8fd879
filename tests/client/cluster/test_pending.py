"""For what the pods of a job wait, in one line."""

from __future__ import annotations

from typing import Any

import pytest

from trainserve.client.cluster.pending import waits_for
from trainserve.kube.cluster import Manifest

JOB: Manifest = {"metadata": {"name": "flowers"}, "status": {"conditions": [{"type": "Created", "status": "True"}]}}


def pod(name: str = "flowers-master-0", *, node: str = "", phase: str = "Pending", **status: Any) -> Manifest:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, **status},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


UNPLACED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
MASTER = "flowers-master-0"
COMING = pod(node="a", containerStatuses=[waiting("ContainerCreating")])
AFTER_MASTER = pod(
    node="a",
    initContainerStatuses=[{"state": {"running": {}}}],
    containerStatuses=[waiting("PodInitializing")],
)


def told(reason: str, message: str, moment: str) -> Manifest:
    return {"involvedObject": {"name": MASTER}, "reason": reason, "message": message, "lastTimestamp": moment}


@pytest.mark.parametrize(
    ("pods", "events", "expected"),
    [
        ([pod(conditions=[UNPLACED])], [], f"{MASTER}: Unschedulable: 0/3 nodes are available"),
        ([pod(containerStatuses=[waiting("ErrImagePull", "none such")])], [], f"{MASTER}: ErrImagePull: none such"),
        ([AFTER_MASTER], [], f"{MASTER}: waits for the master"),
        ([COMING], [], f"{MASTER}: starts on a"),
        (
            [COMING],
            [told("FailedMount", "no claim", "2"), told("Scheduled", "", "1")],
            f"{MASTER}: FailedMount: no claim",
        ),
        ([pod()], [], f"{MASTER}: has no node yet"),
        ([pod(f"w-{n}") for n in range(5)], [], "w-0, w-1, w-2 and 2 more: has no node yet"),
        ([pod("a", node="n", phase="Running"), pod("b", node="n", phase="Succeeded")], [], None),
        (
            [pod("a", node="n", phase="Running", containerStatuses=[waiting("CrashLoopBackOff", "10 s")])],
            [],
            "a: CrashLoopBackOff: 10 s",
        ),
    ],
)
def test_what_a_pod_waits_for(pods: list[Manifest], events: list[Manifest], expected: str | None) -> None:
    assert waits_for(JOB, pods, events) == expected


def test_what_the_controller_says_of_the_whole_job_goes_before_one_pods_word() -> None:
    pending = {
        "type": "Pending",
        "status": "True",
        "message": "PyTorchJob flowers waits for a place: 0 of 2 pods have a node.",
    }
    job = {**JOB, "status": {"conditions": [*JOB["status"]["conditions"], pending]}}
    assert waits_for(job, []) == pending["message"]
    assert waits_for(job, [pod("a", conditions=[UNPLACED]), pod("b", conditions=[UNPLACED])]) == pending["message"]


def test_a_job_that_nobody_has_seen() -> None:
    assert waits_for({"metadata": {"name": "x"}}, []) == (
        "the controller has not seen the job yet: is it installed, and does it run?"
    )
    assert waits_for(JOB, []) is None


def test_pods_without_a_node_are_the_controllers_and_the_others_speak_for_themselves() -> None:
    pending = {"type": "Pending", "status": "True", "message": "it waits for a place"}
    job = {**JOB, "status": {"conditions": [pending]}}
    pulling = pod("b", node="n", containerStatuses=[waiting("ErrImagePull", "none such")])
    assert waits_for(job, [pod("a"), pulling]) == "it waits for a place; b: ErrImagePull: none such"
    assert waits_for(job, [pulling]) == "b: ErrImagePull: none such"

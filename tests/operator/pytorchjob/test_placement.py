"""Pods that no node has room for."""

from __future__ import annotations

from typing import Any

import pytest

from support.gangs import GANG_KINDS, refuse, serving
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names, room
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.observed import Facilities

SAID = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def _gpu_job(**how: Any) -> dict[str, Any]:
    job = pytorchjob(**how)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    return job


def _node(name: str, gpus: int) -> room.NodeRoom:
    node = {
        "metadata": {"name": name},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "8", "pods": "110", "nvidia.com/gpu": str(gpus)},
        },
    }
    found = room.node_room(node, {})
    assert found is not None
    return found


def _scenario(job: dict[str, Any], gpus: int | None = None) -> Scenario:
    free = None if gpus is None else tuple(_node(f"n{index}", 1) for index in range(gpus))
    facilities = Facilities(gang="kubernetes", room=free)
    return Scenario(job, resources=serving(*GANG_KINDS), facilities=facilities)


def test_a_gang_that_does_not_fit_says_what_is_missing_and_goes_on_when_it_fits() -> None:
    with _scenario(_gpu_job(workers=3), gpus=3) as scenario:
        scenario.settle()
        refuse(scenario, SAID)
        scenario.settle()
        assert scenario.state() == "Created"  # a moment ago: it may be about to be placed
        assert scenario.again_s == 5.0
        scenario.wait(5)
        assert scenario.state() == "Pending"
        assert scenario.reason() == "Unschedulable"
        assert scenario.message() == (
            "PyTorchJob flowers waits for a place: 0 of 4 pods have a node. "
            f"Needs 4 x nvidia.com/gpu, 3 free. The scheduler: {SAID}"
        )
        (told,) = scenario.events("Unschedulable")
        assert (told["type"], told["message"]) == ("Warning", scenario.message())
        scenario.start_pods()
        assert scenario.conditions() == [("Created", "True"), ("Running", "True")]


def test_without_sight_of_the_nodes_the_schedulers_sentence_is_what_there_is() -> None:
    with _scenario(_gpu_job()) as scenario:
        scenario.settle()
        refuse(scenario, SAID)
        scenario.wait(5)
        assert scenario.message().endswith(f"0 of 3 pods have a node. The scheduler: {SAID}")


def test_the_groups_own_sentence_goes_first() -> None:
    with _scenario(_gpu_job()) as scenario:
        scenario.settle()
        said = "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"
        condition = {"type": "PodGroupInitiallyScheduled", "status": "False", "reason": "x", "message": said}
        place = (names.POD_GROUP, NAMESPACE, "flowers-g1")
        scenario.run(scenario.cluster.patch(*place, {"status": {"conditions": [condition]}}, subresource="status"))
        refuse(scenario, SAID)
        scenario.wait(5)
        assert scenario.message().endswith(f"The scheduler: {said}; {SAID}")
        refuse(scenario, f"pod group is unschedulable, {said}")  # it repeats that, and is not repeated
        scenario.wait(30)
        assert scenario.message().endswith(f"have a node. The scheduler: {said}")


def test_the_same_is_told_once_and_another_sentence_at_most_every_half_minute() -> None:
    with _scenario(_gpu_job()) as scenario:
        scenario.settle()
        refuse(scenario, SAID)
        scenario.wait(5)
        version = scenario.version()
        for _ in range(20):
            scenario.wait(10)
        assert scenario.version() == version
        refuse(scenario, SAID.replace("3", "4"))
        scenario.settle()
        message = scenario.message()
        for nodes in range(5, 10):
            refuse(scenario, SAID.replace("3", str(nodes)))
            scenario.wait(1)
        assert scenario.message() == message
        assert scenario.again_s is not None
        assert 0 < scenario.again_s <= 30
        scenario.wait(30)
        assert "0/9 nodes" in scenario.message()
        assert len(scenario.events("Unschedulable")) == 3


def test_pods_that_no_scheduler_looks_at_are_told_with_the_one_they_ask_for() -> None:
    job = pytorchjob()
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["schedulerName"] = "mine"
    with Scenario(job) as scenario:
        scenario.settle()
        scenario.wait(59)
        assert scenario.state() == "Created"
        scenario.wait(1)
        assert "No scheduler has looked at the others: is there one called 'mine'" in scenario.message()


def test_a_part_of_a_plain_gang_is_told_too() -> None:
    with Scenario(_gpu_job()) as scenario:
        scenario.settle()
        scenario.start_pods("flowers-master-0", "flowers-worker-0")
        assert scenario.state() == "Running"
        refuse(scenario, SAID)
        scenario.wait(5)
        assert scenario.conditions() == [("Created", "True"), ("Running", "True"), ("Pending", "True")]
        assert "2 of 3 pods have a node" in scenario.message()
        scenario.wait(100)
        assert len(scenario.events("Unschedulable")) == 1
        scenario.start_pods()
        assert scenario.conditions() == [("Created", "True"), ("Running", "True")]


def test_an_elastic_job_waits_for_its_fewest_only() -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 3}
    with Scenario(_gpu_job(master=False, workers=3, policy="OnFailure", elastic=elastic)) as scenario:
        scenario.settle()
        refuse(scenario, SAID)
        scenario.wait(5)
        assert scenario.state() == "Pending"
        scenario.start_pods("flowers-worker-0")
        assert scenario.state() == "Running"
        assert not conditions.is_listed(scenario.status(), "Pending")


def test_pods_that_wait_for_a_queue_are_told_without_counting_nodes() -> None:
    job = _gpu_job()
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    with _scenario(job, gpus=1) as scenario:
        scenario.settle()
        refuse(scenario, "Scheduling is blocked due to non-empty scheduling gates", reason="SchedulingGated")
        scenario.wait(5)
        said = "The scheduler: Scheduling is blocked due to non-empty scheduling gates"
        assert scenario.message().endswith(f"0 of 3 pods have a node. {said}")


def test_a_suspended_job_no_longer_waits_for_a_place() -> None:
    with _scenario(_gpu_job()) as scenario:
        scenario.settle()
        refuse(scenario, SAID)
        scenario.wait(5)
        scenario.suspend()
        scenario.settle()
        assert scenario.state() == "Suspended"
        assert not conditions.is_listed(scenario.status(), "Pending")


def test_a_part_of_a_gang_gives_back_what_it_holds_after_schedule_timeout_seconds() -> None:
    policy = {"scheduleTimeoutSeconds": 60}
    with Scenario(_gpu_job(backoffLimit=0, schedulingPolicy=policy)) as scenario:
        scenario.settle()
        scenario.start_pods("flowers-master-0")
        refuse(scenario, SAID)
        scenario.wait(59)
        assert scenario.again_s == 1.0
        assert set(scenario.generations().values()) == {"1"}
        scenario.wait(1)
        assert scenario.reason() == "ScheduleTimeout"
        assert "after 60 s only 1 of 3 pods have a node" in scenario.message()
        scenario.finish_deletions()
        assert set(scenario.generations().values()) == {"2"}
        assert scenario.status().get("restarts", 0) == 0
        assert scenario.status()["history"][-1]["free"] is True
        scenario.start_pods()
        assert scenario.state() == "Running"


@pytest.mark.parametrize("started", [(), ("flowers-master-0", "flowers-worker-0", "flowers-worker-1")])
def test_a_gang_that_holds_nothing_or_has_all_waits_without_an_end(started: tuple[str, ...]) -> None:
    with Scenario(_gpu_job(schedulingPolicy={"scheduleTimeoutSeconds": 60})) as scenario:
        scenario.settle()
        if started:
            scenario.start_pods(*started)
        else:
            refuse(scenario, SAID)
        scenario.wait(1000)
        assert scenario.status()["generation"] == 1


def test_the_timeout_of_scheduler_plugins_is_its_own_schedulers() -> None:
    job = _gpu_job(schedulingPolicy={"scheduleTimeoutSeconds": 60})
    facilities = Facilities(gang="scheduler-plugins")
    with Scenario(job, resources=serving(*GANG_KINDS), facilities=facilities) as scenario:
        scenario.settle()
        scenario.start_pods("flowers-master-0")
        refuse(scenario, SAID)
        scenario.wait(100)
        assert scenario.status()["generation"] == 1

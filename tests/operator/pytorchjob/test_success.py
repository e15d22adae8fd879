from __future__ import annotations

from support.scenario import Scenario, pytorchjob


def test_the_master_decides_and_workers_are_ignored() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("worker-0", 1, at=scenario.now + 1)
        scenario.end_pod("master-0", 0)
        scenario.settle()
        assert scenario.conditions() == [("Created", "True"), ("Running", "False"), ("Succeeded", "True")]
        assert scenario.message() == "PyTorchJob flowers is successfully completed."
        assert scenario.reason() == "PyTorchJobSucceeded"
        assert scenario.status()["completionTime"]


def test_pods_that_still_run_count_as_succeeded_with_the_job() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("master-0", 0)
        scenario.settle()
        worker = scenario.status()["replicaStatuses"]["Worker"]
        assert (worker["active"], worker["succeeded"]) == (0, 2)


def test_a_worker_that_is_done_does_not_finish_a_job_with_a_master() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("worker-0", 0)
        scenario.settle()
        assert scenario.state() == "Running"
        assert scenario.status()["replicaStatuses"]["Worker"]["succeeded"] == 1


def test_without_a_master_all_workers_must_be_done() -> None:
    with Scenario(pytorchjob(master=False)) as scenario:
        scenario.settle()
        scenario.start_pods()
        assert scenario.state() == "Running"
        scenario.end_pod("worker-0", 0)
        scenario.settle()
        assert scenario.state() == "Running"
        scenario.end_pod("worker-1", 0)
        scenario.settle()
        assert scenario.state() == "Succeeded"


def test_in_an_elastic_job_without_a_master_any_worker_will_do() -> None:
    with Scenario(pytorchjob(master=False, elastic={"minReplicas": 1, "maxReplicas": 2})) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("worker-1", 0)
        scenario.settle()
        assert scenario.state() == "Succeeded"


def test_a_job_that_has_ended_well_is_not_failed_by_a_deadline_seen_later() -> None:
    with Scenario(pytorchjob(activeDeadlineSeconds=10)) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("master-0", 0)
        scenario.wait(60)
        assert scenario.state() == "Succeeded"


def test_a_pod_of_a_generation_before_decides_nothing() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.suspend()
        scenario.settle()
        scenario.end_pod("master-0", 0)
        scenario.settle()
        assert scenario.state() == "Running"  # False, as it is on its way to Suspended
        scenario.finish_deletions()
        assert scenario.state() == "Suspended"

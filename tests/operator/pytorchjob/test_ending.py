"""Deadline, clean-up and time to live."""

from __future__ import annotations

import pytest

from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names


def _running(**how: object) -> Scenario:
    scenario = Scenario(pytorchjob(**how))  # type: ignore[arg-type]
    scenario.settle()
    scenario.start_pods()
    return scenario


def test_the_deadline_is_enforced_on_time_without_any_event() -> None:
    with _running(activeDeadlineSeconds=30) as scenario:
        assert scenario.again_s == 30
        scenario.wait(29)
        assert scenario.state() == "Running"
        scenario.wait(1)
        assert scenario.state() == "Failed"
        assert scenario.reason() == "DeadlineExceeded"
        assert scenario.message() == ("Job flowers has failed because it was active longer than specified deadline")
        assert scenario.status()["completionTime"]
        assert scenario.status()["replicaStatuses"]["Master"]["active"] == 0


@pytest.mark.parametrize(
    ("policy", "left", "services"),
    [
        ("Running", {"worker-0"}, {"worker-0"}),
        ("None", {"master-0", "worker-0"}, {"master-0", "worker-0"}),
        ("", {"master-0", "worker-0"}, {"master-0", "worker-0"}),
        ("All", set(), set()),
    ],
)
def test_ctl_03_what_is_left_after_a_failure(policy: str, left: set[str], services: set[str]) -> None:
    with _running(policy="Never", workers=1, cleanPodPolicy=policy) as scenario:
        scenario.wait(5)
        scenario.end_pod("worker-0", 1)
        scenario.settle()
        scenario.finish_deletions()
        assert set(scenario.pods()) == left
        assert scenario.services() == services
        assert scenario.state() == "Failed"
        assert len(scenario.events("PyTorchJobFailed")) == 1
        if "master-0" in left:  # kept for its logs, and stopped: it holds nothing
            assert scenario.pods()["master-0"]["spec"]["activeDeadlineSeconds"] == 1
            assert "activeDeadlineSeconds" not in scenario.pods()["worker-0"]["spec"]


def test_a_pod_whose_containers_have_ended_is_not_stopped_though_its_phase_is_late() -> None:
    """A kubelet writes the end of the containers first; a deadline in between would become the pod's reason."""
    with _running(policy="Never", workers=1) as scenario:
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}}
        patch = {"status": {"containerStatuses": [{"name": "pytorch", "ready": False, "state": ended}]}}
        place = (names.POD, NAMESPACE, "flowers-worker-0")
        scenario.run(scenario.cluster.patch(*place, patch, subresource="status"))
        scenario.settle()
        assert scenario.state() == "Failed"
        assert "activeDeadlineSeconds" not in scenario.pods()["worker-0"]["spec"]
        assert scenario.pods()["master-0"]["spec"]["activeDeadlineSeconds"] == 1


def test_a_pod_that_never_started_is_not_kept() -> None:
    with Scenario(pytorchjob(workers=1)) as scenario:
        scenario.settle()
        scenario.start_pods("flowers-master-0")
        scenario.end_pod("master-0", 2)
        scenario.settle()
        assert set(scenario.pods()) == {"master-0"}


def test_after_success_workers_may_end_by_themselves_for_a_minute() -> None:
    with _running(workers=1) as scenario:
        scenario.end_pod("master-0", 0)
        scenario.settle()
        assert "activeDeadlineSeconds" not in scenario.pods()["worker-0"]["spec"]
        assert scenario.again_s == 60
        scenario.wait(60)
        assert scenario.pods()["worker-0"]["spec"]["activeDeadlineSeconds"] == 1


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("restart_controller", [False, True])
def test_ctl_02_the_job_goes_when_its_time_is_over(code: int, restart_controller: bool) -> None:
    with _running(ttlSecondsAfterFinished=20, workers=0) as scenario:
        scenario.end_pod("master-0", code)
        scenario.settle()
        assert scenario.again_s == 20
        if restart_controller:
            scenario.wait(5)
            scenario.controller_restarts()
            scenario.settle()
            assert scenario.again_s == 15
        scenario.wait(scenario.again_s or 0)
        assert scenario.job() is None
        scenario.run(scenario.kubelet.finish_deletions())
        assert scenario.pods() == {}
        assert scenario.services() == set()


def test_ctl_02_a_time_to_live_of_0_is_at_once() -> None:
    with _running(ttlSecondsAfterFinished=0, workers=0) as scenario:
        scenario.end_pod("master-0", 1)
        scenario.settle()
        assert scenario.job() is None


@pytest.mark.parametrize("code", [0, 1])
def test_nothing_changes_after_the_end(code: int) -> None:
    with _running(workers=1) as scenario:
        scenario.end_pod("master-0", code)
        scenario.settle()
        before = scenario.status()
        scenario.suspend()
        scenario.end_pod("worker-0", 137)
        scenario.wait(100)
        scenario.suspend(False)
        scenario.settle()
        assert scenario.status() == before

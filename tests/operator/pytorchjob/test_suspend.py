from __future__ import annotations

from support.scenario import Scenario, pytorchjob
from trainserve.kube import names


def _running(**how: object) -> Scenario:
    scenario = Scenario(pytorchjob(**how))  # type: ignore[arg-type]
    scenario.settle()
    scenario.start_pods()
    return scenario


def test_suspended_when_the_last_pod_is_gone() -> None:
    with _running() as scenario:
        scenario.patch_job({"metadata": {"annotations": {names.ANNOTATION_SUSPEND_REASON: names.SUSPEND_BY_USER}}})
        scenario.suspend()
        scenario.settle()
        assert scenario.deleting() == {"master-0", "worker-0", "worker-1"}
        assert scenario.conditions() == [("Created", "True"), ("Running", "False")]
        assert scenario.status()["replicaStatuses"]["Worker"]["active"] == 2  # they hold their resources still
        assert scenario.services() == {"master-0", "worker-0", "worker-1"}  # and may need each other's names
        scenario.finish_deletions()
        assert scenario.conditions() == [("Created", "True"), ("Running", "False"), ("Suspended", "True")]
        assert scenario.message() == "PyTorchJob flowers is suspended. Reason: cancelled by the user"
        assert scenario.status()["replicaStatuses"]["Worker"]["active"] == 0
        assert scenario.services() == set()
        assert scenario.pods() == {}


def test_checkpointing_on_sigterm_is_no_failure_and_costs_nothing() -> None:
    with _running(backoffLimit=0) as scenario:
        scenario.suspend()
        scenario.settle()
        for replica in ("master-0", "worker-0", "worker-1"):
            scenario.end_pod(replica, 143)
        scenario.settle()
        scenario.finish_deletions()
        assert scenario.state() == "Suspended"
        assert "cause" not in scenario.status()
        assert scenario.status().get("restarts", 0) == 0


def test_resumed_before_its_pods_were_gone() -> None:
    with _running(backoffLimit=0) as scenario:
        scenario.suspend()
        scenario.settle()
        scenario.suspend(False)
        scenario.end_pod("worker-1", 143)
        scenario.settle()
        assert scenario.deleting() == {"master-0", "worker-0", "worker-1"}
        assert set(scenario.generations().values()) == {"1"}
        scenario.finish_deletions()
        assert set(scenario.generations().values()) == {"2"}
        scenario.start_pods()
        assert scenario.state() == "Running"
        assert "cause" not in scenario.status()


def test_resuming_sets_the_clock_anew() -> None:
    with _running(activeDeadlineSeconds=100) as scenario:
        started = scenario.status()["startTime"]
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        scenario.wait(1000)
        assert scenario.state() == "Suspended"  # a suspended job is not active
        scenario.suspend(False)
        scenario.settle()
        assert scenario.conditions() == [("Suspended", "False"), ("Created", "True")]
        assert scenario.status()["startTime"] > started
        scenario.start_pods()
        assert scenario.again_s == 100
        assert set(scenario.generations().values()) == {"2"}
        scenario.start_pods()
        assert scenario.state() == "Running"
        assert len(scenario.events("PyTorchJobResumed")) == 1
        assert len(scenario.events("PyTorchJobSuspended")) == 1


def test_created_suspended_it_makes_nothing_until_resumed() -> None:
    with Scenario(pytorchjob(suspend=True)) as scenario:
        scenario.settle()
        assert scenario.conditions() == [("Created", "True"), ("Suspended", "True")]
        assert "startTime" not in scenario.status()
        assert scenario.pods() == {}
        assert scenario.services() == set()
        scenario.suspend(False)
        scenario.settle()
        assert scenario.generations() == {"master-0": "1", "worker-0": "1", "worker-1": "1"}


def test_a_template_changed_while_suspended_is_what_starts() -> None:
    with _running() as scenario:
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        job = scenario.job()
        assert job is not None
        template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
        template["spec"]["nodeSelector"] = {"pool": "spot"}
        scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"template": template}}}})
        scenario.suspend(False)
        scenario.settle()
        assert scenario.pods()["worker-0"]["spec"]["nodeSelector"] == {"pool": "spot"}

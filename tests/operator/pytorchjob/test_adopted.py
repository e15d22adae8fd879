"""Jobs that Kubeflow's Training Operator has begun go on: objects as that operator writes them."""

from __future__ import annotations

import pytest

from support.scenario import NAMESPACE, Scenario, pytorchjob
from support.upstream import REPLICAS, condition, pod, service, status
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339


def taken_over(scenario: Scenario, *, restart_policy: str = "Never", pods: bool = True) -> dict[str, str]:
    """Kubeflow's operator has made everything, and the pods run; ours has not looked yet. Returns uids of the pods."""
    job = scenario.job()
    assert job is not None
    for kind, index, rank in REPLICAS if pods else ():
        scenario.run(scenario.cluster.create(names.SERVICE, NAMESPACE, service(job, kind, index)))
        scenario.run(scenario.cluster.create(names.POD, NAMESPACE, pod(job, kind, index, rank, restart_policy)))
    scenario.run(scenario.kubelet.start())
    return uids(scenario)


def uids(scenario: Scenario) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in scenario.pods().items()}


def write(scenario: Scenario, before: Manifest) -> None:
    patch = {"status": before}
    scenario.run(scenario.cluster.patch(names.PYTORCHJOB, NAMESPACE, "flowers", patch, subresource="status"))


def test_a_running_job_goes_on_with_its_pods() -> None:
    with Scenario(pytorchjob()) as scenario:
        before = taken_over(scenario)
        write(scenario, status(condition("Created"), condition("Running")))
        scenario.settle()
        assert uids(scenario) == before
        assert scenario.deleting() == set()
        now = scenario.status()
        assert (scenario.state(), now["generation"], now["nodes"], now.get("restarts", 0)) == ("Running", 1, "3/3", 0)
        assert now["startTime"] == rfc3339(1_699_999_000)  # the deadline's clock goes on
        assert "3 pods" in scenario.events(names.REASON_ADOPTED)[0]["message"]
        assert len(scenario.services()) == 3
        scenario.end_pod("master-0", 0)
        scenario.settle()
        assert scenario.state() == "Succeeded"


def test_a_job_that_was_being_started_gets_the_pods_that_are_missing() -> None:
    with Scenario(pytorchjob()) as scenario:
        job = scenario.job()
        assert job is not None
        scenario.run(scenario.cluster.create(names.POD, NAMESPACE, pod(job, "master", 0, 0, "Never")))
        before = uids(scenario)
        write(scenario, status(condition("Created")))
        scenario.settle()
        assert before.items() <= uids(scenario).items()
        assert set(scenario.pods()) == {"master-0", "worker-0", "worker-1"}
        assert scenario.deleting() == set()


@pytest.mark.parametrize("how", ["ends", "is restarted in place"])
def test_a_failed_rank_of_it_restarts_the_gang_with_pods_of_ours(how: str) -> None:
    with Scenario(pytorchjob(policy="OnFailure", backoffLimit=3)) as scenario:
        before = taken_over(scenario, restart_policy="OnFailure")
        write(scenario, status(condition("Created"), condition("Running")))
        scenario.settle()
        if how == "ends":
            scenario.end_pod("worker-1", 1)
        else:
            scenario.run(scenario.kubelet.restart_in_place("flowers-worker-1", 1, waiting=True))
        scenario.settle()
        assert (scenario.state(), scenario.status()["restarts"]) == ("Restarting", 1)
        scenario.finish_deletions()
        scenario.wait(60)
        assert set(scenario.generations().values()) == {"2"}
        assert set(uids(scenario).values()).isdisjoint(before.values())
        assert len(scenario.pods()) == 3


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_a_finished_job_stays_as_it_is(end: str) -> None:
    with Scenario(pytorchjob()) as scenario:
        before = taken_over(scenario)
        for name in before:
            scenario.end_pod(name, 0 if end == "Succeeded" else 1)
        done = status(condition("Created"), condition("Running", "False"), condition(end))
        done["completionTime"] = rfc3339(1_699_999_500)
        write(scenario, done)
        scenario.settle()
        assert scenario.status() == done
        assert uids(scenario) == before


def test_a_suspended_job_stays_suspended_and_can_be_resumed() -> None:
    with Scenario(pytorchjob(suspend=True)) as scenario:
        write(scenario, status(condition("Created"), condition("Suspended"), replicaStatuses={}))
        scenario.settle()
        assert (scenario.state(), scenario.pods()) == ("Suspended", {})
        scenario.suspend(False)
        scenario.settle()
        assert set(scenario.generations().values()) == {"1"}


def test_an_elastic_job_keeps_its_pods_too() -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 3}
    with Scenario(pytorchjob(elastic=elastic, policy="OnFailure")) as scenario:
        before = taken_over(scenario, restart_policy="OnFailure")
        write(scenario, status(condition("Created"), condition("Running")))
        scenario.settle()
        assert uids(scenario) == before
        assert scenario.state() == "Running"

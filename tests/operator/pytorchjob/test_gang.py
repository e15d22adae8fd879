"""One PodGroup a generation, of whichever scheduler there is."""

from __future__ import annotations

from typing import Any

import pytest

from support.gangs import GANG_KINDS, groups, serving
from support.scenario import NAMESPACE, Crashing, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.podgroup import KINDS, Gang, gang_of_pod
from trainserve.operator.pytorchjob.observed import Facilities

GANGS: list[Gang] = ["kubernetes", "volcano", "scheduler-plugins"]


def _scenario(gang: Gang = "kubernetes", **how: Any) -> Scenario:
    return Scenario(pytorchjob(**how), resources=serving(*GANG_KINDS), facilities=Facilities(gang=gang))


@pytest.mark.parametrize("gang", GANGS)
def test_every_generation_has_a_group_of_its_own_and_the_one_before_goes_with_its_pods(gang: Gang) -> None:
    kind = KINDS[gang]
    with _scenario(gang) as scenario:
        scenario.settle()
        assert set(groups(scenario, kind)) == {"flowers-g1"}
        assert {gang_of_pod(pod) for pod in scenario.pods().values()} == {gang}
        scenario.start_pods()
        scenario.end_pod("worker-0", 137)
        scenario.settle()
        assert set(groups(scenario, kind)) == {"flowers-g1"}  # its pods are still going
        scenario.finish_deletions()
        assert set(groups(scenario, kind)) == {"flowers-g2"}
        assert len(scenario.pods()) == 3
        scenario.start_pods()
        scenario.suspend()
        scenario.settle()
        assert set(groups(scenario, kind)) == {"flowers-g2"}
        scenario.finish_deletions()
        assert groups(scenario, kind) == {}
        scenario.suspend(False)
        scenario.settle()
        assert set(groups(scenario, kind)) == {"flowers-g3"}
        scenario.start_pods()
        scenario.end_pod("master-0", 0)
        scenario.settle()
        assert set(groups(scenario, kind)) == {"flowers-g3"}  # Workers are about to end
        scenario.end_pod("worker-0", 0)
        scenario.end_pod("worker-1", 0)
        scenario.settle()
        assert scenario.state() == "Succeeded"
        assert groups(scenario, kind) == {}


def test_the_group_is_there_before_its_pods() -> None:
    created: list[str] = []

    class Watched:
        def __init__(self, cluster: Any) -> None:
            self.cluster = cluster

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cluster, name)

        async def create(self, kind: names.Kind, *args: Any) -> Any:
            created.append(kind.kind)
            return await self.cluster.create(kind, *args)

    with _scenario() as scenario:
        scenario.controller_restarts(Watched(scenario.cluster))  # type: ignore[arg-type]
        scenario.settle()
        wanted = [kind for kind in created if kind != "Event"]
        assert wanted == ["Service"] * 3 + ["PodGroup"] + ["Pod"] * 3


class Holding:
    """A server on which a finalizer keeps every PodGroup that is deleted."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def delete(self, kind: names.Kind, *args: Any, **how: Any) -> None:
        if kind == names.POD_GROUP:
            self.asked += 1
        else:
            await self.cluster.delete(kind, *args, **how)


def test_a_group_that_a_finalizer_holds_is_asked_to_go_once_and_told_once() -> None:
    with _scenario() as scenario:
        server = Holding(scenario.cluster)
        scenario.controller_restarts(server)  # type: ignore[arg-type]
        scenario.settle()
        scenario.suspend()
        scenario.settle()
        assert scenario.pods() == {}
        for _ in range(3):
            scenario.wait(60)
        assert server.asked == 1
        (told,) = scenario.events("SuccessfulDeletePodGroup")
        assert told["count"] == 1


@pytest.mark.parametrize("gang", GANGS)
def test_a_group_that_somebody_deleted_comes_back_while_pods_wait(gang: Gang) -> None:
    with _scenario(gang) as scenario:
        scenario.settle()
        scenario.run(scenario.cluster.delete(KINDS[gang], NAMESPACE, "flowers-g1"))
        scenario.settle()
        assert set(groups(scenario, KINDS[gang])) == {"flowers-g1"}


def test_without_a_gang_scheduler_pods_are_plain_and_no_group_is_made() -> None:
    with Scenario(pytorchjob(), resources=serving(*GANG_KINDS)) as scenario:
        scenario.settle()
        assert all("schedulingGroup" not in pod["spec"] for pod in scenario.pods().values())
        assert all(groups(scenario, kind) == {} for kind in GANG_KINDS)
        assert scenario.events("NotSupported") == []  # nobody asked for a gang


def test_a_scheduler_that_was_asked_for_and_is_not_there_is_told_once() -> None:
    facilities = Facilities(gang="none", no_gang="pods are placed one by one, not by volcano: no PodGroup")
    with Scenario(pytorchjob(), facilities=facilities) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("worker-0", 137)
        scenario.settle()
        scenario.finish_deletions()
        (told,) = scenario.events("NotSupported")
        assert told["message"] == facilities.no_gang
        assert told["count"] == 1


class Dropping:
    """A server that serves PodGroups, and drops `spec.schedulingGroup` from pods: a gate that is half set."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def create(self, kind: names.Kind, namespace: str, manifest: dict[str, Any]) -> Any:
        if kind == names.POD:
            spec = {field: value for field, value in manifest["spec"].items() if field != "schedulingGroup"}
            manifest = {**manifest, "spec": spec}
        return await self.cluster.create(kind, namespace, manifest)


def test_a_server_that_drops_the_field_is_told_once_and_the_gang_is_none() -> None:
    with _scenario() as scenario:
        scenario.controller_restarts(Dropping(scenario.cluster))  # type: ignore[arg-type]
        scenario.settle()
        assert groups(scenario) == {}
        (told,) = scenario.events("NotSupported")
        assert "the API server drops spec.schedulingGroup" in told["message"]
        assert "GenericWorkload" in told["message"]
        assert told["count"] == 1
        scenario.start_pods()
        assert scenario.state() == "Running"
        uids = {pod["metadata"]["uid"] for pod in scenario.pods().values()}
        scenario.wait(100)
        assert {pod["metadata"]["uid"] for pod in scenario.pods().values()} == uids
        assert groups(scenario) == {}


def test_a_generation_that_began_plain_stays_plain() -> None:
    with _scenario("none") as scenario:
        scenario.settle()
        scenario.facilities = Facilities(gang="kubernetes")
        scenario.run(scenario.cluster.delete(names.POD, NAMESPACE, "flowers-worker-1", grace_period_s=0))
        scenario.patch_job({"metadata": {"annotations": {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}}})
        scenario.settle()
        assert len(scenario.pods()) == 3
        assert all("schedulingGroup" not in pod["spec"] for pod in scenario.pods().values())
        assert groups(scenario) == {}


def test_the_number_that_is_placed_together_follows_the_job() -> None:
    elastic = {"minReplicas": 2, "maxReplicas": 4}
    with _scenario(master=False, workers=3, policy="OnFailure", elastic=elastic) as scenario:
        scenario.settle()
        assert groups(scenario)["flowers-g1"]["schedulingPolicy"] == {"gang": {"minCount": 2}}
        scenario.patch_job({"spec": {"elasticPolicy": {"minReplicas": 3}}})
        scenario.settle()
        assert groups(scenario)["flowers-g1"]["schedulingPolicy"] == {"gang": {"minCount": 3}}


@pytest.mark.parametrize(
    ("gang", "fields"),
    [
        ("none", {"minAvailable", "minResources", "queue"}),
        ("kubernetes", {"minResources", "queue"}),
        ("scheduler-plugins", {"queue"}),
        ("volcano", set()),
    ],
)
def test_each_field_that_the_scheduler_does_not_know_is_said_once(gang: Gang, fields: set[str]) -> None:
    policy = {
        "minAvailable": 2,
        "queue": "research",
        "minResources": {"cpu": 2},
        "priorityClass": "high",
        "scheduleTimeoutSeconds": 60,
    }
    with _scenario(gang, schedulingPolicy=policy) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.wait(10)
        told = scenario.events("NotSupported")
        assert {event["message"].split(" ")[0].rsplit(".")[-1] for event in told} == fields
        assert all(event["count"] == 1 for event in told)


def _a_life(scenario: Scenario) -> tuple[set[str], dict[str, str], list[tuple[str, str]]]:
    scenario.settle()
    scenario.start_pods()
    scenario.end_pod("worker-0", 137)
    scenario.settle()
    scenario.finish_deletions()
    scenario.start_pods()
    return set(groups(scenario)), scenario.generations(), scenario.conditions()


@pytest.mark.slow
def test_a_controller_that_dies_at_any_write_leaves_the_same_groups() -> None:
    def play(writes: int, *, after: bool) -> tuple[Any, int]:
        with _scenario(workers=1) as scenario:
            crashing = Crashing(scenario.cluster, writes, after=after)
            scenario.controller_restarts(crashing)  # type: ignore[arg-type]
            return _a_life(scenario), crashing.writes

    expected, writes = play(10_000, after=False)
    assert expected[0] == {"flowers-g2"}
    for died_at in range(writes):
        for after in (False, True):
            assert play(died_at, after=after)[0] == expected, f"the controller died at write {died_at}"


def test_somebody_elses_group_is_neither_taken_nor_deleted() -> None:
    theirs = {
        "apiVersion": names.POD_GROUP.api_version,
        "kind": "PodGroup",
        "metadata": {"name": "flowers-g1", "labels": names.job_selector("flowers")},
        "spec": {"schedulingPolicy": {"basic": {}}},
    }
    with _scenario() as scenario:
        there = scenario.run(scenario.cluster.create(names.POD_GROUP, NAMESPACE, theirs))
        scenario.settle()
        assert scenario.state() == "Pending"
        assert "does not belong to this job" in scenario.message()
        assert scenario.pods() == {}
        scenario.suspend()
        scenario.settle()
        assert scenario.run(scenario.cluster.get(names.POD_GROUP, NAMESPACE, "flowers-g1")) == there

"""Stale caches, conflicts, progress, refusals."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from support.gangs import serving
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Conflict, Forbidden, Manifest
from trainserve.operator.pytorchjob.observed import Facilities


class Quota:
    """A server that refuses pods while it is `full`."""

    error: ApiError = Forbidden("exceeded quota: gpus")

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.full = True
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def create(self, kind: names.Kind, namespace: str, manifest: Manifest) -> Manifest:
        if kind == names.POD and self.full:
            self.refused += 1
            raise self.error
        created: Manifest = await self.cluster.create(kind, namespace, manifest)
        return created


class Deletes:
    """A server that notes the names it was asked to delete, by kind."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.of: dict[str, list[str]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def delete(self, kind: names.Kind, namespace: str, name: str, **how: Any) -> None:
        self.of[kind.kind].append(name)
        await self.cluster.delete(kind, namespace, name, **how)


def _running(**how: Any) -> Scenario:
    scenario = Scenario(pytorchjob(**how))
    scenario.settle()
    scenario.start_pods()
    return scenario


def test_a_stale_cache_of_jobs_does_not_count_twice() -> None:
    with _running(backoffLimit=5) as scenario:
        scenario.end_pod("worker-0", 137)
        scenario.look()
        scenario.sync()
        scenario.look("pods")  # the job in the cache is still the one of before
        scenario.sync()
        scenario.sync()
        assert scenario.status()["restarts"] == 1
        assert scenario.status()["generation"] == 2


def test_a_controller_that_reads_stale_jobs_after_a_restart_is_refused_by_the_server() -> None:
    with _running() as scenario:
        scenario.look()
        stale = scenario.job()
        scenario.end_pod("worker-0", 137)
        scenario.settle()
        scenario.controller_restarts()
        scenario.look()
        scenario._seen["jobs"] = [stale]
        scenario.finish_deletions()
        scenario._seen["jobs"] = [stale]
        with pytest.raises(Conflict):
            scenario.sync()
        assert scenario.status()["restarts"] == 1


def test_a_stale_cache_of_pods_does_not_create_twice() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.look()
        scenario.sync()
        before = {name: pod["metadata"]["uid"] for name, pod in scenario.pods().items()}
        for _ in range(3):
            scenario.look("jobs")
            scenario.sync()
        assert {name: pod["metadata"]["uid"] for name, pod in scenario.pods().items()} == before
        assert all(event["count"] == 1 for event in scenario.events("SuccessfulCreatePod"))
        assert scenario.events("FailedCreatePod") == []


def test_what_is_asked_to_go_is_asked_and_told_once_however_long_the_caches_show_it() -> None:
    with _running() as scenario:
        scenario.suspend()
        scenario.look()
        calls = Deletes(scenario.cluster)
        scenario.controller_restarts(calls)
        scenario.look()
        stale = {part: list(found) for part, found in scenario._seen.items()}
        for _ in range(4):
            scenario._seen = {part: list(found) for part, found in stale.items()}
            scenario.look("jobs")
            scenario.sync()
        assert sorted(calls.of["Pod"]) == ["flowers-master-0", "flowers-worker-0", "flowers-worker-1"]
        (told,) = scenario.events("SuccessfulDeletePod")
        assert told["count"] == 1
        scenario.finish_deletions()
        assert scenario.pods() == {}
        assert scenario.state() == "Suspended"


def test_a_delete_that_failed_is_asked_again() -> None:
    class Away(Deletes):
        async def delete(self, kind: names.Kind, namespace: str, name: str, **how: Any) -> None:
            await super().delete(kind, namespace, name, **how)
            if name == "flowers-worker-0" and self.of["Pod"].count(name) == 1:
                raise ConnectionError("the answer was lost")

    with _running() as scenario:
        scenario.suspend()
        calls = Away(scenario.cluster)
        scenario.controller_restarts(calls)
        scenario.look()
        stale = list(scenario._seen["pods"])
        with pytest.raises(ConnectionError):
            scenario.sync()
        scenario.look("jobs")
        scenario._seen["pods"] = stale
        scenario.sync()
        assert len(calls.of["Pod"]) == 4
        assert len(set(calls.of["Pod"])) == 3


def test_a_pod_that_is_stopped_is_told_once_before_the_cache_shows_it() -> None:
    with Scenario(pytorchjob(workers=1, policy="Never")) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("worker-0", 1)
        scenario.look()
        scenario.sync()
        assert scenario.state() == "Failed"
        for _ in range(3):
            scenario.look("jobs", "services")
            scenario.sync()
        (told,) = scenario.events("SuccessfulStopPod")
        assert told["count"] == 1


def test_pods_of_the_generation_before_that_the_cache_no_longer_shows_hold_up_the_next() -> None:
    with _running() as scenario:
        scenario.end_pod("worker-0", 137)
        scenario.look()
        scenario.sync()
        scenario.look("jobs", "services")
        scenario._seen["pods"] = []
        assert scenario.sync() == 1.0
        assert "2" not in {scenario.generations()["master-0"], scenario.generations()["worker-1"]}


def test_a_status_written_by_somebody_in_between_is_a_conflict_and_no_overwrite() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.look()
        scenario.patch_job({"metadata": {"annotations": {"a": "b"}}})
        with pytest.raises(Conflict):
            scenario.sync()
        assert scenario.pods() == {}
        scenario.settle()
        assert len(scenario.pods()) == 3


def test_a_refusal_is_told_and_tried_again() -> None:
    with Scenario(pytorchjob()) as scenario:
        quota = Quota(scenario.cluster)
        scenario.controller_restarts(quota)
        scenario.settle()
        assert scenario.state() == "Pending"
        assert scenario.reason() == "QuotaExceeded"
        assert scenario.message() == "Error creating pod flowers-master-0: exceeded quota: gpus"
        assert scenario.again_s == 2.0
        writes = scenario.version()
        for wait_s in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
            assert scenario.again_s == wait_s
            scenario.wait(1)  # too early, and not asked
            scenario.wait(wait_s - 1)
        assert quota.refused == 8
        assert scenario.version() == writes  # the same fact is not written again
        (told,) = scenario.events("FailedCreatePod")
        assert told["message"] == scenario.message()
        assert told["count"] == 1
        quota.full = False
        scenario.wait(60)
        assert len(scenario.pods()) == 3
        assert scenario.conditions() == [("Created", "True")]


def test_a_job_that_was_changed_after_a_refusal_is_tried_at_once() -> None:
    with Scenario(pytorchjob()) as scenario:
        quota = Quota(scenario.cluster)
        scenario.controller_restarts(quota)
        scenario.settle()
        quota.full = False
        scenario.settle()
        assert scenario.pods() == {}
        scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 1}}}})
        scenario.settle()
        assert set(scenario.pods()) == {"master-0", "worker-0"}


def test_a_refused_autoscaler_holds_up_no_pod() -> None:
    class NoAutoscalers(Quota):
        error = Forbidden("autoscalers are not wanted here")

        async def create(self, kind: names.Kind, namespace: str, manifest: Manifest) -> Manifest:
            if kind == names.AUTOSCALER:
                self.refused += 1
                raise self.error
            created: Manifest = await self.cluster.create(kind, namespace, manifest)
            return created

    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
    job = pytorchjob(elastic={"minReplicas": 1, "maxReplicas": 4, "metrics": [metric]}, policy="OnFailure")
    with Scenario(job, resources=serving(names.AUTOSCALER), facilities=Facilities(autoscaling=True)) as scenario:
        server = NoAutoscalers(scenario.cluster)
        scenario.controller_restarts(server)
        scenario.settle()
        for _ in range(6):
            scenario.wait(60)  # it is asked for once a minute by now
        assert scenario.again_s == 60.0
        refused = server.refused
        scenario.start_pods()
        there = set(scenario.pods())
        scenario.run(scenario.cluster.delete(names.POD, NAMESPACE, "flowers-worker-1", grace_period_s=0))
        scenario.settle()
        assert set(scenario.pods()) == there
        assert server.refused == refused, "what was refused waits on"
        assert scenario.state() == "Running"


def test_in_a_namespace_that_is_going_it_asks_seldom_and_writes_nothing_again() -> None:
    class Terminating(Quota):
        """Nothing new is taken, events neither; what is there can be changed until it goes."""

        async def create(self, kind: names.Kind, namespace: str, manifest: Manifest) -> Manifest:
            self.refused += 1
            raise Forbidden("unable to create new content in namespace team because it is being terminated")

    with _running() as scenario:
        namespace = Terminating(scenario.cluster)
        scenario.controller_restarts(namespace)
        scenario.end_pod("worker-0", 137)
        scenario.settle()
        scenario.finish_deletions()
        assert scenario.reason() == "FailedCreatePod"
        assert scenario.message().endswith("because it is being terminated")
        writes, before = scenario.version(), namespace.refused
        for _ in range(60):
            scenario.wait(60)
        assert namespace.refused - before <= 65
        assert scenario.version() == writes


def test_a_server_in_trouble_is_no_refusal() -> None:
    class Busy(Quota):
        error = ApiError("slow down", status=429, reason="TooManyRequests")

    with Scenario(pytorchjob()) as scenario:
        scenario.controller_restarts(Busy(scenario.cluster))
        scenario.look()
        with pytest.raises(ApiError, match="slow down"):
            scenario.sync()
        assert scenario.conditions() == [("Created", "True")]


def test_what_one_pass_created_is_one_event_a_kind() -> None:
    with Scenario(pytorchjob(workers=9)) as scenario:
        scenario.settle()
        (pods,) = scenario.events("SuccessfulCreatePod")
        assert pods["message"].startswith("Created 10 pods: flowers-master-0, flowers-worker-0, ")
        assert pods["message"].endswith(", ..., flowers-worker-8")
        (services,) = scenario.events("SuccessfulCreateService")
        assert services["count"] == 1


def test_counts_alone_are_written_at_most_once_a_second_and_conditions_at_once() -> None:
    with Scenario(pytorchjob(workers=3)) as scenario:
        scenario.counts_every_s = 1.0
        scenario.controller_restarts()
        scenario.settle()

        def active() -> int:
            return sum(counts["active"] for counts in scenario.status()["replicaStatuses"].values())

        scenario.now += 5
        scenario.start_pods("flowers-worker-0")
        assert active() == 1
        scenario.now += 0.25
        scenario.start_pods("flowers-worker-1")
        assert active() == 1
        assert scenario.again_s == 0.75
        scenario.start_pods("flowers-master-0")  # Running is news
        assert active() == 3
        scenario.start_pods("flowers-worker-2")
        assert active() == 3
        scenario.wait(1.0)
        assert active() == 4


def test_a_written_status_is_told_with_the_one_before() -> None:
    told: list[tuple[list[str], list[str]]] = []

    def types(status: Manifest) -> list[str]:
        return [condition["type"] for condition in status.get("conditions") or []]

    with Scenario(pytorchjob()) as scenario:
        scenario.status_written = lambda job, before, after: told.append((types(before), types(after)))
        scenario.controller_restarts()
        scenario.settle()
        scenario.start_pods()
        assert told[0] == ([], ["Created"])
        assert told[-1] == (["Created"], ["Created", "Running"])


def test_a_job_that_is_gone_needs_nothing() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.settle()
        scenario.run(scenario.cluster.delete(names.PYTORCHJOB, NAMESPACE, "flowers"))
        scenario.look()
        assert scenario.sync() is None


def test_progress_is_written_at_most_every_five_seconds_and_only_when_it_changed() -> None:
    told: dict[str, Manifest | None] = {"now": None}
    with Scenario(pytorchjob(workers=0), progress=lambda job: told["now"]) as scenario:
        scenario.settle()
        scenario.start_pods()
        assert "progress" not in scenario.status()
        told["now"] = {"epoch": 1, "step": 10}
        scenario.settle()
        assert scenario.status()["progress"]["step"] == 10
        scenario.now += 1
        told["now"] = {"epoch": 1, "step": 20}
        scenario.settle()
        assert scenario.status()["progress"]["step"] == 10
        assert scenario.again_s == 4
        scenario.wait(4)
        assert scenario.status()["progress"]["step"] == 20
        version = scenario.version()
        scenario.wait(60)
        assert scenario.version() == version
        told["now"] = {"epoch": 2, "step": 30}
        scenario.end_pod("master-0", 0)
        scenario.settle()  # with the end comes the last of it, at once
        assert scenario.status()["progress"]["step"] == 30


def test_progress_that_cannot_be_read_stops_nothing() -> None:
    def broken(job: Manifest) -> Manifest | None:
        raise OSError("disk full")

    with Scenario(pytorchjob(workers=0), progress=broken) as scenario:
        scenario.settle()
        scenario.start_pods()
        assert scenario.state() == "Running"


def test_events_name_the_job_and_are_told_once_a_fact() -> None:
    with _running() as scenario:
        for _ in range(5):
            scenario.wait(10)
        scenario.controller_restarts()
        scenario.settle()
        (created,) = scenario.events("PyTorchJobCreated")
        assert created["count"] == 1
        assert created["involvedObject"]["kind"] == "PyTorchJob"
        assert created["involvedObject"]["uid"] == scenario.job()["metadata"]["uid"]  # type: ignore[index]
        (running,) = scenario.events("PyTorchJobRunning")
        assert running["count"] == 1


def test_a_pod_that_replaced_the_one_to_be_deleted_stays() -> None:
    with _running() as scenario:
        scenario.end_pod("worker-0", 137)
        scenario.look()
        scenario.sync()
        scenario.look("jobs", "services")
        stale = list(scenario._seen["pods"])
        scenario.finish_deletions()
        fresh = {name: pod["metadata"]["uid"] for name, pod in scenario.pods().items()}
        scenario._seen["pods"] = stale
        scenario.sync()
        assert {name: pod["metadata"]["uid"] for name, pod in scenario.pods().items()} == fresh
        assert scenario.deleting() == set()

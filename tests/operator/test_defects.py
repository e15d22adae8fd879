"""The Training Operator's defects that this controller does better on, one test each: docs/reference/pytorchjob.md.

The numbers are those of that page's list. Most facts have deeper tests elsewhere; here each stands alone.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.kubelet import report
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names, pods, services
from trainserve.kube.cluster import Invalid, Manifest
from trainserve.local.server import MemoryCluster
from trainserve.operator.main import Controller
from trainserve.operator.metrics import Metrics
from trainserve.spec.pytorchjob import default


def _running(**how: Any) -> Scenario:
    scenario = Scenario(pytorchjob(**how))
    scenario.settle()
    scenario.start_pods()
    return scenario


def test_defect_01_the_deadline_needs_no_other_event() -> None:
    with _running(activeDeadlineSeconds=100) as scenario:
        assert scenario.again_s == 100  # the one thing that makes the controller look again
        scenario.now += 100
        scenario.sync()
        assert scenario.reason() == "DeadlineExceeded"


def test_defect_02_the_backoff_limit_counts_every_restart_across_pods_and_controllers() -> None:
    with _running(backoffLimit=2, workers=0) as scenario:
        for restart in (1, 2):
            scenario.end_pod("master-0", 137)
            scenario.controller_restarts()
            scenario.settle()
            assert scenario.status()["restarts"] == restart
            scenario.wait(60)
            scenario.start_pods()
        scenario.end_pod("master-0", 137)
        scenario.settle()
        assert scenario.reason() == "BackoffLimitExceeded"


def test_defect_03_a_permanent_failure_has_a_completion_time_and_the_job_goes() -> None:
    with _running(workers=0, ttlSecondsAfterFinished=30) as scenario:
        scenario.end_pod("master-0", 1)
        scenario.settle()
        assert scenario.state() == "Failed"
        assert scenario.status()["completionTime"]
        scenario.wait(30)
        assert scenario.job() is None


def test_defect_04_a_failed_job_holds_no_gpu() -> None:
    with _running(policy="Never") as scenario:
        scenario.end_pod("worker-0", 1)
        scenario.settle()
        assert scenario.state() == "Failed"
        others = [pod for name, pod in scenario.pods().items() if name != "worker-0"]
        assert len(others) == 2
        assert all(pod["spec"]["activeDeadlineSeconds"] == 1 for pod in others)


@pytest.mark.parametrize("later", ["kueue.x-k8s.io/multikueue", "kubeflow.org/training-operator", ""])
def test_defect_05_who_manages_a_job_cannot_change(later: str) -> None:
    sent = pytorchjob(managedBy=None if later else "kueue.x-k8s.io/multikueue")
    with Scenario(sent) as scenario, pytest.raises(Invalid, match="managedBy"):
        scenario.patch_job({"spec": {"runPolicy": {"managedBy": later}}})


def test_defect_06_managed_by_nobody_in_particular_is_ours() -> None:
    with Scenario(pytorchjob(managedBy="")) as scenario:
        scenario.settle()
        assert len(scenario.pods()) == 3


def test_defect_07_one_lost_rank_restarts_all_from_the_last_checkpoint_and_the_cause_decides() -> None:
    with _running(backoffLimit=3) as scenario:
        scenario.end_pod("worker-1", 137, message=report(2, 137, scenario.now, signal="SIGKILL"))
        scenario.settle()
        assert scenario.deleting() == {"master-0", "worker-0"}
        scenario.finish_deletions()
        assert set(scenario.generations().values()) == {"2"}
        scenario.start_pods()
        scenario.run(scenario.kubelet.fail("flowers-worker-0", "Evicted"))
        scenario.settle()
        assert scenario.status()["restarts"] == 1  # the cluster's doing costs nothing
        scenario.finish_deletions()
        scenario.wait(5)
        scenario.start_pods()
        scenario.end_pod("worker-0", 137, reason="OOMKilled")
        scenario.settle()
        assert scenario.state() == "Failed"  # the same would happen again


def test_defect_08_shared_memory_is_as_large_as_the_pods_memory() -> None:
    job = default(pytorchjob())
    job["metadata"]["uid"] = "u"
    spec = pods.replica_pod(job, "Worker", 0, 1)["spec"]
    assert {"name": names.VOLUME_SHM, "mountPath": "/dev/shm"} in spec["containers"][0]["volumeMounts"]
    assert {"name": names.VOLUME_SHM, "emptyDir": {"medium": "Memory"}} in spec["volumes"]


def test_defect_09_many_jobs_are_worked_on_at_the_same_time() -> None:
    class Slow:
        """No write is answered before as many are on their way as there are workers."""

        def __init__(self, cluster: MemoryCluster, expected: int) -> None:
            self.cluster = cluster
            self.on_their_way = 0
            self.all_there = asyncio.Event()
            self.expected = expected

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cluster, name)

        async def patch(self, *args: Any, **options: Any) -> Manifest:
            self.on_their_way += 1
            if self.on_their_way == self.expected:
                self.all_there.set()
            await self.all_there.wait()
            return await self.cluster.patch(*args, **options)

    async def play() -> None:
        server = Slow(MemoryCluster(), 8)
        for index in range(8):
            await server.create(names.PYTORCHJOB, NAMESPACE, pytorchjob(f"job-{index}"))
        controller = Controller(server, NAMESPACE, workers=8)  # type: ignore[arg-type]
        running = asyncio.create_task(controller.run())
        await asyncio.wait_for(server.all_there.wait(), 10)
        controller.stop()
        await asyncio.wait_for(running, 10)

    asyncio.run(play())


def test_defect_10_a_job_is_counted_as_created_once() -> None:
    metrics = Metrics()
    with Scenario(pytorchjob()) as scenario:
        scenario.status_written = metrics.status_written
        for _ in range(3):
            scenario.controller_restarts()
            scenario.settle()
            scenario.start_pods()
    (line,) = [
        line
        for line in metrics.page().decode().splitlines()
        if line.startswith("training_operator_jobs_created_total{")
    ]
    assert line.endswith(" 1.0")


def test_defect_11_a_fact_is_one_event() -> None:
    with _running() as scenario:
        for _ in range(5):
            scenario.wait(10)
            scenario.controller_restarts()
            scenario.settle()
        told = scenario.run(scenario.cluster.list(names.EVENT, NAMESPACE)).items
        assert {event["count"] for event in told} == {1}
        assert len({(event["reason"], event["message"]) for event in told}) == len(told)


def test_defect_12_a_missing_exit_code_is_no_exit_code() -> None:
    with _running(backoffLimit=0, workers=0) as scenario:
        scenario.end_pod("master-0", None)
        scenario.settle()
        assert "48879" not in scenario.message()
        assert "ended without an exit code" in scenario.status()["cause"]
        assert scenario.state() == "Failed"  # it counts: what nobody can explain is not retried for ever


def test_defect_13_workers_without_a_master_find_each_other() -> None:
    job = default(pytorchjob(master=False, workers=2))
    job["metadata"]["uid"] = "u"
    container = pods.replica_pod(job, "Worker", 1, 1)["spec"]["containers"][0]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (env["MASTER_ADDR"], env["RANK"], env["WORLD_SIZE"]) == ("flowers-worker-0", "1", "2")


def test_defect_14_a_pods_name_resolves_before_it_starts_and_the_masters_port_is_awaited() -> None:
    created: list[str] = []

    class Watched:
        def __init__(self, cluster: MemoryCluster) -> None:
            self.cluster = cluster

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cluster, name)

        async def create(self, kind: names.Kind, *args: Any) -> Manifest:
            created.append(kind.kind)
            return await self.cluster.create(kind, *args)

    with Scenario(pytorchjob()) as scenario:
        scenario.controller_restarts(Watched(scenario.cluster))  # type: ignore[arg-type]
        scenario.settle()
        assert [kind for kind in created if kind != "Event"] == ["Service"] * 3 + ["Pod"] * 3
    job = default(pytorchjob())
    job["metadata"]["uid"] = "u"
    assert services.replica_service(job, "Master", 0)["spec"]["publishNotReadyAddresses"] is True
    (waiting,) = pods.replica_pod(job, "Worker", 0, 1)["spec"]["initContainers"]
    assert waiting["env"] == [{"name": names.ENV_WAIT_FOR, "value": "flowers-master-0:23456"}]
    assert waiting["securityContext"]["allowPrivilegeEscalation"] is False

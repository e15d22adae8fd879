"""What the controller calls is what its role allows: nothing is missing, and nothing is granted for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.rbac import Call, UnderItsRole, granted
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names, rbac
from trainserve.kube.cluster import Manifest
from trainserve.local.resources import RESOURCES
from trainserve.local.server import MemoryCluster
from trainserve.operator.main import Controller

TAKEN = "flowers-worker-0"


def lives_of_jobs() -> set[Call]:
    """One job that meets everything: a foreign pod, restarts, a stop, the end, its time to live."""
    with Scenario(pytorchjob(workers=1, backoffLimit=3)) as scenario:
        for kind, manifest in ((names.SERVICE, foreign_service()), (names.POD, foreign_pod())):
            scenario.run(scenario.cluster.create(kind, NAMESPACE, manifest))
            scenario.wait(600)  # somebody else's has the name
            scenario.run(scenario.cluster.delete(kind, NAMESPACE, TAKEN))
        scenario.wait(600)
        scenario.start_pods()
        scenario.end_pod("worker-0", 137)
        scenario.settle()
        scenario.finish_deletions()
        scenario.wait(120)
        scenario.start_pods()
        scenario.end_pod("worker-0", 1)  # permanent: the Master is stopped, and stays for its log
        scenario.settle()
        calls = set(scenario.calls)
    with Scenario(pytorchjob(workers=1, cleanPodPolicy="All", ttlSecondsAfterFinished=5)) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        scenario.suspend(False)
        scenario.settle()
        scenario.start_pods()
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        scenario.suspend(False)
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("master-0", 0)
        scenario.settle()
        scenario.finish_deletions()
        scenario.wait(10)
        assert scenario.job() is None
        return calls | scenario.calls


def caches() -> set[Call]:
    async def run() -> set[Call]:
        server = UnderItsRole(MemoryCluster())
        controller = Controller(server, None)
        running = asyncio.create_task(controller.run())
        while len(server.calls) < 6:
            await asyncio.sleep(0.01)
        controller.stop()
        await running
        return server.calls

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_the_table_is_what_is_called() -> None:
    called = lives_of_jobs() | caches()
    here = {f"{kind.plural}.{kind.group}" for kind in RESOURCES}
    in_memory = {call for call in granted(rbac.JOBS) if call[1] in here}
    assert called == in_memory


def test_a_call_that_is_not_granted_ends_a_scenario() -> None:
    server: Any = UnderItsRole(MemoryCluster())
    with pytest.raises(AssertionError, match=r"'patch', 'services.', ''"):
        server.patch(names.SERVICE, NAMESPACE, "a", {})


def foreign_pod() -> Manifest:
    spec = {"containers": [{"name": "a", "image": "localhost/none:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": TAKEN}, "spec": spec}


def foreign_service() -> Manifest:
    spec = {"clusterIP": "None", "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": TAKEN}, "spec": spec}

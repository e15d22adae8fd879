"""What the controller calls is what its role allows: nothing is missing, and nothing is granted for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.gangs import GANG_KINDS, serving
from support.rbac import Call, UnderItsRole, granted
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names, rbac
from trainserve.kube.cluster import Manifest
from trainserve.kube.names import Kind
from trainserve.kube.podgroup import Gang
from trainserve.local.server import MemoryCluster
from trainserve.operator.capacity import Capacity
from trainserve.operator.election import Election
from trainserve.operator.kubeflow import Lookout
from trainserve.operator.lease import Timing
from trainserve.operator.main import Controller
from trainserve.operator.pytorchjob.observed import Facilities

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


def lives_of_gangs(kind: Kind, scheduler: Gang) -> set[Call]:
    """PodGroups: one that somebody else has made, one of ours, another size, no pods any more."""
    elastic = {"minReplicas": 1, "maxReplicas": 4}
    job = pytorchjob(elastic=elastic, policy="OnFailure")
    with Scenario(job, resources=serving(kind), facilities=Facilities(gang=scheduler)) as scenario:
        taken_for_a_while(scenario, kind, "flowers-g1")
        scenario.start_pods()
        scenario.patch_job({"spec": {"elasticPolicy": {"minReplicas": 2}}})
        scenario.settle()
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        return scenario.calls


def life_of_an_autoscaler() -> set[Call]:
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
    job = pytorchjob(elastic={"minReplicas": 1, "maxReplicas": 4, "metrics": [metric]}, policy="OnFailure")
    kinds = serving(names.AUTOSCALER)
    with Scenario(job, resources=kinds, facilities=Facilities(autoscaling=True)) as scenario:
        taken_for_a_while(scenario, names.AUTOSCALER, "flowers")
        scenario.patch_job({"spec": {"elasticPolicy": {"maxReplicas": 5}}})
        scenario.settle()
        scenario.suspend()
        scenario.settle()
        return scenario.calls


def taken_for_a_while(scenario: Scenario, kind: Kind, name: str) -> None:
    foreign = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": {}}
    scenario.run(scenario.cluster.create(kind, NAMESPACE, foreign))
    scenario.settle()
    scenario.run(scenario.cluster.delete(kind, NAMESPACE, name))
    scenario.wait(600)


def caches(scheduler: Gang) -> set[Call]:
    async def run() -> set[Call]:
        server = UnderItsRole(MemoryCluster(resources=serving(*GANG_KINDS, names.AUTOSCALER)))
        controller = Controller(server, None, gang=scheduler)
        running = asyncio.create_task(controller.run())
        while len(server.calls) < 10:  # list and watch, of five kinds
            await asyncio.sleep(0.01)
        controller.stop()
        await running
        return server.calls

    return asyncio.run(asyncio.wait_for(run(), 10))


def one_after_the_other() -> set[Call]:
    """Two operators and one Lease: it is made, read, renewed, given back, taken."""

    async def run() -> set[Call]:
        server = UnderItsRole(MemoryCluster())
        timing = Timing(3.0, 2.0, 0.01)

        def operator(name: str) -> Election:
            return Election(server, NAMESPACE, name, timing, started=lambda: None, stopped=lambda: None)

        first, second = operator("first"), operator("second")
        tasks = [asyncio.create_task(first.run())]
        while not first.leading:
            await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(second.run()))
        tasks[0].cancel()
        await first.release()
        while not second.leading:
            await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return server.calls

    return asyncio.run(asyncio.wait_for(run(), 10))


def looking_round() -> set[Call]:
    async def run() -> set[Call]:
        kinds = serving(names.NODE, names.DEPLOYMENT, names.CRD)
        server = UnderItsRole(MemoryCluster(resources=kinds))
        await Capacity(server).room()
        await Lookout(server, ()).look()
        return server.calls

    return asyncio.run(run())


GANGS: dict[Kind, Gang] = {
    names.POD_GROUP: "kubernetes",
    names.VOLCANO_POD_GROUP: "volcano",
    names.SCHEDULER_PLUGINS_POD_GROUP: "scheduler-plugins",
}


def test_the_table_is_what_is_called() -> None:
    called = lives_of_jobs() | life_of_an_autoscaler()
    for kind, scheduler in GANGS.items():
        called |= lives_of_gangs(kind, scheduler) | caches(scheduler)
    assert called == granted(rbac.JOBS)


def test_the_table_of_its_own_namespace_is_what_is_called() -> None:
    assert one_after_the_other() == granted(rbac.OWN)


def test_the_table_of_the_whole_cluster_is_what_is_called() -> None:
    assert looking_round() - granted(rbac.JOBS) == granted(rbac.CLUSTER)


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

"""What holds whatever happens: a world that does as it likes, and a controller whose caches lag behind it."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Manifest
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.reading import observe
from trainserve.operator.pytorchjob.reconcile import reconcile

REPLICAS = ["master-0", "worker-0", "worker-1", "worker-2"]
replica = st.sampled_from(REPLICAS)
code = st.sampled_from([0, 1, 65, 137, 139, 143, 200, None])
step = st.one_of(
    st.tuples(st.just("start")),
    st.tuples(st.just("end"), replica, code),
    st.tuples(st.just("end"), replica, code),
    st.tuples(st.just("evict"), replica),
    st.tuples(st.just("delete"), replica),
    st.tuples(st.just("vanish"), replica),
    st.tuples(st.just("finish deletions")),
    st.tuples(st.just("finish deletions")),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("scale"), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 200])),
    st.tuples(st.just("look"), st.sampled_from(["jobs", "pods", "services"])),
    st.tuples(st.just("sync")),
    st.tuples(st.just("settle")),
    st.tuples(st.just("restart the controller")),
)
jobs = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["ExitCode", "OnFailure", "Never", "Always"]),
        "master": st.booleans(),
        "annotations": st.sampled_from([None, {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}]),
        "cleanPodPolicy": st.sampled_from(["All", "Running", "None"]),
    },
    optional={"backoffLimit": st.integers(0, 2), "activeDeadlineSeconds": st.just(100)},
)


def _do(scenario: Scenario, what: tuple[Any, ...]) -> None:
    match what:
        case ("start",):
            scenario.run(scenario.kubelet.start())
        case ("end", name, how) if _phase(scenario, name) == "Running":
            scenario.end_pod(name, how)
        case ("evict", name) if _phase(scenario, name) in {"Running", "Pending"}:
            scenario.run(scenario.kubelet.fail(f"flowers-{name}", "Evicted"))
        case ("delete", name) if name in scenario.pods():
            scenario.run(scenario.cluster.delete(names.POD, NAMESPACE, f"flowers-{name}"))
        case ("vanish", name) if name in scenario.pods():
            scenario.run(scenario.cluster.delete(names.POD, NAMESPACE, f"flowers-{name}", grace_period_s=0))
        case ("finish deletions",):
            scenario.run(scenario.kubelet.finish_deletions())
        case ("suspend", value):
            scenario.suspend(value)
        case ("scale", workers):
            scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": workers}}}})
        case ("wait", seconds):
            scenario.now += seconds
        case ("look", part):
            scenario.look(part)
        case ("sync",):
            with contextlib.suppress(ApiError):  # refused for what the caches did not know: to be tried again
                scenario.sync()
        case ("settle",):
            scenario.settle(limit=20)
        case ("restart the controller",):
            scenario.controller_restarts()
            scenario.look()


def _phase(scenario: Scenario, name: str) -> str:
    pod: Manifest = scenario.pods().get(name, {})
    return str(pod.get("status", {}).get("phase", ""))


def _bystander() -> Manifest:
    metadata = {"name": "flowers-worker-9", "labels": names.replica_labels("flowers", "Worker", 9)}
    spec = {"containers": [{"name": "pytorch", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@settings(max_examples=120, deadline=None)
@given(jobs, st.lists(step, max_size=25))
def test_whatever_happens(how: dict[str, Any], steps: list[tuple[Any, ...]]) -> None:
    with Scenario(pytorchjob(**how)) as scenario:
        bystander = scenario.run(scenario.cluster.create(names.POD, NAMESPACE, _bystander()))
        finished: Manifest | None = None
        generation = restarts = 0
        for what in steps:
            _do(scenario, what)
            status = scenario.status()
            others = [pod for name, pod in scenario.pods().items() if name != "worker-9"]
            # Two gangs are never there at the same time.
            assert len({pod["metadata"]["labels"][names.LABEL_GENERATION] for pod in others}) <= 1
            # Generations and restarts only grow, the latter never over the limit.
            assert status.get("generation", 0) >= generation
            assert status.get("restarts", 0) >= restarts
            generation, restarts = status.get("generation", 0), status.get("restarts", 0)
            assert restarts <= how.get("backoffLimit", restarts)
            # A finished job stays as it is, with a completion time.
            if finished is not None:
                assert status == finished
            elif conditions.is_finished(status):
                finished = status
                assert status["completionTime"]
                assert not conditions.is_true(status, names.RUNNING)
        # It comes to rest, and asked again changes nothing.
        scenario.settle(limit=20)
        version = scenario.version()
        scenario.sync()
        assert scenario.version() == version
        # What belongs to others is as it was.
        found = scenario.run(scenario.cluster.get(names.POD, NAMESPACE, "flowers-worker-9"))
        assert found["metadata"]["labels"] == bystander["metadata"]["labels"]
        assert "activeDeadlineSeconds" not in found["spec"]
        assert found["metadata"]["uid"] == bystander["metadata"]["uid"]
        assert "deletionTimestamp" not in found["metadata"]
        _check_purity(scenario)


def _check_purity(scenario: Scenario) -> None:
    job = scenario.job()
    assert job is not None
    pods = scenario.run(scenario.cluster.list(names.POD, NAMESPACE)).items
    services = scenario.run(scenario.cluster.list(names.SERVICE, NAMESPACE)).items
    before = copy.deepcopy((job, pods, services))
    for moment in (scenario.now, scenario.now + 1e6):
        first = reconcile(job, observe(job, pods, services), moment)
        assert (job, pods, services) == before
        assert reconcile(job, observe(job, pods, services), moment) == first

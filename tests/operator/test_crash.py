"""The controller dies before or after any one of its writes, or any one of its calls is refused or its answer lost: a
new one, knowing nothing, or the same one, trying again, comes to the same end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.faults import Fault, Faulty
from support.kubelet import report
from support.scenario import Crash, Crashing, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import ApiError

pytestmark = pytest.mark.slow

Script = Callable[[Scenario], None]


def _restart_then_success(scenario: Scenario) -> None:
    scenario.settle()
    scenario.start_pods()
    scenario.end_pod("worker-1", 137, message=report(2, 137, scenario.now, signal="SIGKILL"))
    scenario.settle()
    scenario.finish_deletions()
    scenario.start_pods()
    scenario.end_pod("master-0", 0)
    scenario.settle()


def _over_the_limit(scenario: Scenario) -> None:
    scenario.settle()
    for _ in range(2):
        scenario.start_pods()
        scenario.end_pod("worker-0", 139)
        scenario.settle()
        scenario.finish_deletions()


def _suspend_and_resume(scenario: Scenario) -> None:
    scenario.settle()
    scenario.start_pods()
    scenario.suspend()
    scenario.settle()
    scenario.end_pod("worker-0", 143)
    scenario.settle()
    scenario.finish_deletions()
    scenario.suspend(False)
    scenario.settle()
    scenario.start_pods()


def _scale(scenario: Scenario) -> None:
    scenario.settle()
    scenario.start_pods()
    scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 1}}}})
    scenario.settle()
    scenario.finish_deletions()
    scenario.start_pods()


def _replace_one_by_one(scenario: Scenario) -> None:
    scenario.settle()
    scenario.start_pods()
    scenario.run(scenario.kubelet.restart_in_place("flowers-worker-0", 2))
    scenario.settle()
    scenario.end_pod("worker-1", 137)
    scenario.settle()
    scenario.start_pods()
    scenario.run(scenario.kubelet.restart_in_place("flowers-worker-1", 1))
    scenario.settle()


def _fail_and_clean(scenario: Scenario) -> None:
    scenario.settle()
    scenario.start_pods()
    scenario.end_pod("worker-0", 65)
    scenario.settle()
    scenario.finish_deletions()


IN_PLACE = {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}
SCRIPTS: dict[str, tuple[dict[str, Any], Script]] = {
    "restart": ({"backoffLimit": 3}, _restart_then_success),
    "limit": ({"backoffLimit": 1, "policy": "OnFailure"}, _over_the_limit),
    "suspend": ({"backoffLimit": 0}, _suspend_and_resume),
    "scale": ({}, _scale),
    "in-place": ({"policy": "OnFailure", "annotations": IN_PLACE, "backoffLimit": 9}, _replace_one_by_one),
    "clean-all": ({"cleanPodPolicy": "All"}, _fail_and_clean),
    "clean-none": ({"cleanPodPolicy": "None"}, _fail_and_clean),
}


def _outcome(scenario: Scenario) -> Any:
    status = scenario.status()
    status["podRestarts"] = sorted(status.get("podRestarts", {}).values())
    pods = {
        name: (
            pod["metadata"]["labels"][names.LABEL_GENERATION],
            pod["status"]["phase"],
            pod["spec"].get("activeDeadlineSeconds"),
        )
        for name, pod in scenario.pods().items()
    }
    return status, pods, scenario.services()


def _play(how: dict[str, Any], script: Script, writes: int, *, after: bool) -> tuple[Any, int]:
    with Scenario(pytorchjob(**how)) as scenario:
        crashing = Crashing(scenario.cluster, writes, after=after)
        scenario.controller_restarts(crashing)  # type: ignore[arg-type]
        script(scenario)
        scenario.settle()
        return _outcome(scenario), crashing.writes


@pytest.mark.parametrize("case", SCRIPTS)
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write_changes_nothing_in_the_end(case: str, after: bool) -> None:
    how, script = SCRIPTS[case]
    expected, writes = _play(how, script, 10_000, after=after)
    assert writes > 10
    for died_at in range(writes):
        outcome, _ = _play(how, script, died_at, after=after)
        assert outcome == expected, f"the controller died at write {died_at}"


class Trying(Scenario):
    """As the controller's workers do: a pass that fails is tried again."""

    def sync(self) -> float | None:
        try:
            return super().sync()
        except (ApiError, OSError):
            return 0.0


def _play_with(fault: Fault, n: int) -> tuple[Any, int]:
    how, script = SCRIPTS["restart"]
    with Trying(pytorchjob(**how)) as scenario:
        faulty = Faulty(scenario.cluster)
        faulty.fail(n, fault)
        scenario.controller_restarts(faulty)  # type: ignore[arg-type]
        script(scenario)
        scenario.settle()
        return _outcome(scenario), faulty.calls


@pytest.mark.parametrize("fault", ["too many requests", "lost answer"])
def test_a_call_that_fails_at_any_time_changes_nothing_in_the_end(fault: Fault) -> None:
    expected, calls = _play_with(fault, 10_000)
    assert calls > 20
    for n in range(1, calls + 1):
        outcome, _ = _play_with(fault, n)
        assert outcome == expected, f"call {n} failed"


def test_the_crashing_cluster_does_crash() -> None:
    with Scenario(pytorchjob()) as scenario:
        scenario.controller_restarts(Crashing(scenario.cluster, 0, after=False))  # type: ignore[arg-type]
        scenario.look()
        with pytest.raises(Crash):
            scenario.sync()
        assert scenario.status() == {}

"""What follows a failure, by restart policy and by cause."""

from __future__ import annotations

import pytest

from support.kubelet import report
from support.scenario import Scenario, pytorchjob
from trainserve.kube import names


def _running(**how: object) -> Scenario:
    scenario = Scenario(pytorchjob(**how))  # type: ignore[arg-type]
    scenario.settle()
    scenario.start_pods()
    assert scenario.state() == "Running"
    return scenario


def _evict(scenario: Scenario, replica: str, reason: str = "Evicted", message: str = "") -> None:
    scenario.run(scenario.kubelet.fail(f"flowers-{replica}", reason, message))
    scenario.settle()


def test_one_lost_rank_restarts_the_whole_gang_and_counts_once() -> None:
    with _running(backoffLimit=3) as scenario:
        scenario.end_pod("worker-1", 137, message=report(2, 137, scenario.now, signal="SIGKILL"))
        scenario.settle()
        assert scenario.conditions() == [("Created", "True"), ("Restarting", "True")]
        assert scenario.reason() == "PyTorchJobRestarting"
        assert scenario.status()["cause"] == "Worker 1: rank 2 was killed by SIGKILL (exit code 137)"
        assert scenario.status()["cause"] in scenario.message()
        assert scenario.status()["restarts"] == 1
        assert scenario.status()["generation"] == 2
        # Both others are asked to end, and nothing of the next generation exists until they have.
        assert scenario.deleting() == {"master-0", "worker-0"}
        assert set(scenario.generations().values()) == {"1"}
        scenario.finish_deletions("flowers-worker-0")
        assert scenario.generations() == {"master-0": "1"}
        scenario.finish_deletions()
        assert scenario.generations() == {"master-0": "2", "worker-0": "2", "worker-1": "2"}
        scenario.start_pods()
        assert scenario.conditions() == [("Created", "True"), ("Running", "True")]
        assert scenario.status()["restarts"] == 1
        assert len(scenario.events("PyTorchJobRestarting")) == 1


@pytest.mark.parametrize(
    ("code", "own", "given"),
    [
        (137, 600, names.BROKEN_GANG_GRACE_S),  # the others cannot checkpoint, and may hang
        (137, 5, 5),
        (143, 600, 600),  # stopped from outside: the others are writing the checkpoint
    ],
)
def test_a_gang_that_lost_a_rank_does_not_hold_back_its_restart(code: int, own: int, given: int) -> None:
    job = pytorchjob()
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["terminationGracePeriodSeconds"] = own
    with Scenario(job) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("worker-1", code)
        scenario.settle()
        assert scenario.deleting() == {"master-0", "worker-0"}
        for name in scenario.deleting():
            assert scenario.pods()[name]["metadata"]["deletionGracePeriodSeconds"] == given


@pytest.mark.parametrize("policy", ["ExitCode", "OnFailure", "Always", "Never"])
@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (1, {"ExitCode": "Failed", "OnFailure": "counted", "Always": "counted", "Never": "Failed"}),
        (65, {"ExitCode": "Failed", "OnFailure": "counted", "Always": "counted", "Never": "Failed"}),
        (127, {"ExitCode": "Failed", "OnFailure": "counted", "Always": "counted", "Never": "Failed"}),
        (128, {"ExitCode": "counted", "OnFailure": "counted", "Always": "counted", "Never": "Failed"}),
        (137, {"ExitCode": "counted", "OnFailure": "counted", "Always": "counted", "Never": "Failed"}),
        (143, {"ExitCode": "free", "OnFailure": "free", "Always": "free", "Never": "Failed"}),
        (200, {"ExitCode": "counted", "OnFailure": "counted", "Always": "counted", "Never": "Failed"}),
        (None, {"ExitCode": "counted", "OnFailure": "counted", "Always": "counted", "Never": "Failed"}),
    ],
)
def test_exit_codes(policy: str, code: int | None, outcome: dict[str, str]) -> None:
    with _running(policy=policy, workers=0) as scenario:
        scenario.end_pod("master-0", code)
        scenario.settle()
        if outcome[policy] == "Failed":
            assert scenario.state() == "Failed"
            assert scenario.status()["completionTime"]
            assert scenario.message().startswith("PyTorchJob flowers is failed because 1 Master replica(s) failed.")
        else:
            assert scenario.state() == "Restarting"
            assert scenario.status().get("restarts", 0) == (1 if outcome[policy] == "counted" else 0)


@pytest.mark.parametrize(
    "reason", ["Evicted", "Preempted", "Preempting", "Shutdown", "NodeShutdown", "Terminated", "NodeLost", "OutOfcpu"]
)
def test_what_the_cluster_takes_away_restarts_free_of_charge(reason: str) -> None:
    with _running(backoffLimit=0) as scenario:
        _evict(scenario, "worker-0", reason, "the node was low on memory")
        assert scenario.state() == "Restarting"
        assert scenario.status().get("restarts", 0) == 0
        assert scenario.status()["cause"] == f"Worker 0: {reason}: the node was low on memory"


def test_never_means_once_even_for_an_eviction() -> None:
    with _running(policy="Never") as scenario:
        _evict(scenario, "worker-0")
        assert scenario.state() == "Failed"


@pytest.mark.parametrize("policy", ["ExitCode", "OnFailure", "Always"])
def test_out_of_memory_fails_at_once_although_137_is_retryable(policy: str) -> None:
    with _running(policy=policy) as scenario:
        scenario.end_pod("worker-1", 137, reason="OOMKilled")
        scenario.settle()
        assert scenario.state() == "Failed"
        assert "out of memory" in scenario.status()["cause"]
        assert scenario.status().get("restarts", 0) == 0


def test_a_rank_killed_for_memory_is_told_by_the_agent() -> None:
    with _running() as scenario:
        told = report(2, 137, scenario.now, signal="SIGKILL", oom_kills=1)
        scenario.end_pod("worker-1", 137, message=told)
        scenario.settle()
        assert scenario.state() == "Failed"
        assert "out of memory" in scenario.status()["cause"]


def test_a_data_worker_killed_for_memory_is_out_of_memory_too() -> None:
    with _running() as scenario:
        said = "DataLoader worker (pid 7) is killed by signal: Killed. "
        scenario.end_pod("worker-1", 1, message=report(2, 1, scenario.now, message=said, oom_kills=1))
        scenario.settle()
        assert scenario.state() == "Failed"
        assert scenario.status()["cause"].endswith("out of memory")


def test_a_stall_is_an_event_of_its_own_and_counts() -> None:
    with _running() as scenario:
        said = "no progress for 60 s in training after step 12 (data.py:40 in order)"
        scenario.end_pod("master-0", 200, message=report(0, 200, scenario.now + 1))
        scenario.end_pod("worker-1", 201, message=report(2, 201, scenario.now, message=said))
        scenario.settle()
        (event,) = scenario.events(names.REASON_STALLED)
        assert (event["type"], event["message"]) == ("Warning", f"Worker 1: rank 2 failed (exit code 201): {said}")
        assert (scenario.state(), scenario.status()["restarts"]) == ("Restarting", 1)


def test_the_first_failure_decides_not_those_it_brought_about() -> None:
    with _running() as scenario:
        # The Master fails for good because its peer is gone; what counts is why the peer is.
        scenario.end_pod("master-0", 1, message=report(0, 1, scenario.now + 0.9))
        scenario.end_pod("worker-1", 139, message=report(2, 139, scenario.now + 0.2, signal="SIGSEGV"))
        scenario.settle()
        assert scenario.state() == "Restarting"
        assert scenario.status()["cause"].startswith("Worker 1: rank 2 was killed by SIGSEGV")
        assert "1 Worker replica(s) failed" in scenario.message()


def test_victims_wait_for_the_cause_to_be_heard_of() -> None:
    with _running() as scenario:
        scenario.end_pod("master-0", 200, message=report(0, 200, scenario.now))
        scenario.settle()
        assert scenario.state() == "Running"
        assert scenario.again_s is not None
        assert 0 < scenario.again_s <= 10
        scenario.end_pod("worker-0", 65, message=report(1, 65, scenario.now + 1, message="no pictures"))
        scenario.settle()
        assert scenario.state() == "Failed"
        assert scenario.status()["cause"] == "Worker 0: rank 1 failed (exit code 65): no pictures"


def test_victims_alone_restart_after_a_while_and_count() -> None:
    with _running() as scenario:
        scenario.end_pod("master-0", 200)
        scenario.settle()
        assert scenario.state() == "Running"
        scenario.wait(11)
        assert scenario.state() == "Restarting"
        assert scenario.status()["restarts"] == 1


def test_backoff_limit_counts_across_generations() -> None:
    with _running(backoffLimit=2, workers=0) as scenario:
        for restart in (1, 2):
            scenario.end_pod("master-0", 137)
            scenario.settle()
            assert scenario.status()["restarts"] == restart
            scenario.wait(60)  # the longest pause before a start
            scenario.start_pods()
        scenario.end_pod("master-0", 137)
        scenario.settle()
        assert scenario.state() == "Failed"
        assert scenario.reason() == "BackoffLimitExceeded"
        assert scenario.message().startswith(
            "Job flowers has failed because it has reached the specified backoff limit"
        )
        assert "exit code 137 (SIGKILL)" in scenario.message()
        assert scenario.status()["restarts"] == 2


def test_cancelled_pods_by_hand_restart_the_gang_free_of_charge() -> None:
    with _running(backoffLimit=0) as scenario:
        scenario.run(scenario.cluster.delete(names.POD, "team", "flowers-worker-1"))
        scenario.settle()
        assert scenario.state() == "Restarting"
        assert scenario.status()["cause"] == "Worker 1: its pod flowers-worker-1 was deleted"
        scenario.finish_deletions()
        assert set(scenario.generations().values()) == {"2"}


def test_a_pod_that_vanished_restarts_the_gang_too() -> None:
    with _running(backoffLimit=0) as scenario:
        scenario.run(scenario.cluster.delete(names.POD, "team", "flowers-worker-1", grace_period_s=0))
        scenario.settle()
        assert scenario.state() == "Restarting"
        assert scenario.status()["cause"] == "Worker 1: its pod is gone"


def test_ctl_01_restarts_in_place_stop_at_the_limit() -> None:
    in_place = {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}
    with _running(policy="OnFailure", workers=1, backoffLimit=1, annotations=in_place) as scenario:
        scenario.run(scenario.kubelet.restart_in_place("flowers-worker-0", 1))
        scenario.settle()
        assert scenario.state() == "Running"
        assert scenario.status()["restarts"] == 1
        scenario.run(scenario.kubelet.restart_in_place("flowers-worker-0", 1, waiting=True))
        scenario.settle()
        assert scenario.state() == "Failed"
        assert scenario.reason() == "BackoffLimitExceeded"
        assert "backoff limit" in scenario.message()
        assert ("Running", "False") in scenario.conditions()
        assert ("Restarting", "True") not in scenario.conditions()
        assert scenario.status()["completionTime"]


def test_ctl_01_for_a_gang() -> None:
    with _running(policy="OnFailure", workers=1, backoffLimit=1) as scenario:
        for _ in range(2):
            scenario.end_pod("master-0", 1)
            scenario.end_pod("worker-0", 1)
            scenario.settle()
            scenario.start_pods()
        assert scenario.state() == "Failed"
        assert scenario.reason() == "BackoffLimitExceeded"
        assert ("Restarting", "True") not in scenario.conditions()


@pytest.mark.parametrize("waiting", [True, False])
def test_in_place_out_of_memory_fails_at_once(waiting: bool) -> None:
    in_place = {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}
    with _running(policy="OnFailure", workers=1, annotations=in_place) as scenario:
        restart = scenario.kubelet.restart_in_place
        scenario.run(restart("flowers-worker-0", 1, waiting=waiting, code=137, reason="OOMKilled"))
        scenario.settle()
        assert scenario.state() == "Failed"
        assert "Worker 0: " in scenario.status()["cause"]
        assert "out of memory" in scenario.status()["cause"]


def test_in_place_restarts_are_counted_across_pod_recreations() -> None:
    in_place = {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}
    with _running(policy="OnFailure", workers=1, backoffLimit=5, annotations=in_place) as scenario:
        scenario.run(scenario.kubelet.restart_in_place("flowers-worker-0", 2))
        scenario.settle()
        assert scenario.status()["restarts"] == 2
        _evict(scenario, "worker-0")
        assert len(scenario.events("PyTorchJobRestarting")) == 1
        assert scenario.status()["restarts"] == 2  # the eviction is free, and what was counted stays
        assert set(scenario.generations().values()) == {"1"}  # the Master went on
        scenario.start_pods()
        assert scenario.state() == "Running"
        scenario.run(scenario.kubelet.restart_in_place("flowers-worker-0", 1))
        scenario.settle()
        assert scenario.status()["restarts"] == 3


def test_in_place_exit_code_pods_are_replaced_one_by_one() -> None:
    in_place = {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}
    with _running(backoffLimit=1, annotations=in_place) as scenario:
        master = scenario.pods()["master-0"]["metadata"]["uid"]
        scenario.end_pod("worker-1", 137)
        scenario.settle()
        assert scenario.status()["restarts"] == 1
        scenario.start_pods()
        assert scenario.state() == "Running"
        assert scenario.pods()["master-0"]["metadata"]["uid"] == master
        scenario.end_pod("worker-0", 1)
        scenario.settle()
        assert scenario.state() == "Failed"


def test_elastic_members_come_and_go_one_by_one() -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 3}
    with _running(master=False, workers=2, policy="OnFailure", elastic=elastic) as scenario:
        _evict(scenario, "worker-0")
        assert set(scenario.generations().values()) == {"1"}
        scenario.start_pods()
        scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 3}}}})
        scenario.settle()
        assert set(scenario.pods()) == {"worker-0", "worker-1", "worker-2"}
        scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 1}}}})
        scenario.settle()
        assert scenario.deleting() == {"worker-1"}
        assert scenario.services() == {"worker-0"}
        assert set(scenario.generations().values()) == {"1"}
        assert scenario.status().get("restarts", 0) == 0


@pytest.mark.parametrize(("workers", "nodes"), [(3, "4"), (1, "2")])
def test_scaling_a_gang_starts_it_over_with_the_new_size(workers: int, nodes: str) -> None:
    with _running() as scenario:
        scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": workers}}}})
        scenario.settle()
        assert scenario.reason() == "PyTorchJobScaled"
        assert scenario.status().get("restarts", 0) == 0
        scenario.finish_deletions()
        assert set(scenario.generations().values()) == {"2"}
        assert len(scenario.pods()) == len(scenario.services()) == workers + 1
        for pod in scenario.pods().values():
            env = {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]}
            assert (env["PET_NNODES"], env["WORLD_SIZE"]) == (nodes, nodes)

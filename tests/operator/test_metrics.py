"""What is counted, of status writes as they succeed."""

from __future__ import annotations

from typing import Any

import pytest

from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339
from trainserve.operator.metrics import Metrics

CREATED_AT = 1_700_000_000.0
NOW = CREATED_AT + 42


def job(**status: Any) -> Manifest:
    made = pytorchjob()
    made["metadata"] |= {"uid": "u1", "creationTimestamp": rfc3339(CREATED_AT)}
    return {**made, "status": status}


def conditions(*types: str, false: tuple[str, ...] = ()) -> list[Manifest]:
    return [{"type": each, "status": "False" if each in false else "True"} for each in types]


def active(master: int, worker: int) -> Manifest:
    return {"Master": {"active": master}, "Worker": {"active": worker}}


class Counted:
    """A job's statuses, written one after the other."""

    def __init__(self) -> None:
        self.metrics = Metrics(wall=lambda: NOW)
        self.status: Manifest = {}

    def write(self, **status: Any) -> None:
        after = {**self.status, **status}
        self.metrics.status_written(job(**after), self.status, after)
        self.status = after

    def jobs(self, what: str) -> float | None:
        labels = {"job_namespace": "team", "framework": "pytorch"}
        return self.metrics.registry.get_sample_value(f"training_operator_jobs_{what}_total", labels)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"trainserve_operator_{name}", labels)


def test_upstreams_counters_by_name_and_label() -> None:
    counted = Counted()
    counted.write(conditions=conditions("Created"))
    counted.write(conditions=conditions("Created", "Running"))
    counted.write(conditions=conditions("Created", "Running"), lastReconcileTime="x")
    assert (counted.jobs("created"), counted.jobs("successful"), counted.jobs("failed")) == (1, None, None)
    counted.write(conditions=conditions("Created", "Running", "Succeeded", false=("Running",)))
    counted.write(completionTime="x")
    assert (counted.jobs("created"), counted.jobs("successful"), counted.jobs("failed")) == (1, 1, None)
    failed = Counted()
    failed.write(conditions=conditions("Created", "Failed"))
    assert (failed.jobs("created"), failed.jobs("failed")) == (1, 1)


def test_a_job_that_another_operator_has_created_is_not_counted_again() -> None:
    counted = Counted()
    counted.status = {"conditions": conditions("Created")}
    counted.metrics.job_changed(None, job(**counted.status))
    counted.write(conditions=conditions("Created", "Running"))
    assert counted.jobs("created") is None


def test_what_is_deleted_is_counted_when_it_is_gone() -> None:
    counted = Counted()
    counted.metrics.job_changed(None, job())
    counted.metrics.job_changed(job(), job(conditions=[]))
    assert counted.jobs("deleted") is None
    counted.metrics.job_changed(job(), None)
    assert counted.jobs("deleted") == 1


def test_restarts_of_gangs_by_cause_and_cost() -> None:
    counted = Counted()
    ends = [
        {"generation": 1, "reason": "Retryable", "free": False},
        {"generation": 2, "reason": "TakenAway", "free": True},
    ]
    counted.write(history=ends[:1], restarts=1, generation=2)
    counted.write(history=ends, generation=3)
    counted.write(lastReconcileTime="x")
    assert counted.jobs("restarted") == 2
    for cause, free in (("Retryable", "false"), ("TakenAway", "true")):
        assert counted.value("gang_restarts_total", job_namespace="team", cause=cause, free=free) == 1


def test_the_history_forgets_its_oldest_without_counting_anything_twice() -> None:
    counted = Counted()
    counted.status = {"history": [{"generation": number} for number in range(1, 21)], "restarts": 20}
    counted.write(history=[{"generation": number} for number in range(2, 22)], restarts=21)
    assert counted.jobs("restarted") == 1


def test_pods_that_are_restarted_one_by_one() -> None:
    counted = Counted()
    counted.write(restarts=2, podRestarts={"p1": 2})
    counted.write(restarts=3, podRestarts={"p1": 2, "p2": 1})
    assert counted.jobs("restarted") == 3


def test_the_time_from_creation_until_all_pods_run_is_told_once() -> None:
    counted = Counted()
    counted.write(conditions=conditions("Created"), replicaStatuses=active(0, 0))
    counted.write(replicaStatuses=active(1, 1))
    assert counted.value("job_start_seconds_count", job_namespace="team") is None
    counted.write(replicaStatuses=active(1, 2))
    counted.write(lastReconcileTime="x")
    assert counted.value("job_start_seconds_count", job_namespace="team") == 1
    assert counted.value("job_start_seconds_sum", job_namespace="team") == 42
    counted.write(replicaStatuses=active(1, 1))
    counted.write(replicaStatuses=active(0, 0), history=[{"generation": 1}])
    counted.write(replicaStatuses=active(1, 2))
    assert counted.value("job_start_seconds_count", job_namespace="team") == 1


def test_a_resumed_job_starts_when_it_was_resumed() -> None:
    counted = Counted()
    listed = conditions("Suspended", "Created", false=("Suspended",))
    counted.write(conditions=listed, startTime=rfc3339(NOW - 5), replicaStatuses=active(0, 0))
    counted.write(replicaStatuses=active(1, 2))
    assert counted.value("job_start_seconds_sum", job_namespace="team") == 5


@pytest.mark.parametrize(
    ("status", "wrong"), [(200, 0), (201, 0), (404, 0), (409, 0), (410, 0), (0, 1), (429, 1), (500, 1), (403, 1)]
)
def test_requests_and_those_that_failed(status: int, wrong: int) -> None:
    counted = Counted()
    counted.metrics.request("create", names.POD, status, 0.25)
    assert counted.value("api_requests_total", verb="create", kind="pods", code=str(status)) == 1
    assert (counted.value("api_errors_total", verb="create", kind="pods") or 0) == wrong
    assert counted.value("api_request_seconds_sum", verb="create") == 0.25


def test_passes_by_result_are_there_before_the_first() -> None:
    counted = Counted()
    assert counted.value("reconcile_seconds_count", result="bug") == 0
    counted.metrics.pass_ended("bug", 0.5)
    assert counted.value("reconcile_seconds_count", result="bug") == 1


def test_what_a_scrape_looks_at() -> None:
    counted = Counted()
    jobs = [job(), job(conditions=conditions("Created", "Running")), job(conditions=conditions("Created", "Running"))]
    counted.metrics.watch(
        jobs=lambda: jobs,
        depth=lambda: 3,
        oldest_s=lambda: 1.5,
        longest_pass_s=lambda: 2.5,
        leading=lambda: True,
        lag_s=lambda: 0.25,
    )
    assert counted.value("jobs", job_namespace="team", state="Running") == 2
    assert counted.value("jobs", job_namespace="team", state="Pending") == 1
    assert counted.value("queue_depth") == 3
    assert counted.value("queue_oldest_seconds") == 1.5
    assert counted.value("longest_pass_seconds") == 2.5
    assert counted.value("event_loop_lag_seconds") == 0.25
    assert counted.value("leader") == 1
    jobs.clear()
    assert counted.value("jobs", job_namespace="team", state="Running") is None
    page = counted.metrics.page().decode()
    assert "_created{" not in page.replace("jobs_created", "")  # no time stamps beside each counter


def test_a_namespace_that_is_gone_has_no_series_after_an_hour() -> None:
    clock = {"now": NOW}
    metrics = Metrics(wall=lambda: clock["now"])
    there: list[Manifest] = []
    metrics.watch(
        jobs=lambda: there,
        depth=lambda: 0,
        oldest_s=lambda: 0.0,
        longest_pass_s=lambda: 0.0,
        leading=lambda: True,
        lag_s=lambda: 0.0,
    )

    def of(namespace: str) -> Manifest:
        found = job(conditions=conditions("Created"), replicaStatuses=active(1, 2))
        found["metadata"]["namespace"] = namespace
        return found

    def come_and_go(namespace: str) -> None:
        after = {**of(namespace)["status"], "history": [{"generation": 1, "reason": "TakenAway"}]}
        metrics.status_written(of(namespace), {}, of(namespace)["status"])
        metrics.status_written(of(namespace), of(namespace)["status"], after)
        metrics.job_changed(of(namespace), None)

    there.append(of("quiet"))
    come_and_go("quiet")
    for number in range(500):
        come_and_go(f"branch-{number}")
        clock["now"] += 60
    page = metrics.page().decode()
    assert "branch-499" in page
    assert "branch-0" not in page
    assert page.count('training_operator_jobs_deleted_total{framework="pytorch",job_namespace="branch-') < 80
    assert page.count("trainserve_operator_gang_restarts_total{") < 80
    assert page.count("trainserve_operator_job_start_seconds_count{") < 80
    assert 'jobs_deleted_total{framework="pytorch",job_namespace="quiet"} 1.0' in page  # it has a job
    come_and_go("branch-0")
    assert 'jobs_deleted_total{framework="pytorch",job_namespace="branch-0"} 1.0' in metrics.page().decode()


def test_the_oldest_wait_of_each_namespace() -> None:
    def waiting(namespace: str, state: str, since_s: float) -> Manifest:
        listed = [{"type": state, "status": "True", "lastTransitionTime": rfc3339(NOW - since_s)}]
        made = job(conditions=listed) if state else job()
        made["metadata"]["namespace"] = namespace
        return made

    jobs = [
        waiting("a", "Created", 5),
        waiting("a", "Pending", 70),
        waiting("a", "Running", 900),
        waiting("b", "Restarting", 3),
        waiting("c", "Running", 900),
        waiting("c", "Suspended", 900),
        waiting("c", "Failed", 900),
        waiting("d", "", 0),
    ]
    counted = Counted()
    counted.metrics.watch(
        jobs=lambda: jobs,
        depth=lambda: 0,
        oldest_s=lambda: 0,
        longest_pass_s=lambda: 0,
        leading=lambda: True,
        lag_s=lambda: 0,
    )
    found = {name: counted.value("oldest_pending_seconds", job_namespace=name) for name in "abcd"}
    assert found == {"a": 70, "b": 3, "c": 0, "d": NOW - CREATED_AT}


def test_a_scrape_finds_the_counters_of_a_namespace_before_anything_is_counted() -> None:
    counted = Counted()
    counted.metrics.watch(
        jobs=lambda: [job()],
        depth=lambda: 0,
        oldest_s=lambda: 0,
        longest_pass_s=lambda: 0,
        leading=lambda: True,
        lag_s=lambda: 0,
    )
    assert counted.jobs("failed") is None
    assert (
        b'training_operator_jobs_failed_total{framework="pytorch",job_namespace="team"} 0.0' in counted.metrics.page()
    )
    counted.write(conditions=conditions("Created", "Failed"))
    assert counted.jobs("failed") == 1

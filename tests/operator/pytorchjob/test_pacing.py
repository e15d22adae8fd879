"""Restarts in a row: the pauses between them, and how many are free of charge."""

from __future__ import annotations

import pytest

from support.scenario import Scenario, pytorchjob
from trainserve.operator.pytorchjob import pacing


def _again(scenario: Scenario) -> float:
    """The gang fails once more; the seconds until the pods of the next are created."""
    scenario.end_pod("master-0", 137)
    scenario.settle()
    assert scenario.state() == "Restarting"
    return _pause(scenario)


def _pause(scenario: Scenario) -> float:
    begun = scenario.now
    while not scenario.pods():
        assert scenario.again_s is not None, "nobody would look again"
        assert scenario.again_s <= pacing.LONGEST_S
        scenario.wait(scenario.again_s)
    scenario.start_pods()
    assert scenario.state() == "Running"
    return scenario.now - begun


def _scenario(**how: object) -> Scenario:
    scenario = Scenario(pytorchjob(workers=0, **how))  # type: ignore[arg-type]
    scenario.settle()
    scenario.start_pods()
    return scenario


def test_a_gang_that_keeps_failing_starts_later_and_later() -> None:
    with _scenario() as scenario:
        assert [_again(scenario) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_the_pause_is_told_and_survives_a_controller_that_forgets() -> None:
    with _scenario() as scenario:
        for _ in range(3):
            _again(scenario)
        scenario.end_pod("master-0", 137)
        scenario.settle()
        assert "after a pause of 4 s" in scenario.message()
        scenario.controller_restarts()
        scenario.wait(3)
        assert scenario.pods() == {}
        scenario.wait(1)
        assert set(scenario.pods()) == {"master-0"}


def test_progress_or_ten_minutes_begin_a_new_row() -> None:
    progress: dict[str, int] = {}
    job = pytorchjob(workers=0)
    with Scenario(job, progress=lambda _: dict(progress)) as scenario:
        scenario.settle()
        scenario.start_pods()
        assert [_again(scenario) for _ in range(3)] == [0, 1, 2]
        progress["checkpointStep"] = 40
        assert [_again(scenario) for _ in range(2)] == [0, 1]
        scenario.wait(pacing.STEADY_S)
        assert [_again(scenario) for _ in range(2)] == [0, 1]


def test_a_resume_begins_a_new_row() -> None:
    with _scenario() as scenario:
        assert [_again(scenario) for _ in range(3)] == [0, 1, 2]
        scenario.wait(1)
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        scenario.wait(5)
        scenario.suspend(False)
        scenario.settle()
        assert set(scenario.pods()) == {"master-0"}, "a resume waits for nothing"
        scenario.start_pods()
        assert _again(scenario) == 0


def test_restarts_free_of_charge_are_bounded_while_nothing_gets_on() -> None:
    with _scenario(backoffLimit=1) as scenario:

        def evict() -> None:
            scenario.run(scenario.kubelet.fail("flowers-master-0", "Evicted", "low on memory"))
            scenario.settle()

        for number in range(pacing.FREE_IN_A_ROW):
            evict()
            assert scenario.status().get("restarts", 0) == 0, number
            assert "free of charge" in scenario.message()
            _pause(scenario)
        evict()
        assert scenario.status()["restarts"] == 1
        assert "restart 1 of 1" in scenario.message()
        _pause(scenario)
        evict()
        assert scenario.state() == "Failed"
        assert scenario.reason() == "BackoffLimitExceeded"


def test_the_history_says_why_each_gang_ended_and_is_bounded() -> None:
    with _scenario() as scenario:
        for _ in range(pacing.KEPT + 3):
            _again(scenario)
        history = scenario.status()["history"]
        assert [entry["generation"] for entry in history] == list(range(4, pacing.KEPT + 4))
        assert history[-1]["cause"] == "Master 0: exit code 137 (SIGKILL)"
        assert history[-1]["reason"] == "Retryable"
        assert history[-1]["free"] is False


@pytest.mark.parametrize("verdict", [143, None])
def test_a_suspended_gang_leaves_no_entry(verdict: int | None) -> None:
    with _scenario() as scenario:
        scenario.suspend()
        scenario.settle()
        if verdict is not None:
            scenario.end_pod("master-0", verdict)
        scenario.settle()
        scenario.finish_deletions()
        assert "history" not in scenario.status()

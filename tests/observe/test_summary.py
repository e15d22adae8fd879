"""A run in a few numbers, also of a run that wrote for a day and of one that was resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trainserve.observe import events
from trainserve.observe.events import Event
from trainserve.observe.summary import nodes, summarize

START: Event = {"time": 1.0, "kind": "start", "epochs": 3, "stepsPerEpoch": 10}


def job(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"pytorchReplicaSpecs": {"Master": {}, "Worker": {"replicas": 3}}},
        "status": status,
    }


def test_events_of_a_run_from_its_start() -> None:
    found = summarize(
        "a",
        "Running",
        job(restarts=1, conditions=[{"type": "Running", "message": "it runs"}]),
        [
            START,
            {"time": 2, "kind": "step", "epoch": 1, "step": 7, "loss": 0.5, "imagesPerSecond": 80.0, "etaSeconds": 9.0},
            {"time": 3, "kind": "epoch", "epoch": 1, "step": 10, "top1": 0.75},
            {"time": 4, "kind": "checkpoint", "step": 10},
        ],
    )
    assert (found["epoch"], found["epochs"], found["step"], found["steps"]) == (1, 3, 10, 30)
    assert (found["top1"], found["etaSeconds"], found["checkpointStep"]) == (0.75, 9.0, 10)
    assert (found["nodes"], found["restarts"], found["message"]) == (4, 1, "it runs")
    assert found["created"] == 1767225600.0


def test_a_resumed_run_knows_its_epochs_without_a_start() -> None:
    resume: Event = {"time": 5, "kind": "resume", "epoch": 2, "step": 15, "epochs": 3, "stepsPerEpoch": 10}
    found = summarize("a", "Running", job(), [resume])
    assert (found["epoch"], found["epochs"], found["step"], found["steps"]) == (2, 3, 15, 30)


def test_numbers_that_the_events_end_lacks_come_from_the_jobs_status() -> None:
    found = summarize("a", "Running", job(progress={"top1": 0.5, "checkpointStep": 4}), [START])
    assert (found["top1"], found["checkpointStep"]) == (0.5, 4)


def test_a_checkpoint_and_a_stop_tell_the_step_too() -> None:
    told: list[Event] = [
        START,
        {"time": 2, "kind": "step", "epoch": 1, "step": 5},
        {"time": 3, "kind": "checkpoint", "step": 6},
        {"time": 3, "kind": "stopped", "step": 6},
    ]
    found = summarize("a", "Suspended", job(), told)
    assert (found["step"], found["checkpointStep"]) == (6, 6)


def test_what_has_ended_has_no_eta() -> None:
    step: Event = {"time": 2, "kind": "step", "epoch": 1, "step": 7, "etaSeconds": 9.0}
    assert summarize("a", "Interrupted", job(), [step])["etaSeconds"] is None


def test_a_run_without_a_job_yet() -> None:
    assert summarize("a", "Pending", None, [])["nodes"] == nodes({}) == 0


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(1, 400), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_ends_are_whole_events_in_order_none_twice(
    tmp_path_factory: Any, steps: list[int], head: int, tail: int
) -> None:
    path: Path = tmp_path_factory.mktemp("events") / "events.jsonl"
    whole: list[Event] = [{"time": float(n), "kind": "checkpoint", "step": step} for n, step in enumerate(steps)]
    path.write_text("".join(events.encode(event) for event in whole) + '{"time": 1, "ki')
    found = events.ends(path, head=head, tail=tail)
    times = [event["time"] for event in found]
    assert times == sorted(set(times))
    assert all(event in whole for event in found)
    assert events.ends(path) == whole


def test_of_the_steps_only_the_last_is_among_the_ends(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    kinds = ["start", "step", "step", "epoch", "step", "checkpoint", "step", "step", "notice"]
    path.write_text("".join(events.encode({"time": float(n), "kind": kind}) for n, kind in enumerate(kinds)))  # type: ignore[typeddict-item]
    assert [event["kind"] for event in events.ends(path)] == ["start", "epoch", "checkpoint", "step", "notice"]
    assert events.ends(path)[-2]["time"] == 7.0


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    assert events.ends(tmp_path / "none") == []
    assert events.read(tmp_path / "none") == ([], 0)

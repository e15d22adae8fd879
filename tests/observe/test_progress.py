"""From events to status.progress."""

from __future__ import annotations

from typing import Any

from trainserve.observe.events import Event
from trainserve.observe.progress import fold
from trainserve.spec.pytorchjob import Progress


def _fold(*events: Any) -> dict[str, Any]:
    progress: dict[str, Any] = {}
    for event in events:
        progress = fold(progress, event)
    return progress


START: Event = {"time": 1, "kind": "start", "epochs": 3, "stepsPerEpoch": 10, "arch": "resnet18"}


def test_what_a_run_says_from_start_to_end() -> None:
    steps = [START, {"time": 2, "kind": "notice", "message": "m"}]
    assert _fold(*steps) == {"epochs": 3, "steps": 30}
    steps += [{"time": 3, "kind": "step", "epoch": 1, "step": 4, "loss": 2.0, "lr": 0.1, "etaSeconds": 9.5}]
    assert _fold(*steps) == {"epochs": 3, "steps": 30, "epoch": 1, "step": 4, "loss": 2.0, "etaSeconds": 9.5}
    steps += [{"time": 4, "kind": "checkpoint", "step": 10, "checkpoint": "step-00000010"}]
    steps += [{"time": 5, "kind": "epoch", "epoch": 1, "step": 10, "top1": 0.25, "top5": 1.0, "trainLoss": 1.0}]
    steps += [{"time": 6, "kind": "done", "step": 30, "top1": 0.5, "bundle": "/out"}]
    end = _fold(*steps)
    assert end == {
        "epochs": 3, "steps": 30, "epoch": 1, "step": 30, "loss": 2.0, "etaSeconds": 0.0, "checkpointStep": 10,
        "top1": 0.5,
    }  # fmt: skip
    Progress.model_validate(end)


def test_a_resumed_run_says_at_once_what_its_checkpoint_knows() -> None:
    resume = {"time": 1, "kind": "resume", "epoch": 2, "step": 15, "epochs": 3, "stepsPerEpoch": 10, "top1": 0.5}
    assert _fold(resume) == {"epoch": 2, "epochs": 3, "step": 15, "steps": 30, "checkpointStep": 15, "top1": 0.5}


def test_the_progress_before_stays_as_it_was() -> None:
    before = _fold(START)
    fold(before, {"time": 2, "kind": "step", "epoch": 1, "step": 1, "loss": 1.0})
    assert before == {"epochs": 3, "steps": 30}

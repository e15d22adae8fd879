"""status.progress from events."""

from __future__ import annotations

from pathlib import Path

from trainserve.local.progress import ProgressReader
from trainserve.observe.events import encode


def test_progress_grows_with_the_events(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    read = ProgressReader(path)
    assert read({}) == {}
    with path.open("w") as file:
        file.write(encode({"time": 1.0, "kind": "start", "epochs": 3, "stepsPerEpoch": 5}))
        file.write(encode({"time": 2.0, "kind": "step", "epoch": 1, "step": 4, "loss": 2.5, "imagesPerSecond": 80.0}))
    begun = {"epoch": 1, "epochs": 3, "step": 4, "steps": 15, "loss": 2.5, "imagesPerSecond": 80.0}
    assert read({}) == begun
    with path.open("a") as file:
        file.write(encode({"time": 3.0, "kind": "epoch", "epoch": 1, "step": 5, "top1": 0.5}))
        file.write(encode({"time": 3.0, "kind": "checkpoint", "step": 5, "checkpoint": "step-00000005"}))
        file.write('{"time": 4.0, "kind": "st')
    progress = {**begun, "step": 5, "top1": 0.5, "checkpointStep": 5}
    assert read({}) == progress
    assert read({}) == progress

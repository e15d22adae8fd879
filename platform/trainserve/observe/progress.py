"""How far training is, folded from rank 0's events: the fields of `status.progress`. Pure."""

from __future__ import annotations

from typing import Any

from trainserve.observe.events import Event

Progress = dict[str, Any]  # spec.pytorchjob.Progress, camelCase; what is not known is left out

# Fields of an event that are fields of status.progress under the same name.
_SAME = ("epoch", "epochs", "step", "loss", "top1", "imagesPerSecond", "etaSeconds")
_TOLD_BY = frozenset({"start", "resume", "step", "epoch", "checkpoint", "done"})


def fold(progress: Progress, event: Event) -> Progress:
    """The progress after `event`; `progress` itself stays as it is."""
    if event["kind"] not in _TOLD_BY:
        return progress
    values = dict(event)
    after = progress | {name: values[name] for name in _SAME if values.get(name) is not None}
    if "epochs" in event and "stepsPerEpoch" in event:
        after["steps"] = event["epochs"] * event["stepsPerEpoch"]
    if event["kind"] in {"checkpoint", "resume"} and "step" in event:
        after["checkpointStep"] = event["step"]
    if event["kind"] == "done":
        after["etaSeconds"] = 0.0
    return after

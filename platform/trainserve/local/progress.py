"""status.progress of a local job, from the events of its rank 0."""

from __future__ import annotations

from pathlib import Path

from trainserve.kube.cluster import Manifest
from trainserve.observe import events

# Fields of an event that are fields of status.progress under the same name.
_SAME = ("epoch", "step", "loss", "top1", "imagesPerSecond", "etaSeconds")


class ProgressReader:
    """Reads what is new in events.jsonl at each call. Empty until training has made a step.

    Empty and not None, so that the controller goes on asking: no event of a pod tells it that training has begun.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._progress: Manifest = {}

    def __call__(self, job: Manifest) -> Manifest:
        """What status.progress of `job`, the only one of its run, should be."""
        del job
        found, self._offset = events.read(self._path, self._offset)
        for event in found:
            if event["kind"] not in {"resume", "step", "epoch", "checkpoint", "done"}:
                continue
            values = dict(event)
            self._progress |= {name: values[name] for name in _SAME if values.get(name) is not None}
            if event["kind"] == "checkpoint" and "step" in event:
                self._progress["checkpointStep"] = event["step"]
            if event["kind"] == "done":
                self._progress["etaSeconds"] = 0.0
        return dict(self._progress)

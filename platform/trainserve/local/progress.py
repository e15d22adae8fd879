"""status.progress of a local job, from the events of its rank 0."""

from __future__ import annotations

from pathlib import Path

from trainserve.kube.cluster import Manifest
from trainserve.observe import events
from trainserve.observe.progress import fold


class ProgressReader:
    """Reads what is new in events.jsonl at each call. Empty until training has begun.

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
            self._progress = fold(self._progress, event)
        return dict(self._progress)

"""How long a job whose children are refused waits before it asks again: a quota does not change by being asked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

from trainserve.kube.cluster import Manifest
from trainserve.kube.names import Kind
from trainserve.operator.pytorchjob.decision import Create

Key: TypeAlias = tuple[str, str]  # namespace, name

FIRST_S = 2.0
LONGEST_S = 60.0


class Refusals:
    """Of each job: how often it was refused in a row, and until when it waits. One that was changed may ask at once."""

    def __init__(self) -> None:
        self._of: dict[Key, tuple[str, int, float]] = {}
        self._kinds: dict[Key, Kind] = {}  # of what was refused

    def wait_s(self, key: Key, job: Manifest, now: float) -> float:
        """Seconds for which what was refused is not to be tried, nor what comes after it; 0 where it may be."""
        spec, _, until = self._of.get(key, ("", 0, 0.0))
        return max(0.0, until - now) if spec == _spec(job) else 0.0

    def before(self, key: Key, creates: Sequence[Create]) -> list[Create]:
        """Those of `creates`, which are in order, that need not wait: a refused autoscaler holds up no pod."""
        refused = self._kinds.get(key)
        if refused not in {create.kind for create in creates}:
            return []
        return list(itertools.takewhile(lambda create: create.kind != refused, creates))

    def record(self, key: Key, job: Manifest, kind: Kind, now: float) -> float:
        """A create of `kind` was refused: returns the seconds to wait, 2, 4, ... 60."""
        spec, times, _ = self._of.get(key, ("", 0, 0.0))
        times = times + 1 if spec == _spec(job) else 1
        wait_s = min(LONGEST_S, FIRST_S * 2.0 ** min(times - 1, 32))
        self._of[key] = (_spec(job), times, now + wait_s)
        self._kinds[key] = kind
        return wait_s

    def forget(self, key: Key) -> None:
        """Everything could be created, or the job is gone."""
        self._of.pop(key, None)
        self._kinds.pop(key, None)


def _spec(job: Manifest) -> str:
    """Which spec of which job: it changes with every change of the spec."""
    return f"{job['metadata']['uid']}/{job['metadata'].get('generation')}"

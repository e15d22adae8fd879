"""How long a job whose children are refused waits before it asks again: a quota does not change by being asked."""

from __future__ import annotations

from typing import TypeAlias

from trainserve.kube.cluster import Manifest

Key: TypeAlias = tuple[str, str]  # namespace, name

FIRST_S = 2.0
LONGEST_S = 60.0


class Refusals:
    """Of each job: how often it was refused in a row, and until when it waits. One that was changed may ask at once."""

    def __init__(self) -> None:
        self._of: dict[Key, tuple[str, int, float]] = {}

    def wait_s(self, key: Key, job: Manifest, now: float) -> float:
        """Seconds for which nothing of the job is to be created; 0 where it may be tried."""
        spec, _, until = self._of.get(key, ("", 0, 0.0))
        return max(0.0, until - now) if spec == _spec(job) else 0.0

    def record(self, key: Key, job: Manifest, now: float) -> float:
        """A create was refused: returns the seconds to wait, 2, 4, ... 60."""
        spec, times, _ = self._of.get(key, ("", 0, 0.0))
        times = times + 1 if spec == _spec(job) else 1
        wait_s = min(LONGEST_S, FIRST_S * 2.0 ** min(times - 1, 32))
        self._of[key] = (_spec(job), times, now + wait_s)
        return wait_s

    def forget(self, key: Key) -> None:
        """Everything could be created, or the job is gone."""
        self._of.pop(key, None)


def _spec(job: Manifest) -> str:
    """Which spec of which job: it changes with every change of the spec."""
    return f"{job['metadata']['uid']}/{job['metadata'].get('generation')}"

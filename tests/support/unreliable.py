"""An API server that goes wrong for the controller alone, in real time: it dies at a call, or calls fail by chance.

The test itself has a client of its own, which nothing goes wrong for. `support.faults` is the same call by call, for
the server in memory.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

from support.faults import CALLS
from support.scenario import Crash
from trainserve.kube.cluster import ApiError, Cluster, Conflict, Gone
from trainserve.operator.main import Controller

ERRORS = (
    lambda: Conflict("the object has been modified"),
    lambda: ApiError("too many requests", status=429, reason="TooManyRequests"),
    lambda: ApiError("etcdserver: request timed out", status=500),
    lambda: ConnectionError("the connection was reset"),
)


class Dying:
    """`cluster`, until its `left`-th call, watches apart: it is made or not (`after`), and nothing returns from it."""

    def __init__(self, cluster: Cluster, left: int, *, after: bool) -> None:
        self._cluster = cluster
        self._left = left
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in CALLS:
            return method

        async def call(*args: Any, **how: Any) -> Any:
            self._left -= 1
            if self._left >= 0:
                return await method(*args, **how)
            if self._left == -1 and self._after:
                await method(*args, **how)
            raise Crash(name)

        return call


class Failing:
    """`cluster`, of whose calls every third or so is answered by an error, before or after it took effect."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._dice = random.Random(seed)
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in CALLS:
            return method

        async def call(*args: Any, **how: Any) -> Any:
            chance = self._dice.random()
            if chance < 0.2:
                self.failed += 1
                raise self._dice.choice(ERRORS)()
            answer = await method(*args, **how)
            if chance < 0.3:  # it took effect, and the answer was lost
                self.failed += 1
                raise ConnectionError("the connection was reset")
            return answer

        return call

    async def watch(self, *args: Any, **how: Any) -> AsyncIterator[Any]:
        async for event in self._cluster.watch(*args, **how):
            if self._dice.random() < 0.2:
                self.failed += 1
                raise Gone("too old resource version") if self._dice.random() < 0.5 else ConnectionError("reset")
            yield event


async def kept_alive(cluster: Cluster, namespace: str, deaths: list[tuple[int, bool]]) -> None:
    """One controller after another, until cancelled: the first ones die as `deaths` say and are taken from it, the last
    one lives."""
    while deaths:
        left, after = deaths[0]
        try:
            await Controller(Dying(cluster, left, after=after), namespace).run()  # type: ignore[arg-type]
        except BaseExceptionGroup as group:
            if group.subgroup(Crash) is None:
                raise
        del deaths[0]
        await asyncio.sleep(0.05)
    await Controller(cluster, namespace).run()

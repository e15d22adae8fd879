"""What a probe and a scrape ask the operator: /healthz, /readyz, /metrics, served in the event loop that works.

So an answer says more than that a process is there: a loop that hangs gives none.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from aiohttp import web

from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.operator.settings import Address

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"

BEAT_S = 1.0
SILENT_S = 30.0  # a loop without a beat for so long is stuck
STUCK_PASS_S = 1800.0  # a pass that takes longer is no slow one: requests end after a minute each
_CLOSING_S = 1.0  # for answers under way

Problems: TypeAlias = Callable[[], Sequence[str]]  # what is wrong, a sentence each; nothing where all is well


class Heartbeat:
    """Signs of life of the event loop. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._late: deque[float] = deque([0.0], maxlen=10)

    async def run(self) -> None:
        while True:
            due = self._clock() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.beat(late_s=self._clock() - due)

    def beat(self, *, late_s: float) -> None:
        self._last = self._clock()
        self._late.append(max(0.0, late_s))

    def lag_s(self) -> float:
        """The worst of the last ten beats."""
        return max(self._late)

    def problems(self) -> list[str]:
        silent_s = self._clock() - self._last
        return [f"the event loop has given no sign for {silent_s:.0f} s"] if silent_s > SILENT_S else []


@asynccontextmanager
async def serving(
    address: Address, *, health: Problems, ready: Problems, metrics: Callable[[], bytes], metrics_type: str
) -> AsyncIterator[Address]:
    """Answer for the length of the block; gives where. Raises EnvironmentProblem where that cannot be listened on."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": metrics_type})

    application = web.Application()
    application.add_routes(
        [
            web.get(HEALTH_PATH, _check(health, 500)),
            web.get(READY_PATH, _check(ready, 503)),
            web.get(names.METRICS_PATH, page),
        ]
    )
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=_CLOSING_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            raise _refused(address, error) from error
        yield Address(address.host, runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _check(problems: Problems, status: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        found = problems()
        text = "".join(f"{problem}\n" for problem in found)
        return web.Response(status=status, text=text) if found else web.Response(text="ok\n")

    return answer


def _refused(address: Address, error: OSError) -> EnvironmentProblem:
    hints: Mapping[int, str] = {
        errno.EADDRINUSE: "another process listens there: give another --metrics-address, or 0 for none",
        errno.EACCES: "ports below 1024 are for root: give another --metrics-address",
        errno.EADDRNOTAVAIL: "this machine has no such address: use 127.0.0.1, or 0.0.0.0 for all it has",
    }
    return EnvironmentProblem(
        f"--metrics-address {address}: {error.strerror or error}",
        hint=hints.get(error.errno or 0, "give another --metrics-address, or 0 for none"),
    )

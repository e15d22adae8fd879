"""One of several operators works at a time: the one that holds the Lease. `lease.py` has the rules, here is the doing.

An API server that is away ends nothing: a candidate goes on asking, a leader stops working once it could not renew for
the renew deadline, stays, and is a candidate again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Awaitable, Callable

from trainserve.kube import names
from trainserve.kube.cluster import AlreadyExists, ApiError, Cluster, Conflict, Manifest, NotFound
from trainserve.kube.outage import level
from trainserve.machine.clock import elapsed
from trainserve.operator import lease as leases
from trainserve.operator.lease import Timing

log = logging.getLogger(__name__)

_TRIES = 3  # of one attempt: who was quicker is known after one
SILENT = "the API server did not answer in time"  # of a TimeoutError, which has no words of its own
RELEASE_S = 5.0  # longest wait for the API server to take the release; without it others wait the lease's duration


def identity() -> str:
    """Whose lease it is: the host (in a cluster the pod's name) and a number that no other process has."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"


class Election:
    """`await run()` takes the lease when it can and keeps it; `started` and `stopped` are called as that changes.

    `clock` counts seconds, also while the machine sleeps, `wall` gives unix seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        holder: str,
        timing: Timing,
        *,
        started: Callable[[], None],
        stopped: Callable[[], None],
        name: str = names.OPERATOR_LEASE,
        clock: Callable[[], float] = elapsed,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._timing = timing
        self._started = started
        self._stopped = stopped
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._lease: Manifest | None = None  # as it was last seen
        self._stale = True  # the lease must be read before it is written
        self._seen_at = 0.0  # when it became so, by `clock`
        self._until = float("-inf")  # until when we may write, by `clock`
        self._leading = False
        self._told = ""  # the last holder, or problem, that was logged

    @property
    def leading(self) -> bool:
        return self._leading and self.writable_s() > 0

    def writable_s(self) -> float:
        """For how many seconds from now writing is allowed, as far as is known; 0 or less: not at all."""
        return self._until - self._clock()

    async def run(self) -> None:
        """Until cancelled; then `release`."""
        while True:
            await self.step()
            await self._sleep(self._pause_s())

    async def step(self) -> None:
        """One attempt to take or renew the lease."""
        if self._leading and self.writable_s() <= 0:
            self._step_down("it could not be renewed in time")
        began = self._clock()
        # Half the deadline: a request that hangs leaves time for another one.
        limit_s = self._timing.renew_deadline_s / 2
        try:
            async with asyncio.timeout(min(limit_s, self.writable_s()) if self._leading else limit_s):
                held = await self._attempt()
        except (ApiError, OSError) as error:  # TimeoutError is one
            self._stale = True  # what was asked for may have happened all the same
            self._say(f"the lease cannot be renewed or read: {str(error) or SILENT}", level(error))
            return
        if held:
            self._until = began + self._timing.renew_deadline_s
            if self.writable_s() <= 0:  # we were stopped while it was under way
                self._stale = True
            elif not self._leading:
                self._leading = True
                self._say("leading: this operator holds the lease")
                self._started()
        elif self._leading:
            self._step_down("another one has it")

    async def release(self) -> None:
        """Let another one begin at once. Call it when nothing is written any more."""
        if not self._leading:
            return
        self._leading, self._until = False, float("-inf")
        self._stopped()
        try:
            async with asyncio.timeout(RELEASE_S):
                lease = await self._read()
                if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._holder:
                    await self._patch(leases.released(lease, self._wall()))
                    log.info("the lease is released")
        except (ApiError, OSError) as error:
            log.warning(
                "the lease cannot be released: %s; another operator begins in %.0f s",
                str(error) or SILENT,
                self._timing.duration_s,
            )

    async def _attempt(self) -> bool:
        """Whether the lease is ours now."""
        if self._stale:
            await self._read()
        for _ in range(_TRIES):
            lease, now = self._lease, self._wall()
            step = leases.next_step(lease, self._holder, self._clock() - self._seen_at)
            self._stale = True  # until what is done now has succeeded
            if lease is not None and step == "wait":
                self._say(f"waiting: {lease['spec']['holderIdentity']} holds the lease")
                return False
            try:
                if lease is None:
                    fresh = leases.new(self._name, self._namespace, self._holder, self._timing, now)
                    self._see(await self._cluster.create(names.LEASE, self._namespace, fresh))
                else:
                    change = leases.renewed if step == "renew" else leases.taken
                    self._see(await self._patch(change(lease, self._holder, self._timing, now)))
            except NotFound:
                if lease is None:
                    raise  # it is the namespace that is not there
                await self._read()  # somebody has deleted it
            except (Conflict, AlreadyExists):
                await self._read()  # somebody was quicker
            else:
                self._stale = False
                return True
        raise Conflict(f"somebody was quicker {_TRIES} times")

    async def _read(self) -> Manifest | None:
        try:
            self._see(await self._cluster.get(names.LEASE, self._namespace, self._name))
        except NotFound:
            self._lease = None
        return self._lease

    async def _patch(self, change: Manifest) -> Manifest:
        return await self._cluster.patch(names.LEASE, self._namespace, self._name, change)

    def _see(self, lease: Manifest) -> None:
        before = self._lease
        if before is None or before["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            self._seen_at = self._clock()
        self._lease = lease

    def _step_down(self, why: str) -> None:
        self._leading, self._until = False, float("-inf")
        self._say(f"not leading any more: the lease is not ours, {why}", logging.WARNING)
        self._stopped()

    def _pause_s(self) -> float:
        """The retry period, or less: a leader looks again at its deadline, a candidate when it may take over."""
        if self._leading:
            return max(0.0, min(self._timing.retry_s, self.writable_s()))
        if self._lease is None or not (self._lease.get("spec") or {}).get("holderIdentity"):
            return self._timing.retry_s
        left_s = leases.left_s(self._lease, self._clock() - self._seen_at)
        return min(self._timing.retry_s, left_s) if left_s > 0 else self._timing.retry_s

    def _say(self, what: str, level: int = logging.INFO) -> None:
        """Once, not at every attempt."""
        if what != self._told:
            self._told = what
            log.log(level, "%s", what)

"""One pod from its first container to its last process: order, restarts, deletion, deadline, status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainserve.kube.cluster import Manifest
from trainserve.kube.names import REASON_DEADLINE
from trainserve.local.container import Container
from trainserve.local.podspec import CONTAINER_CANNOT_RUN, CannotRun, Process
from trainserve.local.podstatus import CRASH_LOOP, ContainerState, Ended, phase, pod_status
from trainserve.machine import clock

log = logging.getLogger(__name__)

STEADY_S = 600.0  # a container that ran this long starts its back-off anew


class Report(Protocol):
    """Writes a pod's status; False when the pod is gone."""

    async def __call__(self, status: Manifest) -> bool: ...


def restart_delay_s(restarts: int) -> float:
    """Seconds before the next start in place: at once, then 1, 2, 4, ... 30; shorter than a cluster's 5 minutes."""
    return 0.0 if restarts == 0 else min(30.0, 2.0 ** (restarts - 1))


class Translate(Protocol):
    """Init containers and containers of a pod as processes. Raises podspec.CannotRun."""

    async def __call__(self, manifest: Manifest) -> tuple[Sequence[Process], Sequence[Process]]: ...


class Pod:
    """Runs one pod. `update` tells it of each change of its object; `run` returns when no process is left."""

    def __init__(
        self,
        manifest: Manifest,
        pod_dir: Path,
        *,
        processes: Translate,
        report: Report,
        lifeline: int,
        delay_s: Callable[[int], float] = restart_delay_s,
    ) -> None:
        spec = manifest["spec"]
        self.manifest = manifest
        self.pod_dir = pod_dir
        self._processes = processes
        self._report = report
        self._lifeline = lifeline
        self._delay_s = delay_s
        self._init = [_state(container) for container in spec.get("initContainers") or []]
        self._containers = [_state(container) for container in spec["containers"]]
        self._initialized = False
        self._running: list[Container] = []
        self._started = time.time()
        self._began = clock.elapsed()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._reason = self._message = ""
        self._asked: Callable[[], float] | None = None  # to stop, with this grace
        self._killed = False
        self._status: Manifest = manifest.get("status") or {}
        self._writing = asyncio.Lock()

    def update(self, manifest: Manifest) -> None:
        """The pod's object as it is now."""
        self.manifest = manifest
        self._changed.set()

    def kill(self, reason: str = "", message: str = "") -> None:
        """End everything at once. With a `reason` the pod is Failed because of that, whatever its exit codes."""
        self._reason, self._message = reason or self._reason, message or self._message
        self._killed = True
        self._stopping.set()
        for container in self._running:
            container.kill()

    def stop(self, reason: str, message: str, grace_s: float) -> None:
        """End it in order, in its own grace period, at most `grace_s`; Failed for `reason` unless all ended well."""
        if not self._stopping.is_set():  # else it is ending for a reason of its own
            self._reason, self._message = reason, message
        self._asked = lambda: min(grace_s, self._own_grace_s())
        self._changed.set()

    async def run(self) -> None:
        """Run the pod to its end and write its last status."""
        stopper = asyncio.create_task(self._stop_when_told())
        try:
            await self._write()
            await self._run_all()
        except CannotRun as error:
            self._reason, self._message = error.reason, str(error)
            now = time.time()
            for state in (*self._init, *self._containers):
                state.ended = state.ended or Ended(error.code, CONTAINER_CANNOT_RUN, str(error), now, now)
            log.error("pod %s cannot run: %s", self.manifest["metadata"]["name"], error)
        finally:
            stopper.cancel()
        for state in (*self._init, *self._containers):
            state.running_since = None
        if self._asked and phase(self._containers, initialized=self._initialized, over=True) == "Succeeded":
            self._reason = self._message = ""  # it was asked to stop when it was done
        await self._write(over=True)

    async def _run_all(self) -> None:
        init, containers = await self._processes(self.manifest)
        policy = self.manifest["spec"].get("restartPolicy", "Always")
        for state, what in zip(self._init, init, strict=True):
            # An init container that succeeded is done, whatever the policy.
            await self._run_container(state, what, "Never" if policy == "Never" else "OnFailure")
            if state.ended is None or state.ended.code != 0:
                return
        self._initialized = True
        async with asyncio.TaskGroup() as group:
            for state, what in zip(self._containers, containers, strict=True):
                group.create_task(self._run_container(state, what, policy))

    async def _run_container(self, state: ContainerState, what: Process, policy: str) -> None:
        """Start it, and again as the restart policy says."""
        failures = 0
        while not self._stopping.is_set():
            container = Container(what, self.pod_dir, self._lifeline)
            state.waiting, state.waiting_message = "ContainerCreating", ""
            if await container.start():
                state.running_since, state.container_id = container.started, f"process://{container.pid}"
                state.ended = None
                self._running.append(container)
                if self._killed:
                    container.kill()
                elif self._stopping.is_set():
                    container.terminate()
                await self._write()
            ended = await container.wait()
            if container in self._running:
                self._running.remove(container)
            state.running_since, state.ended = None, ended
            if policy == "Never" or (policy == "OnFailure" and ended.code == 0) or self._stopping.is_set():
                await self._write()
                return
            failures = 0 if ended.finished - ended.started > STEADY_S else failures
            await self._back_off(state, ended, self._delay_s(failures))
            failures += 1

    async def _back_off(self, state: ContainerState, ended: Ended, delay_s: float) -> None:
        if delay_s:
            state.waiting, state.waiting_message = CRASH_LOOP, f"back-off {delay_s:g} s restarting failed container"
            state.previous, state.ended = ended, None
            await self._write()
            try:
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            except TimeoutError:
                pass  # the time is over: start again
            else:
                state.ended = ended
                return
        state.previous, state.restarts = ended, state.restarts + 1

    async def _stop_when_told(self) -> None:
        """SIGTERM when the pod is deleted or its deadline has passed, SIGKILL at the end of the grace period."""
        while True:
            meta, spec = self.manifest["metadata"], self.manifest["spec"]
            if "deletionTimestamp" in meta:
                await self._stop(lambda: float(self.manifest["metadata"].get("deletionGracePeriodSeconds", 0)))
                return
            if self._asked is not None:
                await self._stop(self._asked)
                return
            limit = spec.get("activeDeadlineSeconds")
            left = None if limit is None else self._began + limit - clock.elapsed()
            if left is not None and left <= 0:
                self._reason = REASON_DEADLINE
                self._message = f"the pod was active for longer than its deadline of {limit} s"
                await self._stop(self._own_grace_s)
                return
            await self._wait_for_change(left)

    def _own_grace_s(self) -> float:
        meta, spec = self.manifest["metadata"], self.manifest["spec"]
        return float(meta.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30)))

    async def _stop(self, grace_s: Callable[[], float]) -> None:
        """`grace_s` is asked again at each change: a second deletion may shorten it."""
        began = time.monotonic()
        self._stopping.set()
        for container in self._running:
            container.terminate()
        while (left := began + grace_s() - time.monotonic()) > 0:
            await self._wait_for_change(left)
        self.kill()

    async def _wait_for_change(self, timeout_s: float | None) -> None:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    async def _write(self, *, over: bool = False) -> None:
        async with self._writing:  # in order, also from containers that run at the same time
            status = pod_status(
                time.time(),
                old=self._status,
                phase=self._phase(over=over),
                init=self._init,
                containers=self._containers,
                initialized=self._initialized,
                started=self._started,
                reason=self._reason if over else "",
                message=self._message,
            )
            if status != self._status and not await self._report(status):
                self.kill()
            self._status = status

    def _phase(self, *, over: bool) -> str:
        if over and self._reason:
            return "Failed"
        return phase(self._containers, initialized=self._initialized, over=over)


def _state(container: Mapping[str, str]) -> ContainerState:
    return ContainerState(container["name"], container.get("image", ""))

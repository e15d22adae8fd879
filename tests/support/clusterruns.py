"""Runs of a cluster in memory, whose controller and kubelets the test plays, for what a client makes of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from support.containerlogs import NodeLogs
from support.scenario import NAMESPACE, pytorchjob
from trainserve.client.cluster.connect import Place, Session
from trainserve.client.cluster.patience import Patience
from trainserve.client.cluster.run import ClusterRun
from trainserve.client.listener import Listener
from trainserve.kube import names
from trainserve.kube.client import KubeCluster
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339
from trainserve.kube.names import POD, PYTORCHJOB
from trainserve.local.server import MemoryCluster
from trainserve.observe.events import Event

RUN = ClusterRun(Place(None, NAMESPACE), "flowers")


class Heard(Listener):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.events: list[Event] = []

    def notice(self, text: str) -> None:
        self.said.append(text)

    def event(self, event: Event) -> None:
        self.events.append(event)


class Pretended:
    """The server in memory with what only a real one has: logs, and how a deletion spreads."""

    def __init__(self, memory: MemoryCluster, logs: NodeLogs) -> None:
        self._memory = memory
        self._logs = logs
        self.propagations: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    async def delete(self, *place: Any, propagation: str = "Background", **how: Any) -> None:
        self.propagations.append(propagation)
        await self._memory.delete(*place, **how)

    async def read_log(self, namespace: str, pod: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        await self._memory.get(POD, namespace, pod)
        async for piece in self._logs.find(pod, query).read(query):
            yield piece


class Played:
    """One job `flowers` and its pods; each method is what a controller, a scheduler or a kubelet does."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.memory = MemoryCluster(clock=lambda: 1_700_000_000.0, uid=lambda: f"uid-{next(numbers)}")
        self.logs = NodeLogs()
        self.cluster = Pretended(self.memory, self.logs)
        self.heard = Heard()
        cluster = cast("KubeCluster", self.cluster)
        self.session = Session(cluster, Patience(self.heard.notice), self.heard)

    async def create(self, **how: Any) -> Manifest:
        return await self.memory.create(PYTORCHJOB, NAMESPACE, pytorchjob(**how))

    async def conditions(self, *true: str, message: str = "", **status: Any) -> None:
        """The job's conditions, in this order; `status` is the rest of it."""
        now = rfc3339(1_700_000_000.0)
        found = [
            {
                "type": kind,
                "status": "True",
                "reason": kind,
                "message": message or f"it is {kind}",
                "lastTransitionTime": now,
                "lastUpdateTime": now,
            }
            for kind in true
        ]
        await self.status({"conditions": found, **status})

    async def status(self, status: Manifest) -> None:
        await self.memory.patch(PYTORCHJOB, NAMESPACE, "flowers", {"status": status}, subresource="status")

    async def pod(self, name: str = "flowers-master-0", *, generation: int = 1) -> Manifest:
        """It has a node, and its container is to come."""
        _, kind, index = name.rsplit("-", 2)
        manifest: Manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {
                    **names.job_selector("flowers"),
                    names.LABEL_REPLICA_TYPE: kind,
                    names.LABEL_REPLICA_INDEX: index,
                    names.LABEL_GENERATION: str(generation),
                },
            },
            "spec": {"containers": [{"name": "pytorch", "image": "x"}], "nodeName": "node-a", "restartPolicy": "Never"},
        }
        return await self.memory.create(POD, NAMESPACE, manifest)

    async def container(self, name: str, state: Manifest, *, restarts: int = 0, before: Manifest | None = None) -> None:
        """The pod's container is in this state, such as {"running": {}}; `before` is how the start before ended."""
        statuses = [{"name": "pytorch", "restartCount": restarts, "state": state, "ready": "running" in state}]
        if before:
            statuses[0]["lastState"] = {"terminated": before}
        ended = state.get("terminated")
        phase = "Pending" if "waiting" in state and not restarts else "Running"
        if ended:
            phase = "Failed" if ended["exitCode"] else "Succeeded"
        status = {"phase": phase, "containerStatuses": statuses}
        await self.memory.patch(POD, NAMESPACE, name, {"status": status}, subresource="status")

    async def remove(self, name: str) -> None:
        await self.memory.delete(POD, NAMESPACE, name, grace_period_s=0)
        self.logs.forget(name)


async def until(condition: Any, what: str, timeout_s: float = 10.0) -> None:
    """Wait until `condition()` holds."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what}") from None

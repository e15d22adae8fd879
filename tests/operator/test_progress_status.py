"""A job's progress in its status: how often it is written, and where it comes from."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.kubelet import Kubelet
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local.server import MemoryCluster
from trainserve.machine.ports import LOOPBACK
from trainserve.operator.main import Controller
from trainserve.operator.progress import (
    ask_at_address,
)
from trainserve.operator.sync import Caches, Syncer

MINUTES = 2  # simulated


class Counted:
    """A cluster that counts writes of a job's status."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.at: list[float] = []
        self.clock: Callable[[], float] = lambda: 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def patch(self, *args: Any, **kwargs: Any) -> Manifest:
        if kwargs.get("subresource") == "status":
            self.at.append(self.clock())
        patched: Manifest = await self.cluster.patch(*args, **kwargs)
        return patched


@pytest.mark.parametrize("tick_s", [0.7, 7.0])
def test_progress_costs_at_most_one_status_write_in_five_seconds_and_none_when_nothing_changed(tick_s: float) -> None:
    told: dict[str, Any] = {}
    with Scenario(pytorchjob(workers=1), progress=lambda job: dict(told) or None) as scenario:
        counted = Counted(scenario.cluster)
        counted.clock = lambda: scenario.now
        scenario.controller_restarts(counted)  # type: ignore[arg-type]
        scenario.settle()
        scenario.start_pods()
        counted.at.clear()
        began, step = scenario.now, 0
        while scenario.now < began + MINUTES * 60:
            scenario.now += tick_s
            step += 1
            told |= {"epoch": 1, "step": step, "loss": 1 / step, "etaSeconds": 1000.0 - step}
            for _ in range(2):  # a pod's events, a resync: whatever makes the controller look
                scenario.look()
                scenario.sync()
        gaps_s = [later - earlier for earlier, later in itertools.pairwise(counted.at)]
        assert min(gaps_s) > 4  # lastReconcileTime has whole seconds, rounded down: less than 5, and then more
        assert MINUTES * 60 / (5 + tick_s) - 2 <= len(counted.at) <= MINUTES * 60 / 5 + 1
        scenario.wait(5)
        assert scenario.status()["progress"]["step"] == step  # the newest one in the end
        counted.at.clear()
        for _ in range(30):
            scenario.now += 7
            scenario.look()
            scenario.sync()
        assert counted.at == []


def test_a_controller_whose_pods_are_asked_writes_what_they_say_and_their_last_words() -> None:
    """Informers, queue, poller and syncer in real time; the pod is a server on loopback."""
    step = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"epoch": 1, "step": step, "checkpointStep": 1})
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body.encode())
        await writer.drain()
        writer.close()

    async def play() -> None:
        nonlocal step
        server = await asyncio.start_server(speak, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        cluster = MemoryCluster()

        async def ask(pod: Manifest, port: int) -> bytes:
            return await ask_at_address(pod, port, lambda address: True)

        controller = Controller(cluster, NAMESPACE, ask_progress=ask)
        kubelet = Kubelet(cluster, NAMESPACE, time.time)
        running = asyncio.create_task(controller.run())

        async def progress() -> Any:
            found = await cluster.get(names.PYTORCHJOB, NAMESPACE, "flowers")
            return (found.get("status") or {}).get("progress")

        async def until(what: Callable[[], Awaitable[Any]]) -> None:
            async with asyncio.timeout(20):
                while not await what():
                    await asyncio.sleep(0.01)

        async def there() -> bool:
            return len((await cluster.list(names.POD, NAMESPACE)).items) == 2

        wanted = pytorchjob(workers=1)
        container = wanted["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
        container["ports"] = [{"name": names.PROGRESS_PORT_NAME, "containerPort": port}]
        await cluster.create(names.PYTORCHJOB, NAMESPACE, wanted)
        await until(there)
        step = 7
        await kubelet.start()
        status = {"status": {"podIP": LOOPBACK}}
        await cluster.patch(names.POD, NAMESPACE, "flowers-master-0", status, subresource="status")
        await until(progress)
        assert await progress() == {"epoch": 1, "step": 7, "checkpointStep": 1}
        last = json.dumps({"progress": {"epoch": 2, "step": 9, "etaSeconds": 0.0}})
        await kubelet.end("flowers-master-0", 0, message=last)

        async def succeeded() -> bool:
            found = await cluster.get(names.PYTORCHJOB, NAMESPACE, "flowers")
            return bool(found["status"].get("completionTime"))

        await until(succeeded)
        assert await progress() == {"epoch": 2, "step": 9, "etaSeconds": 0.0}
        controller.stop()
        await asyncio.wait_for(running, 10)
        server.close()
        await server.wait_closed()

    asyncio.run(play())


@pytest.mark.parametrize(("again_s", "expected"), [(5.0, 5.0), (None, None)])
def test_a_job_whose_source_tells_by_itself_is_not_looked_at_every_five_seconds(
    again_s: float | None, expected: float | None
) -> None:
    with Scenario(pytorchjob(workers=0)) as scenario:
        scenario.settle()
        scenario.start_pods()
        caches = Caches(
            job=lambda namespace, name: scenario._seen["jobs"][0],
            pods=lambda uid: scenario._seen["pods"],
            services=lambda uid: scenario._seen["services"],
        )
        syncer = Syncer(
            scenario.cluster,
            caches,
            clock=lambda: scenario.now,
            progress_source=lambda job: {"epoch": 1},
            progress_again_s=again_s,
        )
        for _ in range(2):
            scenario.look()
            found_s = scenario.run(syncer.sync((NAMESPACE, "flowers")))
        assert found_s == expected
        assert scenario.status()["progress"] == {"epoch": 1}

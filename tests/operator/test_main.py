"""The controller with its informers and its queue, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.kubelet import Kubelet
from support.scenario import NAMESPACE, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Conflict, Manifest
from trainserve.local.server import MemoryCluster
from trainserve.operator.main import Controller
from trainserve.operator.telemetry import Telemetry


async def _until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await what():
            await asyncio.sleep(0.005)


def _play(body: Callable[[MemoryCluster, Kubelet], Awaitable[None]], wrap: Callable[[Any], Any] = lambda c: c) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        cluster = MemoryCluster(clock=loop.time)
        controller = Controller(wrap(cluster), NAMESPACE, clock=loop.time)
        running = asyncio.create_task(controller.run())
        await body(cluster, Kubelet(cluster, NAMESPACE, loop.time))
        controller.stop()
        await asyncio.wait_for(running, 5)

    asyncio.run(play())


async def _state(cluster: MemoryCluster, name: str = "flowers") -> str:
    job = await cluster.get(names.PYTORCHJOB, NAMESPACE, name)
    conditions: list[Manifest] = (job.get("status") or {}).get("conditions") or [{"type": ""}]
    return str(conditions[-1]["type"])


async def _pods(cluster: MemoryCluster) -> list[Manifest]:
    return (await cluster.list(names.POD, NAMESPACE)).items


def test_a_job_from_creation_over_a_restart_to_its_end() -> None:
    async def body(cluster: MemoryCluster, kubelet: Kubelet) -> None:
        async def generation_2() -> bool:
            await kubelet.finish_deletions()
            return [pod["metadata"]["labels"][names.LABEL_GENERATION] for pod in await _pods(cluster)] == ["2"] * 3

        async def in_state(wanted: str) -> bool:
            return await _state(cluster) == wanted

        async def all_there() -> bool:
            return len(await _pods(cluster)) == 3

        await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob(backoffLimit=1))
        await _until(all_there)
        await kubelet.start()
        await _until(lambda: in_state("Running"))
        await kubelet.end("flowers-worker-1", 139)
        await _until(generation_2)
        await kubelet.start()
        await _until(lambda: in_state("Running"))
        await kubelet.end("flowers-master-0", 0)
        await _until(lambda: in_state("Succeeded"))
        job = await cluster.get(names.PYTORCHJOB, NAMESPACE, "flowers")
        assert job["status"]["restarts"] == 1

    _play(body)


def test_a_deadline_and_a_time_to_live_pass_with_nothing_else_happening() -> None:
    async def body(cluster: MemoryCluster, kubelet: Kubelet) -> None:
        async def gone() -> bool:
            return not (await cluster.list(names.PYTORCHJOB, NAMESPACE)).items

        job = pytorchjob(activeDeadlineSeconds=1, ttlSecondsAfterFinished=1)
        await cluster.create(names.PYTORCHJOB, NAMESPACE, job)
        await _until(gone)
        assert await _pods(cluster) == []

    _play(body)


@pytest.mark.parametrize("lost", ["labels", "ownerReferences"])
def test_a_pod_whose_label_or_owner_somebody_has_taken_away_is_heard_of_all_the_same(lost: str) -> None:
    whole: dict[str, Any] = {
        "namespace": NAMESPACE,
        "name": "flowers-worker-0",
        "labels": {names.LABEL_JOB_NAME: "flowers"},
        "ownerReferences": [{"kind": names.PYTORCHJOB.kind, "name": "flowers", "uid": "1", "controller": True}],
    }
    changed = {"metadata": {key: value for key, value in whole.items() if key != lost}}
    bare = {"metadata": {key: whole[key] for key in ("namespace", "name")}}
    for before, after in (({"metadata": whole}, bare), (bare, {"metadata": whole}), (changed, None)):
        controller = Controller(MemoryCluster(), NAMESPACE)
        controller._child_changed(before, after)
        assert controller.queue.depth() == 1, (before, after)


def test_many_jobs_at_once() -> None:
    async def body(cluster: MemoryCluster, kubelet: Kubelet) -> None:
        async def all_there() -> bool:
            return len(await _pods(cluster)) == 60

        for index in range(20):
            await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob(f"job-{index}"))
        await _until(all_there)
        for event in (await cluster.list(names.EVENT, NAMESPACE)).items:
            assert event["count"] == 1, event

    _play(body)


def test_conflicts_are_tried_again() -> None:
    class Busy:
        """Every third status write finds that somebody was quicker."""

        def __init__(self, cluster: MemoryCluster) -> None:
            self.cluster = cluster
            self.patches = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cluster, name)

        async def patch(self, *args: Any, **kwargs: Any) -> Manifest:
            self.patches += 1
            if self.patches % 3 == 1:
                raise Conflict("somebody was quicker")
            return await self.cluster.patch(*args, **kwargs)

    async def body(cluster: MemoryCluster, kubelet: Kubelet) -> None:
        async def running() -> bool:
            await kubelet.start()
            return await _state(cluster) == "Running"

        await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob())
        await _until(running)

    _play(body, Busy)


def test_a_bug_that_one_job_brings_out_does_not_stop_the_others() -> None:
    class Cursed:
        def __init__(self, cluster: MemoryCluster) -> None:
            self.cluster = cluster

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cluster, name)

        async def patch(self, kind: names.Kind, namespace: str, name: str, *args: Any, **kwargs: Any) -> Manifest:
            if name == "cursed":
                raise ZeroDivisionError
            return await self.cluster.patch(kind, namespace, name, *args, **kwargs)

    async def body(cluster: MemoryCluster, kubelet: Kubelet) -> None:
        async def created() -> bool:
            return await _state(cluster) == "Created"

        await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob("cursed"))
        await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob())
        await _until(created)

    _play(body, Cursed)


def test_who_stands_by_keeps_no_queue_counts_nothing_and_begins_with_all_that_is_there() -> None:
    class Told(Telemetry):
        def __init__(self) -> None:
            self.gone: list[str] = []

        def job_changed(self, before: Manifest | None, after: Manifest | None) -> None:
            if before is not None and after is None:
                self.gone.append(before["metadata"]["name"])

    async def play() -> None:
        loop = asyncio.get_running_loop()
        cluster, told = MemoryCluster(clock=loop.time), Told()
        controller = Controller(cluster, NAMESPACE, clock=loop.time, leading=False, telemetry=told)
        running = asyncio.create_task(controller.run())

        async def known(count: int) -> bool:
            return len(list(controller.jobs())) == count

        async def all_there() -> bool:
            return len(await _pods(cluster)) == 3

        for name in ("a", "b", "flowers"):
            await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob(name))
        await _until(lambda: known(3))
        for name in ("a", "b"):
            await cluster.delete(names.PYTORCHJOB, NAMESPACE, name)
        await _until(lambda: known(1))
        assert controller.queue.depth() == 0
        assert await _pods(cluster) == []
        controller.lead()
        await _until(all_there)
        controller.follow()
        await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob("c"))
        await _until(lambda: known(2))
        assert controller.queue.depth() == 0
        assert told.gone == []
        controller.lead()
        await cluster.delete(names.PYTORCHJOB, NAMESPACE, "flowers")
        await _until(lambda: known(1))
        assert told.gone == ["flowers"]
        controller.stop()
        await asyncio.wait_for(running, 5)

    asyncio.run(play())


def test_it_stops_after_the_lead_was_lost_with_jobs_in_the_queue() -> None:
    """A worker that got such a key again and again would not let the event loop come to the end."""

    async def play() -> None:
        controller = Controller(MemoryCluster(), NAMESPACE)
        controller.queue.add((NAMESPACE, "flowers"))
        controller.follow()
        controller.stop()
        assert await controller.queue.get() is None
        await asyncio.wait_for(controller.run(), 5)

    asyncio.run(play())


def test_it_stops_before_its_caches_were_ever_filled() -> None:
    class Silent:
        def __init__(self, cluster: MemoryCluster) -> None:
            self.cluster = cluster

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cluster, name)

        async def list(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.Event().wait()

    async def body(cluster: MemoryCluster, kubelet: Kubelet) -> None:
        await asyncio.sleep(0.01)

    _play(body, Silent)

"""Kinds that a server may not have, and what the nodes have free."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.gangs import serving
from support.scenario import NAMESPACE, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Cluster, Forbidden, Manifest, Page
from trainserve.kube.podgroup import pod_group
from trainserve.local import schema
from trainserve.local.resources import RESOURCES, Resource
from trainserve.local.server import MemoryCluster
from trainserve.operator import capacity as capacities
from trainserve.operator.capacity import EVERY_S, FORBIDDEN_S, Capacity
from trainserve.operator.optional import LOOK_EVERY_S, OptionalCache
from trainserve.operator.pytorchjob.observed import Facilities, Observed
from trainserve.operator.pytorchjob.reading import observe
from trainserve.operator.settings import GangSetting
from trainserve.operator.surroundings import Surroundings
from trainserve.spec.pytorchjob import default

OURS = {names.LABEL_OPERATOR_NAME: names.OPERATOR_NAME}


class Server:
    """A server in memory whose kinds the test switches on and off, and which may refuse."""

    def __init__(self, *kinds: names.Kind) -> None:
        self.cluster = MemoryCluster(resources=serving(names.POD_GROUP, names.AUTOSCALER, names.VOLCANO_POD_GROUP))
        self.kinds = set(kinds)
        self.refusal: Exception | None = None
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def serves(self, kind: names.Kind) -> bool:
        self.calls.append("serves")
        if isinstance(self.refusal, OSError):
            raise self.refusal
        return kind in self.kinds

    async def list(self, kind: names.Kind, *args: Any, **options: Any) -> Any:
        self.calls.append(f"list {kind}")
        if self.refusal is not None:
            raise self.refusal
        return await self.cluster.list(kind, *args, **options)


class Sleep:
    """Every sleep ends when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, asyncio.Event]] = []

    async def __call__(self, seconds: float) -> None:
        over = asyncio.Event()
        self.waiting.append((seconds, over))
        await over.wait()

    async def pass_by(self) -> list[float]:
        """All that sleep now wake up; returns for how long they wanted to."""
        await _quiet()
        ended, self.waiting = self.waiting, []
        for _, over in ended:
            over.set()
        await _quiet()
        return [seconds for seconds, _ in ended]


async def _quiet() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def _play(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 10))


async def _job(server: Server) -> Manifest:
    return default(await server.create(names.PYTORCHJOB, NAMESPACE, pytorchjob()))


def test_a_kind_that_is_served_later_is_used_then_and_no_longer_when_it_is_gone() -> None:
    async def body() -> None:
        server, sleep = Server(), Sleep()
        cache = OptionalCache(server, names.POD_GROUP, [NAMESPACE], OURS, sleep=sleep)  # type: ignore[arg-type]
        heard: list[str] = []
        cache.add_handler(lambda before, after: heard.append((after or before or {})["metadata"]["name"]))
        running = asyncio.create_task(cache.run())
        await cache.known.wait()
        assert not cache.served
        assert "list PodGroup" not in server.calls
        job = await _job(server)
        await server.create(names.POD_GROUP, NAMESPACE, pod_group(job, 1, "kubernetes"))
        server.kinds.add(names.POD_GROUP)
        assert await sleep.pass_by() == [LOOK_EVERY_S]
        assert cache.served
        assert [found["metadata"]["name"] for found in cache.owned(job["metadata"]["uid"])] == ["flowers-g1"]
        assert heard == ["flowers-g1"]
        server.kinds.clear()
        await sleep.pass_by()
        assert not cache.served
        assert cache.owned(job["metadata"]["uid"]) == []
        running.cancel()

    _play(body)


def test_a_kind_that_may_not_be_read_is_done_without() -> None:
    async def body() -> None:
        server, sleep = Server(names.POD_GROUP), Sleep()
        server.refusal = Forbidden("podgroups is forbidden")
        cache = OptionalCache(server, names.POD_GROUP, [None], OURS, sleep=sleep)  # type: ignore[arg-type]
        running = asyncio.create_task(cache.run())
        await cache.known.wait()
        assert not cache.served
        server.refusal = None
        await sleep.pass_by()
        assert cache.served
        running.cancel()

    _play(body)


def test_a_server_that_is_away_is_asked_again_before_anything_is_known() -> None:
    async def body() -> None:
        server, sleep = Server(names.POD_GROUP), Sleep()
        server.refusal = ConnectionError("away")
        cache = OptionalCache(server, names.POD_GROUP, [None], OURS, sleep=sleep)  # type: ignore[arg-type]
        running = asyncio.create_task(cache.run())
        await sleep.pass_by()
        assert not cache.known.is_set()
        server.refusal = None
        await sleep.pass_by()
        assert cache.known.is_set()
        assert cache.served
        server.refusal = ConnectionError("away again")
        await sleep.pass_by()
        assert cache.served  # it comes back with its kinds
        running.cancel()

    _play(body)


@pytest.mark.parametrize(
    ("setting", "served", "gang", "no_gang"),
    [
        ("auto", names.POD_GROUP, "kubernetes", ""),
        ("auto", names.VOLCANO_POD_GROUP, "none", ""),
        ("volcano", names.VOLCANO_POD_GROUP, "volcano", ""),
        ("none", names.POD_GROUP, "none", ""),
        (
            "volcano",
            names.POD_GROUP,
            "none",
            "pods are placed one by one, not by volcano: this cluster has no PodGroup of scheduling.volcano.sh/v1beta1",
        ),
    ],
)
def test_which_scheduler_of_gangs_is_used(setting: GangSetting, served: names.Kind, gang: str, no_gang: str) -> None:
    async def body() -> None:
        server, sleep = Server(served), Sleep()
        around = Surroundings(server, [None], gang=setting, sleep=sleep)  # type: ignore[arg-type]
        running = asyncio.create_task(around.run())
        await around.known()
        assert around.not_known() == []
        job = await _job(server)
        found = await around.complete(job, Observed(), 0.0)
        assert found.facilities == Facilities(gang=gang, no_gang=no_gang)  # type: ignore[arg-type]
        running.cancel()

    _play(body)


def test_a_jobs_groups_and_autoscalers_are_added_to_what_was_observed() -> None:
    async def body() -> None:
        server = Server(names.POD_GROUP, names.AUTOSCALER)
        job = await _job(server)
        await server.create(names.POD_GROUP, NAMESPACE, pod_group(job, 2, "kubernetes"))
        around = Surroundings(server, [NAMESPACE])  # type: ignore[arg-type]
        running = asyncio.create_task(around.run())
        await around.known()
        found = await around.complete(job, observe(job, (), ()), 0.0)
        assert [(group.name, group.generation) for group in found.pod_groups] == [("flowers-g2", 2)]
        assert found.facilities.autoscaling
        assert found.facilities.room is None
        running.cancel()

    _play(body)


def _nodes() -> MemoryCluster:
    return MemoryCluster(
        resources={**RESOURCES, names.NODE: Resource(names.NODE, schema.CUSTOM_RESOURCE, has_status=True)}
    )


async def _with_node(cluster: Cluster) -> None:
    """The server in memory puts each object into a namespace."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    await cluster.create(names.NODE, NAMESPACE, node)
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "8", "pods": "10"}}
    await cluster.patch(names.NODE, NAMESPACE, "n", {"status": status}, subresource="status")


def test_what_is_free_is_what_the_pods_there_leave_and_is_looked_up_twice_a_minute_at_most() -> None:
    async def body() -> None:
        cluster, now = _nodes(), 0.0
        await _with_node(cluster)
        container = {"name": "a", "image": "i", "resources": {"requests": {"cpu": "3"}}}
        pod: Manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": [container]},
        }
        await cluster.create(names.POD, NAMESPACE, pod)
        capacity = Capacity(cluster, clock=lambda: now)
        (free,) = await capacity.room() or ()
        assert (free.free["cpu"], free.free["pods"]) == (8, 10)  # the pod has no node yet
        await cluster.bind(NAMESPACE, "p", "n")
        (free,) = await capacity.room() or ()
        assert free.free["cpu"] == 8
        now = EVERY_S
        (free,) = await capacity.room() or ()
        assert (free.free["cpu"], free.free["pods"]) == (5, 9)

    _play(body)


def test_a_look_that_takes_long_holds_up_one_pass_and_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacities, "PATIENCE_S", 0.01)

    class Large(Server):
        def __init__(self) -> None:
            super().__init__()
            self.answers = asyncio.Event()

        async def list(self, kind: names.Kind, *args: Any, **options: Any) -> Any:
            await self.answers.wait()
            return Page([], "1", "")

    async def body() -> None:
        server, now = Large(), 0.0
        capacity = Capacity(server, clock=lambda: now)  # type: ignore[arg-type]
        server.answers.set()
        assert await capacity.room() == ()
        server.answers.clear()
        now = EVERY_S
        looking = asyncio.create_task(capacity.room())
        await _quiet()
        assert [await capacity.room() for _ in range(3)] == [(), (), ()]
        assert not looking.done()
        server.answers.set()
        assert await looking == ()

    _play(body)


@pytest.mark.parametrize(
    ("refusal", "pause_s"), [(Forbidden("nodes is forbidden"), FORBIDDEN_S), (ApiError("busy", status=503), EVERY_S)]
)
def test_nodes_that_cannot_be_seen_are_not_asked_for_again_at_once(refusal: ApiError, pause_s: float) -> None:
    async def body() -> None:
        server, now = Server(), 0.0
        server.refusal = refusal
        capacity = Capacity(server, clock=lambda: now)  # type: ignore[arg-type]
        assert await capacity.room() is None
        asked = len(server.calls)
        now = pause_s - 1
        assert await capacity.room() is None
        assert len(server.calls) == asked
        now = pause_s
        assert await capacity.room() is None
        assert len(server.calls) == asked + 1

    _play(body)

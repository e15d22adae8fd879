"""The informer against the server in memory, with a network that can fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.server import eventually, names_of, owner_reference, pod
from trainserve.kube.cluster import ApiError, Gone, Manifest, Page, WatchEvent
from trainserve.kube.informer import Backoff, Informer, by_owner_uid
from trainserve.kube.names import NODE, POD, Kind
from trainserve.local.server import MemoryCluster

NAMESPACE = "a"
Change = tuple[str | None, str | None]


class Network:
    """A way to `server` on which lists and watches fail as told: each takes the next of its faults.

    A fault of a watch is an error to raise at once, or the number of events after which it ends.
    """

    def __init__(self, server: MemoryCluster) -> None:
        self.server = server
        self.list_faults: deque[Exception] = deque()
        self.watch_faults: deque[Exception | int] = deque()
        self.lists: list[str] = []  # continue tokens asked with
        self.watches: list[str] = []  # versions asked from

    async def list(self, kind: Kind, namespace: str | None, **options: Any) -> Page:
        self.lists.append(options["continue_token"])
        if self.list_faults:
            raise self.list_faults.popleft()
        return await self.server.list(kind, namespace, **options)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        resource_version: str,
        timeout_s: float = 300.0,
    ) -> AsyncIterator[WatchEvent]:
        self.watches.append(resource_version)
        fault = self.watch_faults.popleft() if self.watch_faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault == 0:
            return
        watch = self.server.watch(
            kind, namespace, labels=labels, resource_version=resource_version, timeout_s=timeout_s
        )
        count = 0
        async for event in watch:
            if fault is not None and count >= fault:
                return
            count += 1
            yield event


class Waits:
    """Sleeps no time, and remembers for how long."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


class Bench:
    """A server, a network to it and a running informer with all its seams in hand."""

    def __init__(self, **options: Any) -> None:
        self.server = MemoryCluster()
        self.network = Network(self.server)
        self.waits = Waits()
        self.changes: list[Change] = []
        seams: dict[str, Any] = {"sleep": self.waits, "chance": lambda: 0.0, "namespace": NAMESPACE, **options}
        self.informer = Informer(self.network, POD, **seams)  # type: ignore[arg-type]
        self.informer.add_handler(self.record)

    def record(self, before: Manifest | None, after: Manifest | None) -> None:
        name, other = (item and f"{item['metadata']['name']}@{mark(item)}" for item in (before, after))
        self.changes.append((name or None, other or None))

    async def create(self, *names: str, **fields: Any) -> None:
        for name in names:
            await self.server.create(POD, NAMESPACE, pod(name, **fields))

    async def mark(self, name: str, value: str) -> None:
        await self.server.patch(POD, NAMESPACE, name, {"metadata": {"labels": {"mark": value}}})

    def cached(self) -> list[Manifest]:
        """All that the informer holds, ordered by namespace and name."""
        return [found for _, found in sorted(self.informer._objects.items(), key=lambda pair: pair[0])]

    async def caught_up(self) -> None:
        async def same() -> bool:
            return self.cached() == (await self.server.list(POD, NAMESPACE)).items

        await eventually(same, within_s=5)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.informer.run())
        try:
            await asyncio.wait_for(self.informer.synced.wait(), timeout=5)
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def mark(item: Manifest) -> str:
    return str(item["metadata"].get("labels", {}).get("mark", ""))


def by_mark(item: Manifest) -> set[str]:
    return {mark(item)} - {""}


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), timeout=20)

    asyncio.run(bounded())


def test_what_exists_is_there_when_synced() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.create("b", "a")
        assert not bench.informer.synced.is_set()
        async with bench.running():
            assert names_of(bench.cached()) == ["a", "b"]
            assert bench.informer.get(NAMESPACE, "a") == await bench.server.get(POD, NAMESPACE, "a")
            assert bench.informer.get(NAMESPACE, "c") is None
            assert sorted(after or "" for _, after in bench.changes) == ["a@", "b@"]

    run(scenario)


def test_handlers_see_additions_updates_and_deletions() -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.running():
            await bench.create("a")
            await bench.mark("a", "1")
            await bench.server.delete(POD, NAMESPACE, "a")
            await eventually(lambda: done(len(bench.changes) == 3))
        assert bench.changes == [(None, "a@"), ("a@", "a@1"), ("a@1", None)]

    run(scenario)


async def done(value: bool) -> bool:
    return value


def test_a_late_handler_is_told_what_exists() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.create("b", "a")
        late: list[Change] = []
        async with bench.running():
            bench.informer.add_handler(lambda _, after: late.append((None, after and after["metadata"]["name"])))
        assert late == [(None, "a"), (None, "b")]

    run(scenario)


def test_lists_come_in_pages() -> None:
    async def scenario() -> None:
        bench = Bench(page_size=2)
        await bench.create("a", "b", "c", "d", "e")
        async with bench.running():
            assert len(bench.cached()) == 5
        assert len(bench.network.lists) == 3
        assert bench.network.lists[0] == ""

    run(scenario)


def test_only_the_selected_are_kept() -> None:
    async def scenario() -> None:
        bench = Bench(labels={"mine": "yes"})
        await bench.create("a", labels={"mine": "yes"})
        await bench.create("b")
        async with bench.running():
            await bench.create("c", labels={"mine": "yes"})
            await eventually(lambda: done(names_of(bench.cached()) == ["a", "c"]))
            await bench.server.patch(POD, NAMESPACE, "a", {"metadata": {"labels": {"mine": None}}})
            await eventually(lambda: done(names_of(bench.cached()) == ["c"]))

    run(scenario)


def test_a_watch_that_ended_is_taken_up_where_it_was() -> None:
    async def scenario() -> None:
        bench = Bench(watch_timeout_s=0.05, steady_s=0.01)
        async with bench.running():
            await bench.create("a")
            await bench.caught_up()
            await eventually(lambda: done(len(bench.network.watches) >= 3))
        assert len(bench.network.lists) == 1
        assert bench.waits.seconds == []
        assert bench.network.watches[-1] == (await bench.server.list(POD, NAMESPACE)).resource_version

    run(scenario)


def test_bookmarks_advance_the_version() -> None:
    async def scenario() -> None:
        bench = Bench(watch_timeout_s=0.05, steady_s=0.01)
        async with bench.running():
            for index in range(3):
                await bench.server.create(POD, "elsewhere", pod(f"x{index}"))
            version = (await bench.server.list(POD, NAMESPACE)).resource_version
            await eventually(lambda: done(version in bench.network.watches))
            bench.server.compact()  # nothing to fear: what is forgotten is behind
            await eventually(lambda: done(len(bench.network.watches) >= 4))
        assert len(bench.network.lists) == 1

    run(scenario)


def test_gone_means_a_new_list_that_finds_what_was_missed() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.create("keep", "delete", "change", "replace")
        bench.network.watch_faults.extend([0])  # the first watch ends at once ...
        released = asyncio.Event()

        async def sleep(_: float) -> None:
            await released.wait()  # ... and the informer is away

        bench.informer._sleep = sleep
        async with bench.running():
            await bench.server.delete(POD, NAMESPACE, "delete")
            await bench.mark("change", "1")
            await bench.server.delete(POD, NAMESPACE, "replace")
            await bench.create("replace", "new")
            bench.server.compact()
            bench.changes.clear()
            released.set()
            await bench.caught_up()
        assert sorted(bench.changes, key=str) == sorted(
            [
                ("delete@", None),
                ("change@", "change@1"),
                ("replace@", None),
                (None, "replace@"),
                (None, "new@"),
            ],
            key=str,
        )
        assert bench.changes.index(("replace@", None)) < bench.changes.index((None, "replace@"))
        assert len(bench.network.lists) == 2

    run(scenario)


def test_the_first_gone_waits_not_and_the_next_ones_do() -> None:
    async def scenario() -> None:
        bench = Bench(backoff=Backoff(first_s=1, limit_s=30, jitter=0))
        bench.network.watch_faults.extend([Gone("too old")] * 4)
        async with bench.running():
            await eventually(lambda: done(len(bench.network.watches) == 5))
        assert bench.waits.seconds == [2, 4, 8]
        assert len(bench.network.lists) == 5

    run(scenario)


def test_a_server_that_is_back_and_forgot_the_version_is_listed_at_once() -> None:
    async def scenario() -> None:
        bench = Bench(backoff=Backoff(first_s=1, limit_s=30, jitter=0))
        bench.network.watch_faults.extend([OSError("refused"), OSError("refused"), OSError("refused"), Gone("too old")])
        async with bench.running():
            await eventually(lambda: done(len(bench.network.watches) == 5))
        assert bench.waits.seconds == [1, 2, 4]
        assert len(bench.network.lists) == 2

    run(scenario)


def test_no_busy_loop_when_watches_end_at_once() -> None:
    async def scenario() -> None:
        bench = Bench(backoff=Backoff(first_s=1, limit_s=30, jitter=0))
        bench.network.watch_faults.extend([0] * 7)
        async with bench.running():
            await eventually(lambda: done(len(bench.network.watches) == 8))
        assert bench.waits.seconds == [1, 2, 4, 8, 16, 30, 30]

    run(scenario)


def test_a_change_ends_the_row_of_failures() -> None:
    async def scenario() -> None:
        bench = Bench(backoff=Backoff(first_s=1, limit_s=30, jitter=0))
        bench.network.watch_faults.extend([OSError("no route"), OSError("no route"), 1, OSError("no route")])
        async with bench.running():
            await eventually(lambda: done(len(bench.network.watches) == 3))
            await bench.create("a", "b")
            await eventually(lambda: done(len(bench.network.watches) == 5))
        assert bench.waits.seconds == [1, 2, 1]

    run(scenario)


@pytest.mark.parametrize("fault", [ApiError("etcd is away"), OSError("refused"), TimeoutError()])
def test_a_list_is_tried_again(fault: Exception) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.network.list_faults.extend([fault, fault])
        await bench.create("a")
        async with bench.running():
            assert names_of(bench.cached()) == ["a"]
        assert len(bench.waits.seconds) == 2

    run(scenario)


@pytest.mark.parametrize(("fault", "lists"), [(OSError("reset"), 1), (ApiError("x", status=500), 1), (Gone("x"), 2)])
def test_only_a_lost_version_needs_a_new_list(fault: Exception, lists: int) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.network.watch_faults.append(fault)
        async with bench.running():
            await eventually(lambda: done(len(bench.network.watches) == 2))
        assert len(bench.network.lists) == lists

    run(scenario)


def test_a_server_set_back_is_listed_anew() -> None:
    async def scenario() -> None:
        bench = Bench(watch_timeout_s=0.05, steady_s=0.01)
        await bench.create("a", "b", "c")
        async with bench.running():
            bench.network.server = bench.server = MemoryCluster()
            await bench.create("only")
            await eventually(lambda: done(names_of(bench.cached()) == ["only"]))

    run(scenario)


def test_a_handlers_bug_is_not_swallowed() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.create("a")

        def broken(_: Manifest | None, __: Manifest | None) -> None:
            raise ZeroDivisionError

        bench.informer.add_handler(broken)
        with pytest.raises(ZeroDivisionError):
            await bench.informer.run()

    run(scenario)


def test_indexes_follow_the_cache() -> None:
    async def scenario() -> None:
        bench = Bench(indexes={"owner": by_owner_uid, "mark": by_mark})
        owner = await bench.server.create(POD, NAMESPACE, pod("owner"))
        await bench.create("a", "b", owner=owner)
        uid = owner_reference(owner)["uid"]
        async with bench.running():
            assert names_of(list(bench.informer.indexed("owner", uid))) == ["a", "b"]
            assert list(bench.informer.indexed("mark", "1")) == []
            for value in ("1", "2"):
                await bench.mark("b", value)
            await bench.server.delete(POD, NAMESPACE, "a")
            await bench.caught_up()
            assert names_of(list(bench.informer.indexed("owner", uid))) == ["b"]
            assert names_of(list(bench.informer.indexed("mark", "2"))) == ["b"]
            assert list(bench.informer.indexed("mark", "1")) == []
            assert set(bench.informer._indexed["mark"]) == {"2"}  # what is no more takes no memory

    run(scenario)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_delays_are_bounded(failures: int, chance: float) -> None:
    backoff = Backoff(first_s=0.5, limit_s=30, jitter=1)
    assert 0.5 <= backoff.delay_s(failures, chance) <= 60


steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "mark", "delete", "compact", "wait", "gone", "cut", "reset", "list-fails"]),
        st.sampled_from(["a", "b", "c", "d"]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps)
def test_the_cache_becomes_the_servers_state(sequence: list[tuple[str, str]]) -> None:
    async def scenario() -> None:
        bench = Bench(indexes={"mark": by_mark}, watch_timeout_s=0.001, steady_s=0.0, page_size=2, backoff=Backoff(0))
        async with bench.running():
            for number, (verb, name) in enumerate(sequence):
                with contextlib.suppress(ApiError):
                    if verb == "create":
                        await bench.create(name)
                    elif verb == "mark":
                        await bench.mark(name, str(number % 3))
                    elif verb == "delete":
                        await bench.server.delete(POD, NAMESPACE, name)
                    elif verb == "compact":
                        bench.server.compact()
                    elif verb == "wait":
                        await asyncio.sleep(0.002)
                    elif verb == "list-fails":
                        bench.network.list_faults.append(ApiError("not now"))
                    else:
                        faults: dict[str, Exception | int] = {"gone": Gone("x"), "cut": 1, "reset": OSError("x")}
                        bench.network.watch_faults.append(faults[verb])
            await bench.caught_up()
            assert consistent(bench.changes) == {item["metadata"]["name"]: mark(item) for item in bench.cached()}
            for value in ("0", "1", "2"):
                marked = [item for item in bench.cached() if mark(item) == value]
                assert list(bench.informer.indexed("mark", value)) == marked

    run(scenario)


def consistent(changes: list[Change]) -> dict[str, str]:
    """The state that handlers were told of; each change must fit the state before it."""
    state: dict[str, str] = {}
    for before, after in changes:
        name = (before or after or "").partition("@")[0]
        assert (name in state) == (before is not None)
        if after is None:
            del state[name]
        else:
            state[name] = after.partition("@")[2]
    return state


def test_a_kind_without_a_namespace() -> None:
    """Its objects have none in their metadata."""

    class Nodes:
        async def list(self, kind: Kind, namespace: str | None, **_: Any) -> Page:
            assert (kind, namespace) == (NODE, None)
            return Page([{"metadata": {"name": "n1", "uid": "u1", "resourceVersion": "1"}}], "1")

        async def watch(self, *_: object, **__: object) -> AsyncIterator[WatchEvent]:
            yield WatchEvent("ADDED", {"metadata": {"name": "n2", "uid": "u2", "resourceVersion": "2"}})
            yield WatchEvent("DELETED", {"metadata": {"name": "n1", "uid": "u1", "resourceVersion": "3"}})
            await asyncio.sleep(3600)

    async def play() -> None:
        informer = Informer(Nodes(), NODE, None)  # type: ignore[arg-type]  # of the protocol, what it uses
        task = asyncio.create_task(informer.run())

        async def told() -> bool:
            return [node["metadata"]["name"] for node in informer.all()] == ["n2"]

        await eventually(told, within_s=5)
        assert informer.get("", "n2") is not None
        assert str(informer) == "nodes"
        task.cancel()

    asyncio.run(play())

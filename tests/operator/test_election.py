"""Operators that want one lease: on the server in memory, by a clock that the test sets and a network that it cuts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Conflict, Manifest, NotFound
from trainserve.local.server import MemoryCluster
from trainserve.operator.election import Election
from trainserve.operator.fence import Fenced, LeaseLost
from trainserve.operator.lease import Timing

NAMESPACE = "team"
POD: Manifest = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "flowers", "namespace": NAMESPACE},
    "spec": {"containers": [{"name": "main", "image": "localhost/x:1"}]},
}


@pytest.fixture(autouse=True)
def _captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("trainserve"), "propagate", True)  # whatever another test has set up


class World:
    """A server, a clock for all, and operators by name."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.server = MemoryCluster(clock=lambda: self.now)
        self.told: list[str] = []

    def operator(self, name: str) -> Operator:
        return Operator(self, name)

    async def lease(self) -> Manifest:
        found: Manifest = (await self.server.get(names.LEASE, NAMESPACE, names.OPERATOR_LEASE))["spec"]
        return found


class Operator:
    """What it asks of the server can be made to fail: `fault` is raised before a request, `lost` after it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.fault: Exception | None = None
        self.lost: Exception | None = None
        self.hangs = False
        self.requests = 0
        self.election = Election(
            self,  # type: ignore[arg-type]  # of the protocol, what an election uses
            NAMESPACE,
            name,
            Timing(),
            started=lambda: world.told.append(f"{name} leads"),
            stopped=lambda: world.told.append(f"{name} follows"),
            clock=lambda: world.now,
            wall=lambda: world.now,
        )
        self.cluster = Fenced(world.server, self.election.writable_s)

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            self.requests += 1
            if self.hangs:
                await asyncio.sleep(3600)
            if self.fault is not None:
                raise self.fault
            answer = await getattr(self.world.server, name)(*args, **kwargs)
            if self.lost is not None:
                raise self.lost
            return answer

        return ask

    @property
    def leads(self) -> bool:
        return self.election.leading


def play(body: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await body(World())

    asyncio.run(run())


def test_the_first_one_leads_and_the_second_waits() -> None:
    async def body(world: World) -> None:
        first, second = world.operator("a"), world.operator("b")
        for operator in (first, second, first, second):
            await operator.election.step()
        assert (first.leads, second.leads) == (True, False)
        assert world.told == ["a leads"]
        assert (await world.lease())["holderIdentity"] == "a"

    play(body)


def test_a_renewal_is_one_request() -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        await first.election.step()
        for _ in range(5):
            world.now += 2
            before = first.requests
            await first.election.step()
            assert first.requests == before + 1
        lease = await world.lease()
        assert lease["renewTime"].startswith("1970-01-01T00:16:50")
        assert lease["leaseTransitions"] == 0

    play(body)


def test_a_silent_leader_is_succeeded_after_the_leases_duration_and_not_before() -> None:
    async def body(world: World) -> None:
        first, second = world.operator("a"), world.operator("b")
        await first.election.step()
        await second.election.step()
        world.now += 14.9
        await second.election.step()
        assert not second.leads
        world.now += 0.1
        await second.election.step()
        assert second.leads
        assert not first.leads  # by its own clock, without having heard of anything
        assert (await world.lease())["leaseTransitions"] == 1

    play(body)


def test_a_candidate_counts_from_when_it_saw_the_last_renewal() -> None:
    """Its clock may be days off the leader's; what stands in the lease is not compared with it."""

    async def body(world: World) -> None:
        first, second = world.operator("a"), world.operator("b")
        await first.election.step()
        world.now += 1000  # nobody looked
        await second.election.step()
        assert not second.leads
        world.now += 15
        await second.election.step()
        assert second.leads

    play(body)


def test_a_leader_without_an_api_server_stops_writing_before_another_can_begin() -> None:
    async def body(world: World) -> None:
        first, second = world.operator("a"), world.operator("b")
        await first.election.step()
        await second.election.step()
        first.fault = ConnectionError("no route")
        world.now += 9.9
        await first.election.step()
        assert first.leads
        await first.cluster.create(names.POD, NAMESPACE, POD)
        world.now += 0.2
        with pytest.raises(LeaseLost):
            await first.cluster.delete(names.POD, NAMESPACE, "flowers")
        await second.election.step()
        assert not second.leads  # there is a gap between the two, for what is under way
        await first.election.step()
        assert world.told == ["a leads", "a follows"]
        first.fault = None
        await first.election.step()
        assert first.leads  # nobody has taken it meanwhile
        assert (await world.lease())["leaseTransitions"] == 0

    play(body)


@pytest.mark.parametrize(
    "write",
    [
        lambda cluster: cluster.create(names.POD, NAMESPACE, POD),
        lambda cluster: cluster.patch(names.POD, NAMESPACE, "flowers", {"metadata": {"labels": {"a": "b"}}}),
        lambda cluster: cluster.patch(names.POD, NAMESPACE, "flowers", {"status": {}}, subresource="status"),
        lambda cluster: cluster.delete(names.POD, NAMESPACE, "flowers"),
    ],
)
def test_a_process_that_was_stopped_for_a_minute_writes_nothing_more(write: Callable[[Any], Any]) -> None:
    async def body(world: World) -> None:
        first, second = world.operator("a"), world.operator("b")
        await first.election.step()
        await second.election.step()
        world.now += 60
        await second.election.step()
        with pytest.raises(LeaseLost):
            await write(first.cluster)
        await first.election.step()
        with pytest.raises(LeaseLost):
            await write(first.cluster)
        assert world.told == ["a leads", "b leads", "a follows"]
        with pytest.raises(NotFound):
            await first.cluster.get(names.POD, NAMESPACE, "flowers")  # reading is free

    play(body)


def test_a_process_that_was_stopped_while_it_took_the_lease_does_not_lead() -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        create = world.server.create

        async def slow(*args: Any, **kwargs: Any) -> Manifest:
            answer = await create(*args, **kwargs)
            world.now += 60
            return answer

        world.server.create = slow  # type: ignore[method-assign]
        await first.election.step()
        assert not first.leads
        assert world.told == []
        await first.election.step()
        assert world.told == ["a leads"]

    play(body)


def test_an_answer_that_was_lost_leaves_a_lease_that_is_ours() -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        first.lost = ConnectionError("reset by peer")
        await first.election.step()
        assert not first.leads
        first.lost = None
        await first.election.step()
        assert first.leads
        assert (await world.lease())["leaseTransitions"] == 0

    play(body)


@pytest.mark.parametrize("error", [ConnectionError("refused"), ApiError("etcd is away")])
def test_a_candidate_goes_on_asking_a_server_that_is_away(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        first.fault = error
        for _ in range(20):
            await first.election.step()
            world.now += 2
        first.fault = None
        await first.election.step()
        assert first.leads

    play(body)
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1  # said once


def test_a_request_that_hangs_does_not_hold_the_leader_beyond_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        await first.election.step()
        world.now += 9.95
        first.hangs = True
        await asyncio.wait_for(first.election.step(), 5)  # what is left are 0.05 s
        world.now += 0.1
        assert not first.leads

    play(body)
    assert "the lease cannot be renewed or read: the API server did not answer in time" in caplog.text


def test_released_means_that_another_begins_at_once() -> None:
    async def body(world: World) -> None:
        first, second = world.operator("a"), world.operator("b")
        await first.election.step()
        await second.election.step()
        await first.election.release()
        assert (await world.lease())["holderIdentity"] == ""
        with pytest.raises(LeaseLost):
            await first.cluster.create(names.POD, NAMESPACE, POD)
        await second.election.step()
        assert second.leads
        await first.election.release()  # no more than once: it is another's now
        assert (await world.lease())["holderIdentity"] == "b"

    play(body)


def test_a_release_that_fails_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        await first.election.step()
        first.fault = ConnectionError("refused")
        await first.election.release()
        assert not first.leads

    play(body)
    assert "another operator begins in 15 s" in caplog.text


def test_a_lease_that_somebody_deletes_is_made_again() -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        await first.election.step()
        await world.server.delete(names.LEASE, NAMESPACE, names.OPERATOR_LEASE)
        await first.election.step()
        assert first.leads
        assert (await world.lease())["holderIdentity"] == "a"

    play(body)


def test_a_namespace_that_is_not_there_is_told_and_not_asked_for_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(world: World) -> None:
        first = world.operator("a")

        async def refused(*_: object, **__: object) -> Manifest:
            raise NotFound('namespaces "team" not found')

        world.server.create = refused  # type: ignore[method-assign]
        await first.election.step()
        assert not first.leads
        assert first.requests == 2  # is there a lease, and may there be one

    play(body)
    assert 'the lease cannot be renewed or read: namespaces "team" not found' in caplog.text


def test_somebody_who_is_always_quicker_is_left_alone() -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        await first.election.step()

        async def quicker(*_: object, **__: object) -> Manifest:
            raise Conflict("the object has been modified")

        world.server.patch = quicker  # type: ignore[method-assign]
        before = first.requests
        await first.election.step()
        assert first.requests - before <= 6
        assert first.leads  # the lease is ours all the time, until it runs out
        world.now += 10
        assert not first.leads

    play(body)


def test_a_lease_that_somebody_edits_stays_ours_or_is_lost_at_once() -> None:
    async def body(world: World) -> None:
        first = world.operator("a")
        await first.election.step()
        name = (NAMESPACE, names.OPERATOR_LEASE)
        await world.server.patch(names.LEASE, *name, {"metadata": {"annotations": {"note": "x"}}})
        await first.election.step()
        assert first.leads
        await world.server.patch(names.LEASE, *name, {"spec": {"holderIdentity": "b"}})
        await first.election.step()
        assert not first.leads
        assert world.told == ["a leads", "a follows"]

    play(body)


def test_of_two_that_find_a_free_lease_one_gets_it() -> None:
    async def body(world: World) -> None:
        many = [world.operator(f"operator-{number}") for number in range(5)]
        await asyncio.gather(*(each.election.step() for each in many))
        assert sum(each.leads for each in many) == 1
        world.now += 15
        await asyncio.gather(*(each.election.step() for each in many))
        assert sum(each.leads for each in many) == 1

    play(body)


def test_a_write_goes_on_while_the_lease_is_renewed_and_is_given_up_when_it_is_not() -> None:
    class Slow:
        def __init__(self) -> None:
            self.go = asyncio.Event()
            self.cancelled = False

        async def create(self, *_: object) -> Manifest:
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            return {"done": True}

    async def body(_: World) -> None:
        left = [0.02, 0.02, 0.02, 0.02]
        slow = Slow()

        def writable_s() -> float:
            if len(left) == 1:
                slow.go.set()
            return left.pop()

        fenced = Fenced(slow, writable_s)  # type: ignore[arg-type]  # of the protocol, what is called
        assert await fenced.create(names.POD, NAMESPACE, POD) == {"done": True}
        slow, left = Slow(), [0.0, 0.02, 0.02]
        fenced = Fenced(slow, left.pop)  # type: ignore[arg-type]
        with pytest.raises(LeaseLost, match="while it was writing"):
            await fenced.create(names.POD, NAMESPACE, POD)
        await asyncio.sleep(0)
        assert slow.cancelled

    play(body)


def test_a_process_that_was_stopped_just_before_a_write_does_not_make_it() -> None:
    async def body(world: World) -> None:
        left = [0.0, 5.0]  # the lease was ours when the write was asked for, and not when its turn came
        with pytest.raises(LeaseLost, match="before it wrote"):
            await Fenced(world.server, left.pop).create(names.POD, NAMESPACE, POD)
        assert (await world.server.list(names.POD, NAMESPACE)).items == []

    play(body)


def test_run_takes_over_as_soon_as_the_lease_has_run_out() -> None:
    async def body(world: World) -> None:
        first, second = world.operator("a"), world.operator("b")
        await first.election.step()
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            assert seconds > 0
            pauses.append(seconds)
            world.now += seconds
            if second.leads:
                raise asyncio.CancelledError

        second.election._sleep = sleep
        began = world.now
        with pytest.raises(asyncio.CancelledError):
            await second.election.run()
        assert max(pauses) <= 2.0
        assert 15.0 <= world.now - pauses[-1] - began < 15.1

    play(body)

"""What the ranks of a run on a cluster write: all pods, every line once, to the end of the job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.clusterruns import RUN, Played, until
from trainserve.client.cluster import logs
from trainserve.client.cluster.logs import Wish
from trainserve.client.cluster.patience import Patience
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.kube.names import PYTORCHJOB
from trainserve.kube.outage import NoAnswer

ENDED = {"terminated": {"exitCode": 0}}
RUNS = {"running": {"startedAt": "2026-11-25T12:00:00Z"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AGAIN_S", 0.02), ("LOOK_S", 0.02), ("EVENTS_EVERY_S", 0.0)):
        monkeypatch.setattr(logs, name, value)


class Following:
    """What a follower has been given so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.task: asyncio.Task[None] | None = None

    async def ended(self) -> list[str]:
        assert self.task is not None
        async with asyncio.timeout(10):
            await self.task
        return self.lines


@asynccontextmanager
async def following(world: Played, **wish: Any) -> AsyncIterator[Following]:
    found = Following()

    async def follow() -> None:
        async for some in logs.lines(world.session, RUN, Wish(follow=True, **wish)):
            found.lines += [str(line) for line in some]

    found.task = asyncio.create_task(follow())
    yield found
    found.task.cancel()
    await asyncio.gather(found.task, return_exceptions=True)


async def all_lines(world: Played, **wish: Any) -> list[str]:
    return [str(line) async for some in logs.lines(world.session, RUN, Wish(**wish)) for line in some]


async def test_all_ranks_are_followed_from_the_first_line_until_the_job_ends() -> None:
    world = Played()
    await world.create(workers=1)
    await world.conditions(names.CREATED, names.RUNNING)
    async with following(world) as found:
        for pod in ("flowers-master-0", "flowers-worker-0"):
            await world.pod(pod)
            log = world.logs.start(pod)
            log.write(f"first of {pod}")
            await world.container(pod, RUNS)
        await until(lambda: len(found.lines) == 2, "the first lines")
        assert sorted(found.lines) == [
            "[flowers-master-0.g1] first of flowers-master-0",
            "[flowers-worker-0.g1] first of flowers-worker-0",
        ]
        for number in range(3):
            world.logs.starts["flowers-master-0", "pytorch"][0].write(f"step {number}")
            await until(lambda: found.lines[-1] == f"[flowers-master-0.g1] step {number}", "a line as it is written")  # noqa: B023
        for pod in ("flowers-master-0", "flowers-worker-0"):
            world.logs.starts[pod, "pytorch"][0].write("last")
            world.logs.starts[pod, "pytorch"][0].end()
            await world.container(pod, ENDED)
        await world.conditions(names.CREATED, names.SUCCEEDED)
        lines = await found.ended()
    assert sorted(lines[-2:]) == ["[flowers-master-0.g1] last", "[flowers-worker-0.g1] last"]
    assert len(lines) == 7


async def test_a_way_that_breaks_off_costs_no_line_and_doubles_none() -> None:
    world = Played()
    await world.create()
    await world.conditions(names.CREATED, names.RUNNING)
    await world.pod()
    log = world.logs.start("flowers-master-0")
    await world.container("flowers-master-0", RUNS)
    written = []
    async with following(world) as found:
        for number in range(30):
            log.write(f"{number}", after_s=number * 0.4)
            written.append(f"[flowers-master-0.g1] {number}")
            if number % 7 == 3:
                log.cut()
            await asyncio.sleep(0.01)
        log.end()
        await world.container("flowers-master-0", ENDED)
        await world.conditions(names.CREATED, names.SUCCEEDED)
        assert await found.ended() == written
    assert log.readings > 4


async def test_a_restarted_gang_is_followed_with_its_new_pods_of_the_same_names() -> None:
    world = Played()
    await world.create()
    await world.conditions(names.CREATED, names.RUNNING)
    await world.pod()
    world.logs.start("flowers-master-0").write("before")
    await world.container("flowers-master-0", RUNS)
    async with following(world) as found:
        await until(lambda: found.lines == ["[flowers-master-0.g1] before"], "the first generation")
        await world.remove("flowers-master-0")
        await world.conditions(names.CREATED, names.RESTARTING)
        await world.pod(generation=2)
        log = world.logs.start("flowers-master-0")
        log.write("after")
        log.end()
        await world.container("flowers-master-0", ENDED)
        await world.conditions(names.CREATED, names.SUCCEEDED)
        assert await found.ended() == ["[flowers-master-0.g1] before", "[flowers-master-0.g2] after"]


async def test_a_container_that_is_restarted_in_place_is_read_start_by_start() -> None:
    world = Played()
    await world.create()
    await world.conditions(names.CREATED, names.RUNNING)
    await world.pod()
    first = world.logs.start("flowers-master-0")
    first.write("start 0")
    await world.container("flowers-master-0", RUNS)
    async with following(world) as found:
        await until(lambda: len(found.lines) == 1, "the first start")
        first.write("killed")
        first.end()
        second = world.logs.start("flowers-master-0")
        second.write("start 1")
        await world.container("flowers-master-0", RUNS, restarts=1, before={"exitCode": 137})
        second.end()
        await world.container("flowers-master-0", ENDED, restarts=1, before={"exitCode": 137})
        await world.conditions(names.CREATED, names.SUCCEEDED)
        lines = await found.ended()
    assert [line.partition("] ")[2] for line in sorted(lines, key=lambda line: "start 1" in line)] == [
        "start 0",
        "killed",
        "start 1",
    ]
    assert [line.partition("] ")[2] for line in await all_lines(world)] == ["start 0", "killed", "start 1"]
    assert [line.partition("] ")[2] for line in await all_lines(world, previous=True)] == ["start 0", "killed"]
    assert [line.partition("] ")[2] for line in await all_lines(world, tail=1)] == ["killed", "start 1"]


async def test_while_pods_are_pending_it_is_said_for_what_each_thing_once() -> None:
    world = Played()
    await world.create()
    async with following(world) as found:
        await until(lambda: world.heard.said, "that nobody acts")
        assert world.heard.said == [
            "waiting: the controller has not seen the job yet: is it installed, and does it run?"
        ]
        await world.conditions(names.CREATED)
        await world.pod()
        waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}
        await world.container("flowers-master-0", {"waiting": waiting})
        await until(lambda: len(world.heard.said) > 1, "the image")
        await asyncio.sleep(0.2)
        assert world.heard.said[1:] == ['waiting: flowers-master-0: ImagePullBackOff: Back-off pulling image "x"']
        log = world.logs.start("flowers-master-0")
        log.write("at last")
        log.end()
        await world.container("flowers-master-0", ENDED)
        await world.conditions(names.CREATED, names.SUCCEEDED)
        assert await found.ended() == ["[flowers-master-0.g1] at last"]


async def test_one_rank_is_one_pod_and_a_rank_that_there_is_not_is_refused() -> None:
    world = Played()
    await world.create(workers=2)
    for pod in ("flowers-worker-1", "flowers-master-0", "flowers-worker-0"):
        await world.pod(pod)
        log = world.logs.start(pod)
        log.write(f"of {pod}")
        log.end()
        await world.container(pod, ENDED)
    assert await all_lines(world, rank=2) == ["[flowers-worker-1.g1] of flowers-worker-1"]
    assert [line.partition(" of ")[2] for line in await all_lines(world)] == [
        "flowers-master-0",
        "flowers-worker-0",
        "flowers-worker-1",
    ]
    with pytest.raises(UserError, match="'k8s://team/flowers' has no rank 3"):
        await all_lines(world, rank=3)
    with pytest.raises(UserError, match="has no rank 3"):
        await all_lines(world, rank=3, follow=True)


async def test_which_pod_has_a_rank_is_not_guessed() -> None:
    world = Played()
    await world.create()
    await world.memory.patch(PYTORCHJOB, "team", "flowers", {"spec": {"nprocPerNode": "auto"}})
    with pytest.raises(UserError, match="is not known: nprocPerNode is auto"):
        await all_lines(world, rank=0)


async def test_a_job_that_is_deleted_ends_the_following_with_a_sentence() -> None:
    world = Played()
    await world.create()
    async with following(world) as found:
        await until(lambda: world.heard.said, "the beginning")
        await world.memory.delete(PYTORCHJOB, "team", "flowers")
        with pytest.raises(EnvironmentProblem, match="k8s://team/flowers is no longer there"):
            await found.ended()


async def test_a_run_without_a_log_says_why() -> None:
    world = Played()
    with pytest.raises(UserError, match="no such run 'flowers' in namespace team"):
        await all_lines(world)
    await world.create()
    await world.conditions(names.CREATED)
    await world.pod()
    await world.container("flowers-master-0", {"waiting": {"reason": "ErrImagePull", "message": "no such image"}})
    with pytest.raises(UserError, match="no log yet: its state is Created: waiting: flowers-master-0: ErrImagePull"):
        await all_lines(world)
    await world.remove("flowers-master-0")
    await world.conditions(names.CREATED, names.FAILED)
    with pytest.raises(UserError, match="the pods of run 'k8s://team/flowers' are gone"):
        await all_lines(world)
    with pytest.raises(logs.PodsGone):
        await all_lines(world, follow=True)


async def test_a_server_that_stays_away_ends_the_following_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Played()
    await world.create()
    async with following(world) as found:
        await until(lambda: world.heard.said, "the beginning")

        async def refused(*_: Any) -> None:
            raise NoAnswer("get /apis: connection refused", "is it running?")

        monkeypatch.setattr(world.memory, "get", refused)
        monkeypatch.setattr(Patience, "is_over", True)
        with pytest.raises(EnvironmentProblem, match="is not followed any longer: the API server does not answer"):
            await found.ended()

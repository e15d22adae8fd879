"""Which pods the controller asks how far they are, how often, and what it keeps of the answers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.askedpods import KEY, job, pod
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.operator import progress as asking
from trainserve.operator.progress import (
    ProgressPoller,
    speaker,
)
from trainserve.operator.sync import Caches


class World:
    """What the poller sees, and what it tells."""

    def __init__(self) -> None:
        self.job: Manifest | None = job()
        self.pods = [pod()]
        self.told: list[tuple[str, str]] = []
        self.answer: bytes | Exception = b"{}"
        self.asked = 0
        self.caches = Caches(job=lambda *key: self.job, pods=lambda uid: self.pods, services=lambda uid: [])
        self.poller = ProgressPoller(self.ask, self.caches, self.told.append, every_s=0.001)

    async def ask(self, pod: Manifest, port: int) -> bytes:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def play(self, body: Callable[[], Awaitable[None]]) -> None:
        async def play() -> None:
            running = asyncio.create_task(self.poller.run())
            await body()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(play())

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not what():
                await asyncio.sleep(0.001)

    async def asked_again(self, times: int = 2) -> None:
        wanted = self.asked + times
        await self.until(lambda: self.asked >= wanted)


def test_where_a_pod_has_no_address_its_node_writes_what_it_answers() -> None:
    async def main() -> None:
        world = World()
        world.answer = ConnectionError("no pod is to be asked")
        world.pods[0]["metadata"]["annotations"] = {names.ANNOTATION_PROGRESS: '{"epoch": 3, "unknown": 1}'}
        world.poller(world.job or {})
        running = asyncio.create_task(world.poller.run())
        async with asyncio.timeout(10):
            while not world.told:
                await asyncio.sleep(0.001)
        assert world.poller(world.job or {}) == {"epoch": 3}
        world.pods[0]["metadata"]["annotations"] = {names.ANNOTATION_PROGRESS: "[" * 100_000}
        await asyncio.sleep(0.05)
        assert world.poller(world.job or {}) == {"epoch": 3}, "nonsense changes nothing"
        assert world.asked == 0
        running.cancel()

    asyncio.run(main())


def test_a_bug_that_one_pod_brings_out_ends_neither_the_asking_nor_the_controller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.answer = ZeroDivisionError()

    async def body() -> None:
        world.poller(world.job or {})
        await world.asked_again()
        world.answer = b'{"epoch": 2}'
        await world.until(lambda: world.told)
        assert world.poller(world.job or {}) == {"epoch": 2}

    world.play(body)
    assert "team/flowers: a bug as its progress was asked for" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_answer_is_kept_and_told_once() -> None:
    world = World()
    world.answer = b'{"epoch": 2, "loss": 0.5, "unknown": {"deep": []}}'

    async def body() -> None:
        assert world.poller(job()) is None  # never waits
        await world.until(lambda: world.told)
        assert world.poller(job()) == {"epoch": 2, "loss": 0.5}
        await world.asked_again(3)
        assert world.told == [KEY]
        world.answer = b'{"epoch": 3}'
        await world.until(lambda: len(world.told) == 2)
        assert world.poller(job()) == {"epoch": 3}

    world.play(body)


def test_what_an_earlier_gang_said_is_not_said_of_the_next() -> None:
    world = World()
    world.answer = b'{"epoch": 2}'

    async def body() -> None:
        world.poller(job())
        await world.until(lambda: world.told)
        assert world.poller(job(generation=2)) is None
        world.job, world.pods = job(generation=2), [pod(generation=2)]
        await world.until(lambda: len(world.told) == 2)  # the same numbers, of another gang
        assert world.poller(job(generation=2)) == {"epoch": 2}

    world.play(body)


@pytest.mark.parametrize("after", [None, job(state="Succeeded"), job(state="Suspended"), job(uid="another")])
def test_a_job_that_runs_no_more_is_forgotten(after: Manifest | None) -> None:
    world = World()

    async def body() -> None:
        world.poller(job())
        await world.asked_again()
        world.job = after
        await world.until(lambda: not world.poller.known())
        asked = world.asked
        await asyncio.sleep(0.02)
        assert world.asked <= asked + 1  # one may have been under way

    world.play(body)


def test_only_running_jobs_are_asked() -> None:
    world = World()

    async def body() -> None:
        for state in ("Created", "Restarting", "Suspended"):
            assert world.poller(job(state=state)) is None
        assert world.poller.known() == []

    world.play(body)


def test_a_pod_that_does_not_answer_harms_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.answer = b'{"epoch": 1}'

    async def body() -> None:
        world.poller(job())
        await world.until(lambda: world.told)
        world.answer = ConnectionRefusedError("refused")
        await world.asked_again(3 * asking.TELL_AFTER)
        assert world.poller(job()) == {"epoch": 1}  # the newest that is known

    with caplog.at_level(logging.WARNING, "trainserve"):
        world.play(body)
    (line,) = caplog.messages
    assert line == "team/flowers: its progress cannot be read from pod flowers-master-0: refused"


def test_a_silent_pod_takes_two_seconds_of_one_of_twenty_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.05)
    world = World()
    at_once = most = 0

    async def ask(pod: Manifest, port: int) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.Event().wait()
        finally:
            at_once -= 1
        raise AssertionError

    jobs = {("team", f"job-{number}"): job(uid=f"u{number}") for number in range(100)}
    for (_, name), each in jobs.items():
        each["metadata"]["name"] = name
    caches = Caches(job=lambda *key: jobs[key], pods=lambda uid: [pod()], services=lambda uid: [])
    world.poller = ProgressPoller(ask, caches, world.told.append, every_s=0.001)

    async def body() -> None:
        for each in jobs.values():
            assert world.poller(each) is None
        await world.until(lambda: most == asking.AT_ONCE)
        await asyncio.sleep(0.2)

    world.play(body)
    assert most == asking.AT_ONCE


def test_many_jobs_are_asked_less_often_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "A_SECOND", 1000)
    world = World()
    jobs = {("team", f"job-{number}"): job(uid=f"u{number}") for number in range(300)}
    for (_, name), each in jobs.items():
        each["metadata"]["name"] = name
    caches = Caches(job=lambda *key: jobs[key], pods=lambda uid: [pod()], services=lambda uid: [])
    world.poller = ProgressPoller(world.ask, caches, world.told.append, every_s=0.0)

    async def body() -> None:
        began = asyncio.get_running_loop().time()
        for each in jobs.values():
            world.poller(each)
        await world.until(lambda: world.asked >= 900)
        took_s = asyncio.get_running_loop().time() - began
        assert took_s >= 0.6  # the first round at once, each of the others 300 / 1000 s later

    world.play(body)


def test_the_last_words_of_a_gang_count_before_what_was_asked() -> None:
    world = World()
    end = {"exitCode": 0, "message": json.dumps({"progress": {"step": 30, "etaSeconds": 0.0, "x": "y"}})}
    status = {"phase": "Succeeded", "containerStatuses": [{"name": names.CONTAINER, "state": {"terminated": end}}]}
    world.pods = [{**pod("worker"), "status": {"phase": "Running"}}, {**pod(), "status": status}]
    assert world.poller(job()) == {"step": 30, "etaSeconds": 0.0}
    assert world.poller(job(generation=2)) is None  # an older gang's
    for message in ("done", "[]", '{"progress": "x"}', '{"progress": {"step": -1}}', '{"progress": {"step": NaN}}'):
        end["message"] = message
        assert world.poller(job()) is None
    end["message"], end["exitCode"] = '{"progress": {"step": 3}}', 1
    assert world.poller(job()) is None


def test_the_lowest_rank_that_runs_and_declares_the_port_is_asked() -> None:
    workers = [pod("worker", index) for index in (10, 2)]
    assert speaker([*workers, pod()], 1) == (pod(), 9464)
    assert speaker(workers, 1) == (workers[1], 9464)
    assert speaker([pod(port=7000)], 1) == (pod(port=7000), 7000)
    assert speaker([pod(port=None)], 1) is None
    assert speaker([pod(phase="Pending"), pod(generation=2)], 1) is None
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert speaker([going], 1) is None

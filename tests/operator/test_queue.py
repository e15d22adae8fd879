from __future__ import annotations

import asyncio

import pytest

from trainserve.operator.queue import WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _idle(queue: WorkQueue[str]) -> bool:
    """Whether a worker would have to wait now."""
    task = asyncio.create_task(queue.get())
    for _ in range(3):
        await asyncio.sleep(0)
    if task.done():
        queue.done(str(task.result()))
        return False
    task.cancel()
    return True


def test_a_key_waits_at_most_once() -> None:
    async def check() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("b")
        queue.add("a")
        assert [await queue.get(), await queue.get()] == ["a", "b"]
        queue.done("a")
        queue.done("b")
        assert await _idle(queue)

    asyncio.run(check())


def test_one_worker_a_key_and_again_when_it_changed_meanwhile() -> None:
    async def check() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("a")
        assert await _idle(queue)
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert await _idle(queue)

    asyncio.run(check())


def test_delays_follow_the_clock_and_the_sooner_one_counts() -> None:
    async def check() -> None:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock=clock)
        queue.add_after("a", 10)
        queue.add_after("a", 5)
        queue.add_after("a", 7)
        clock.now = 4.9
        assert await _idle(queue)
        clock.now = 5
        assert await queue.get() == "a"
        queue.done("a")
        clock.now = 100
        assert await _idle(queue)  # the later two were the same wish

    asyncio.run(check())


def test_a_worker_that_waits_is_woken_by_a_new_key_and_by_the_clock() -> None:
    async def check() -> None:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock=clock)
        task = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add_after("late", 1000)
        await asyncio.sleep(0)
        clock.now = 1000
        queue.wake()
        assert await asyncio.wait_for(task, 5) == "late"

    asyncio.run(check())


def test_real_time_delays_end() -> None:
    async def check() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 0.02)
        assert await asyncio.wait_for(queue.get(), 5) == "a"

    asyncio.run(check())


def test_failures_back_off_to_a_limit_and_are_forgotten() -> None:
    async def check() -> None:
        queue: WorkQueue[str] = WorkQueue(clock=Clock(), first_delay_s=1, longest_delay_s=5)
        assert [queue.add_failed("a") for _ in range(5)] == [1, 2, 4, 5, 5]
        assert queue.add_failed("b") == 1
        queue.forget("a")
        assert queue.add_failed("a") == 1
        for _ in range(2000):
            assert queue.add_failed("a") <= 5

    asyncio.run(check())


def test_closing_sends_every_worker_home() -> None:
    async def check() -> None:
        queue: WorkQueue[str] = WorkQueue()
        workers = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.close()
        assert await asyncio.wait_for(asyncio.gather(*workers), 5) == [None, None, None]
        queue.add("a")
        assert await queue.get() is None

    asyncio.run(check())


def test_what_a_sooner_time_has_replaced_does_not_pile_up() -> None:
    async def check() -> None:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock=clock)
        year_s = 365 * 24 * 3600.0
        for _ in range(1000):  # a time to live of a year, and looked at every second meanwhile
            queue.add_after("a", year_s)
            queue.add_after("a", 1.0)
            clock.now += 1.0
            assert await queue.get() == "a"
            queue.done("a")
        queue.add_after("a", 5.0)
        queue.add_after("b", year_s)
        assert len(queue._later) < 200
        clock.now += 5.0
        assert await queue.get() == "a"
        queue.done("a")
        assert await _idle(queue)
        clock.now += year_s
        assert await queue.get() == "b"

    asyncio.run(check())


def test_a_cleared_queue_gives_out_nothing_and_goes_on() -> None:
    async def play() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in ("a", "b"):
            queue.add(key)
        queue.add_after("c", 0.01)
        assert await queue.get() == "a"
        queue.add("a")  # again when it is done, were it not for
        queue.clear()
        queue.done("a")
        assert queue.depth() == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 0.05)
        queue.add("d")
        assert await queue.get() == "d"

    asyncio.run(play())

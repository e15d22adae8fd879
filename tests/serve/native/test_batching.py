"""How requests become batches: no process, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trainserve.serve.native.batching import Batcher, QueueFull


class Runs:
    """Answers each question with twice it; remembers the batches; `gate` holds them back."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, questions: list[int]) -> list[int]:
        self.batches.append(questions)
        await self.gate.wait()
        if -1 in questions:
            raise ValueError("no")
        return [2 * question for question in questions]


def with_batcher(use: Callable[[Batcher[int, int], Runs], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        runs = Runs()
        batcher: Batcher[int, int] = Batcher(runs, **{"size": 4, "delay_s": 0.0, "slots": 1, "limit": 10, **options})
        try:
            async with asyncio.timeout(10):
                await use(batcher, runs)
        finally:
            await batcher.close(RuntimeError("stopping"))

    asyncio.run(main())


def test_what_came_meanwhile_is_the_next_batch_and_none_is_too_large() -> None:
    async def use(batcher: Batcher[int, int], runs: Runs) -> None:
        runs.gate.clear()
        jobs = [batcher.submit(0)]
        await asyncio.sleep(0.01)
        jobs += [batcher.submit(number) for number in range(1, 7)]
        runs.gate.set()
        assert await asyncio.gather(*(job.answer for job in jobs)) == [0, 2, 4, 6, 8, 10, 12]
        assert runs.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert jobs[1].waited_s > 0

    with_batcher(use)


def test_a_batch_waits_for_more_and_a_full_one_does_not() -> None:
    async def use(batcher: Batcher[int, int], runs: Runs) -> None:
        first = batcher.submit(0)
        await asyncio.sleep(0.01)
        assert batcher.waiting == 1
        rest = [batcher.submit(number) for number in range(1, 4)]
        await asyncio.gather(*(job.answer for job in [first, *rest]))  # long before the delay is over
        assert runs.batches == [[0, 1, 2, 3]]

    with_batcher(use, delay_s=60.0)


def test_slots_do_not_share_one_batch() -> None:
    async def use(batcher: Batcher[int, int], runs: Runs) -> None:
        jobs = [batcher.submit(number) for number in range(4)]
        await asyncio.gather(*(job.answer for job in jobs))
        assert runs.batches == [[0, 1, 2, 3]]

    with_batcher(use, delay_s=0.05, slots=3)


def test_dropped_jobs_are_not_asked() -> None:
    async def use(batcher: Batcher[int, int], runs: Runs) -> None:
        runs.gate.clear()
        first = batcher.submit(0)
        await asyncio.sleep(0.01)
        dropped, kept = batcher.submit(1), batcher.submit(2)
        batcher.drop(dropped)
        assert batcher.waiting == 1
        runs.gate.set()
        assert (await first.answer, await kept.answer) == (0, 4)
        assert runs.batches == [[0], [2]]

    with_batcher(use)


def test_a_job_dropped_while_its_batch_fills_is_not_asked() -> None:
    async def use(batcher: Batcher[int, int], runs: Runs) -> None:
        dropped = batcher.submit(0)
        await asyncio.sleep(0.01)
        batcher.drop(dropped)
        kept = batcher.submit(1)
        assert await kept.answer == 2
        assert runs.batches == [[1]]

    with_batcher(use, delay_s=0.1, size=2)


def test_a_full_queue_is_told() -> None:
    async def use(batcher: Batcher[int, int], runs: Runs) -> None:
        runs.gate.clear()
        batcher.submit(0)
        await asyncio.sleep(0.01)
        jobs = [batcher.submit(number) for number in range(10)]
        with pytest.raises(QueueFull):
            batcher.submit(11)
        batcher.drop(jobs[0])
        batcher.submit(12)
        runs.gate.set()

    with_batcher(use)


def test_a_batch_that_fails_fails_alone() -> None:
    async def use(batcher: Batcher[int, int], runs: Runs) -> None:
        bad = batcher.submit(-1)
        with pytest.raises(ValueError, match="no"):
            await bad.answer
        assert await batcher.submit(3).answer == 6

    with_batcher(use)


def test_the_end_answers_what_waits_and_what_computes() -> None:
    async def main() -> None:
        runs = Runs()
        runs.gate.clear()
        batcher: Batcher[int, int] = Batcher(runs, size=1, delay_s=0.0, slots=1, limit=10)
        jobs = [batcher.submit(number) for number in range(3)]
        await asyncio.sleep(0.01)
        await batcher.close(RuntimeError("stopping"))
        for job in jobs:
            with pytest.raises(RuntimeError, match="stopping"):
                await job.answer

    asyncio.run(main())

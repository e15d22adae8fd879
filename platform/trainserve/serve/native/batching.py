"""Requests that wait become batches: as many as there are up to a size, or what came within a delay."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")


class QueueFull(Exception):
    """As many requests wait as may."""


@dataclass(eq=False)
class Job(Generic[Question, Reply]):
    """One request that waits. `answer` is done with the reply, with an error, or cancelled by who does not want it."""

    question: Question
    answer: asyncio.Future[Reply]
    queued_at: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0  # from then until its batch began


class Batcher(Generic[Question, Reply]):
    """`slots` batches at a time go through `run`; belongs to one event loop."""

    def __init__(
        self,
        run: Callable[[list[Question]], Awaitable[list[Reply]]],
        *,
        size: int,
        delay_s: float,
        slots: int,
        limit: int,
    ) -> None:
        self._run = run
        self._size, self._delay_s, self._limit = size, delay_s, limit
        self._waiting: deque[Job[Question, Reply]] = deque()
        self._collected: list[Job[Question, Reply]] = []  # the batch that is being filled
        self._arrived = asyncio.Event()
        self._collecting = asyncio.Lock()  # one slot collects at a time, or two would share one batch
        self.busy = 0  # slots with a batch
        self._slots = [asyncio.create_task(self._work()) for _ in range(slots)]

    @property
    def waiting(self) -> int:
        """Jobs whose batch has not begun."""
        return len(self._waiting) + len(self._collected)

    def submit(self, question: Question) -> Job[Question, Reply]:
        """A job in the queue. Raises QueueFull."""
        if self.waiting >= self._limit:
            raise QueueFull
        job: Job[Question, Reply] = Job(question, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return job

    def drop(self, job: Job[Question, Reply]) -> None:
        """Nobody wants the answer any more: the job leaves the queue; a batch that has begun goes on."""
        job.answer.cancel()
        if job in self._waiting:
            self._waiting.remove(job)

    def fail_waiting(self, error: Exception) -> None:
        """Answer everything that waits with an error."""
        jobs = [*self._collected, *self._waiting]
        self._collected.clear()
        self._waiting.clear()
        for job in jobs:
            if not job.answer.done():
                job.answer.set_exception(error)

    async def close(self, error: Exception) -> None:
        """Stop; what waits or computes gets the error."""
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        self.fail_waiting(error)

    async def _work(self) -> None:
        while True:
            async with self._collecting:
                await self._collect()
                batch = [job for job in self._collected if not job.answer.done()]  # the others were dropped
                self._collected = []
            if not batch:
                continue
            began = time.monotonic()
            for job in batch:
                job.waited_s = began - job.queued_at
            self.busy += 1
            try:
                replies = await self._run([job.question for job in batch])
            except asyncio.CancelledError:
                self._waiting.extendleft(reversed(batch))  # `close` answers them
                raise
            except Exception as error:
                for job in batch:
                    if not job.answer.done():
                        job.answer.set_exception(error)
                continue
            finally:
                self.busy -= 1
            for job, reply in zip(batch, replies, strict=True):
                if not job.answer.done():
                    job.answer.set_result(reply)

    async def _collect(self) -> None:
        """Fill the next batch: at least one job, waiting for more no longer than the delay."""
        until = float("inf")
        while len(self._collected) < self._size:
            if not self._waiting and not await self._arrival(until):
                break
            self._collected.append(self._waiting.popleft())
            if len(self._collected) == 1:
                until = time.monotonic() + self._delay_s

    async def _arrival(self, until: float) -> bool:
        """Whether a job came before the time `until` of the monotonic clock."""
        while not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(None if until == float("inf") else max(0.0, until - time.monotonic())):
                    await self._arrived.wait()
            except TimeoutError:
                return bool(self._waiting)
        return True

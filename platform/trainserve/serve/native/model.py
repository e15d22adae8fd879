"""One model: its process, started again when it dies, and the requests that wait for it."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from trainserve.errors import EnvironmentProblem
from trainserve.machine import cgroup
from trainserve.machine.usage import MIB
from trainserve.package.mar import MarInfo
from trainserve.package.settings import RESPONSE_TIMEOUT_S, STARTUP_TIMEOUT_S
from trainserve.serve.config import JOB_QUEUE_SIZE
from trainserve.serve.native.batching import Batcher, Job, QueueFull
from trainserve.serve.native.process import Answer, Item, WorkerDied, WorkerProcess

log = logging.getLogger(__name__)

RESTART_DELAYS_S = (0.0, 1.0, 2.0, 5.0, 10.0)  # before each new start in a row; then always the last
STABLE_S = 60.0  # a process that lived so long was well: the row begins again
FAILED_STARTS = 5  # in a row, after which the model is given up
RETRY_AFTER_S = 3  # about what a new start takes: torch is imported


class Unavailable(Exception):
    """No answer now: status 429 or 503, the reason in words, and when to ask again."""

    def __init__(self, status: int, reason: str, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after_s = status, reason, retry_after_s


class Model:
    """A model of the server; `start` it before it is asked. Belongs to one event loop."""

    def __init__(self, name: str, mar: MarInfo, folder: Path) -> None:
        serve = mar.description.serve
        self.name, self.mar, self.folder = name, mar, folder
        self.version = mar.version
        self.classes = len(mar.description.classes)
        self.top_k = serve.top_k
        self.max_upload_bytes = serve.max_upload_mib * MIB
        self.threads = serve.workers or cgroup.cores()
        self.problem: str | None = "it is loading"  # why it does not answer now
        self.given_up = asyncio.Event()
        self.restarts = 0
        self._batch_size = serve.batch_size
        self._process: WorkerProcess | None = None
        self._ready = asyncio.Event()
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None
        self._batcher: Batcher[Item, Answer] = Batcher(
            self._ask,
            size=serve.batch_size,
            delay_s=serve.max_batch_delay_ms / 1000 if serve.batch_size > 1 else 0.0,
            slots=self.threads,
            limit=JOB_QUEUE_SIZE,
        )

    @property
    def ready(self) -> bool:
        """Whether it answers now."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """Of its process, if one runs."""
        return self._process.pid if self._process else None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting

    @property
    def busy(self) -> int:
        """Batches that are being computed."""
        return self._batcher.busy

    async def start(self) -> None:
        """Start the process. Raises EnvironmentProblem with the handler's reason when the model does not load."""
        try:
            await self._start_process()
        except WorkerDied as error:
            raise EnvironmentProblem(f"model {self.name} does not load: {error}") from None
        self._keeper = asyncio.create_task(self._keep())

    def submit(self, item: Item) -> Job[Item, Answer]:
        """A request in the queue. Raises Unavailable."""
        if self.problem is not None:
            raise Unavailable(503, f"model {self.name} does not answer now: {self.problem}")
        try:
            return self._batcher.submit(item)
        except QueueFull:
            raise Unavailable(429, f"model {self.name} has {JOB_QUEUE_SIZE} requests waiting already", 1) from None

    def drop(self, job: Job[Item, Answer]) -> None:
        """Nobody waits for it any more."""
        self._batcher.drop(job)

    async def stop(self) -> None:
        """End the process; what still waits gets Unavailable."""
        self._stopping = True
        self.problem = "the server is stopping"
        self._ready.clear()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._batcher.close(Unavailable(503, f"model {self.name}: the server is stopping"))
        if self._process is not None:
            await self._process.stop()

    async def _start_process(self) -> None:
        self._process = await WorkerProcess.start(
            self.name,
            self.folder,
            batch_size=self._batch_size,
            threads=self.threads,
            timeout_s=STARTUP_TIMEOUT_S,
        )
        self.problem = None
        self._ready.set()
        log.info("model %s is ready: process %d, %d threads", self.name, self._process.pid, self.threads)

    async def _keep(self) -> None:
        """Start the process anew whenever it ends, a bounded number of times in a row."""
        row = 0
        while not self.given_up.is_set():
            assert self._process is not None
            begun = time.monotonic()
            ended = await self._process.wait()
            self._ready.clear()
            self.problem = f"{ended}; it is being started again"
            log.error("model %s: %s\n%s", self.name, ended, self._process.last_words())
            await self._process.kill()
            row = await self._restart(0 if time.monotonic() - begun > STABLE_S else row)

    async def _restart(self, row: int) -> int:
        """Start it until it is ready or has failed too often. `row`: starts in a row before; returns the new row."""
        for _ in range(FAILED_STARTS):
            await asyncio.sleep(RESTART_DELAYS_S[min(row, len(RESTART_DELAYS_S) - 1)])
            row += 1
            self.restarts += 1
            try:
                await self._start_process()
            except WorkerDied as error:
                self.problem = f"it could not be started again: {error}"
                log.error("model %s: %s", self.name, self.problem)
            else:
                return row
        log.error("model %s is given up after %d failed starts", self.name, FAILED_STARTS)
        self._batcher.fail_waiting(Unavailable(503, f"model {self.name} does not answer now: {self.problem}"))
        self.given_up.set()
        return row

    async def _ask(self, items: list[Item]) -> list[Answer]:
        """One batch. What waited while the process died is asked of the next one; what was in it is not."""
        await self._until_ready()
        process = self._process
        assert process is not None
        try:
            return await process.ask(items, RESPONSE_TIMEOUT_S)
        except WorkerDied as error:
            if process is self._process:
                self._ready.clear()
                self.problem = f"{error}; it is being started again"
            raise Unavailable(503, f"model {self.name} could not answer: {error}") from None

    async def _until_ready(self) -> None:
        """Raises Unavailable when the model is given up."""
        if self.ready:
            return
        either = [asyncio.create_task(event.wait()) for event in (self._ready, self.given_up)]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in either:
                task.cancel()
        if not self.ready:
            raise Unavailable(503, f"model {self.name} does not answer now: {self.problem}")

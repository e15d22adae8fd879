"""A model's process, seen from the engine: started, asked, killed, and what it said last. One event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainserve.kube.names import ENV_OMP_NUM_THREADS, ENV_PYTHONUNBUFFERED
from trainserve.serve.config import FOREIGN_ENV
from trainserve.serve.native import wire, worker

log = logging.getLogger(__name__)

STOP_S = 3.0  # from the closed socket to SIGKILL
LAST_LINES = 40


class WorkerDied(Exception):
    """The process ended, or never became ready; the message says how."""


@dataclass(frozen=True)
class Item:
    """A request for the handler: its headers, and fields as (name, content type, bytes)."""

    headers: dict[str, str]
    fields: tuple[tuple[str, str, bytes], ...]


@dataclass(frozen=True)
class Answer:
    """What the handler answered."""

    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes
    model_ms: float  # time of its batch in the process


class WorkerProcess:
    """One process. `start`, then `ask` from as many tasks as it has threads, then `stop`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self.name = name
        self.pid = process.pid
        self._process, self._connection = process, connection
        self._writer: asyncio.StreamWriter | None = None
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._asked: dict[int, asyncio.Future[list[Answer]]] = {}
        self._next_id = 0
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(cls, name: str, folder: Path, *, batch_size: int, threads: int, timeout_s: float) -> WorkerProcess:
        """A process that is ready: it has loaded the archive in `folder` and answered the golden pictures.

        Raises WorkerDied, with the handler's own words, when it does not become so.
        """
        try:
            process, ours = await _spawned()
        except OSError as error:  # no memory for a process, too many files: it may be better at the next try
            raise WorkerDied(f"its process cannot be started: {error.strerror or error}") from error
        self = cls(name, process, ours)
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours)
            self._tasks.append(asyncio.create_task(self._log_output()))
            order = {"folder": str(folder), "name": name, "batchSize": batch_size, "threads": threads}
            await self._write(order, [])
            async with asyncio.timeout(timeout_s):
                head, _ = await wire.receive_async(reader)
        except TimeoutError:
            await self.kill()
            raise WorkerDied(f"it was not ready after {timeout_s:g} s") from None
        except (wire.Closed, ConnectionError):
            await self.kill()
            raise WorkerDied(self.how_it_ended()) from None
        except BaseException:
            await self.kill()
            raise
        if "failed" in head:
            await self.kill()
            raise WorkerDied(str(head["failed"]))
        self._tasks.append(asyncio.create_task(self._read(reader)))
        return self

    async def ask(self, items: list[Item], timeout_s: float) -> list[Answer]:
        """The answers of one batch. Raises WorkerDied when the process ends first; kills it after `timeout_s`."""
        number, self._next_id = self._next_id, self._next_id + 1
        answered: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answered
        head = {"id": number, "items": [_described(item) for item in items]}
        try:
            async with asyncio.timeout(timeout_s):  # a process that hangs does not read either
                await self._write(head, [data for item in items for _, _, data in item.fields])
                return await answered
        except TimeoutError:
            log.error("model %s: a batch took longer than %g s; its process is killed", self.name, timeout_s)
            with suppress(ProcessLookupError):
                self._process.kill()
            raise WorkerDied(f"it took longer than {timeout_s:g} s") from None
        except ConnectionError:
            await self._process.wait()
            raise WorkerDied(self.how_it_ended()) from None
        finally:
            self._asked.pop(number, None)
            if answered.done() and not answered.cancelled():
                answered.exception()  # seen, or asyncio complains about an error that a timeout overtook

    async def wait(self) -> str:
        """Until the process has ended; says how."""
        await self._process.wait()
        return self.how_it_ended()

    def how_it_ended(self) -> str:
        """In words."""
        code = self._process.returncode
        if code is None:
            return "it closed its connection"
        if code >= 0:
            return f"its process ended with code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = " (often for memory)" if code == -signal.SIGKILL else ""
        return f"its process was ended by {name}{memory}"

    def last_words(self) -> str:
        """The last lines it printed."""
        return "\n".join(self._last)

    async def stop(self) -> None:
        """Close the socket, at which it ends by itself; kill it when it does not."""
        self._close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """Kill it, if it lives, and wait until it and what it printed is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._close()
        for task in self._tasks[1:]:
            task.cancel()
        self._fail_asked()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _close(self) -> None:
        if self._writer is None:
            self._connection.close()
        else:
            self._writer.close()  # and the connection with it

    async def _write(self, head: dict[str, Any], blobs: list[bytes]) -> None:
        assert self._writer is not None
        # No await between the pieces: another task's frame would come between.
        self._writer.writelines(wire.encode(head, blobs))
        await self._writer.drain()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                head, bodies = await wire.receive_async(reader)
                answered = self._asked.get(head["id"])
                if answered is not None and not answered.done():
                    pairs = zip(head["replies"], bodies, strict=True)
                    answered.set_result([Answer(body=body, model_ms=head["ms"], **reply) for reply, body in pairs])
        except wire.Closed:
            await self._process.wait()
            self._fail_asked()

    def _fail_asked(self) -> None:
        """Whoever waits for an answer is told how the process ended."""
        for answered in self._asked.values():
            if not answered.done():
                answered.set_exception(WorkerDied(self.how_it_ended()))

    async def _log_output(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while data := await self._process.stdout.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in [*lines, rest] if len(rest) > 65536 else lines:
                self._say(line)
            rest = b"" if len(rest) > 65536 else rest
        if rest:
            self._say(rest)

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        self._last.append(text)
        log.info("[%s] %s", self.name, text)


async def _spawned() -> tuple[asyncio.subprocess.Process, socket.socket]:
    """A new process and our end of its socket. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                worker.__name__,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment(os.environ),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the engine, which stops its processes in order
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Environment of a model's process: one thread of torch in each of its own, and nothing that makes it a rank."""
    kept = {name: value for name, value in inherited.items() if FOREIGN_ENV.fullmatch(name) is None}
    return {**kept, ENV_OMP_NUM_THREADS: "1", ENV_PYTHONUNBUFFERED: "1"}


def _described(item: Item) -> dict[str, Any]:
    return {"headers": item.headers, "fields": [(name, kind) for name, kind, _ in item.fields]}

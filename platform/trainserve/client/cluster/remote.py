"""A folder of a helper pod as a Bucket: requests over the streams of an exec, several on their way (launch/reach.py).

Callers are threads; the connection lives in an event loop of its own thread. Requests are sent whole, one after the
other, and answered in their order, so a push of many small pictures does not wait for each answer.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trainserve.errors import EnvironmentProblem, PlatformError
from trainserve.machine.bucket.store import CHUNK, Item
from trainserve.machine.bucket.words import Absent

T = TypeVar("T")

PIECE = 128 * 1024  # bytes of a message
ANSWER_S = 120.0  # longest wait for an answer, or for more of one

Fact = dict[str, Any]


class Pipe(Protocol):
    """stdin and stdout of a process elsewhere."""

    async def write(self, data: bytes) -> None: ...

    def read(self) -> AsyncIterator[bytes]:
        """What it writes, in pieces; ends with the process. Raises PlatformError with what it complained of."""
        ...


class Remote:
    """`url` is what the folder is called for people; `loop` runs in another thread."""

    def __init__(self, url: str, pipe: Pipe, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self._pipe = pipe
        self._loop = loop
        self._sending = asyncio.Lock()
        self._waiting: deque[asyncio.Future[tuple[Fact, bytes]]] = deque()
        self._problem: PlatformError | None = None
        self._reader = asyncio.run_coroutine_threadsafe(self._read(), loop)

    def list(self, prefix: str = "") -> Iterator[Item]:
        answer, _ = self._ask({"op": "list", "prefix": prefix}, "listed")
        for name, size, version in answer["items"]:
            yield Item(name, size, version)

    def head(self, name: str) -> Item | None:
        answer, _ = self._ask({"op": "head", "name": name}, "read")
        return None if answer.get("absent") else Item(name, answer["size"], answer["version"])

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        while True:
            request = {"op": "get", "name": name, "start": start, "most": CHUNK}
            answer, data = self._ask(request, "read", name)
            if answer.get("absent"):
                raise Absent(f"{self.url}/{name} cannot be read: there is nothing of this name")
            if not data:
                return
            yield data
            start += len(data)

    def send(self, file: Path, name: str) -> None:
        size = file.stat().st_size
        self._ask({"op": "put", "name": name, "bytes": size}, "written", name, lambda: _pieces(file, size))

    def write(self, name: str, data: bytes) -> None:
        self._ask({"op": "put", "name": name, "bytes": len(data)}, "written", name, lambda: iter([data]))

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._ask({"op": "remove", "name": name}, "removed", name)

    async def beat(self) -> None:
        """In the loop: a sign of life, so that the pod does not take this command for dead."""
        await self._exchange({"op": "alive"}, None)

    def _ask(
        self, request: Fact, doing: str, name: str = "", body: Callable[[], Iterator[bytes]] | None = None
    ) -> tuple[Fact, bytes]:
        where = f"{self.url}/{name}".rstrip("/")
        answer, data = self._run(self._exchange(request, body))
        if "error" in answer:
            raise EnvironmentProblem(f"{where} cannot be {doing}: {answer['error']}", hint="see the claim's volume")
        return answer, data

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _exchange(self, request: Fact, body: Callable[[], Iterator[bytes]] | None) -> tuple[Fact, bytes]:
        answered: asyncio.Future[tuple[Fact, bytes]] = self._loop.create_future()
        async with self._sending:
            if self._problem is not None:
                raise self._problem
            self._waiting.append(answered)
            try:
                await self._pipe.write(json.dumps(request).encode() + b"\n")
                if body is not None:
                    for piece in body():
                        await self._pipe.write(piece)
            except ConnectionError as error:
                raise self._problem or EnvironmentProblem(
                    f"{self.url}: the way to the helper pod broke off: {error}", hint="try again"
                ) from error
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answered
        except TimeoutError:
            raise EnvironmentProblem(f"{self.url}: the helper pod did not answer for {ANSWER_S:.0f} s") from None

    async def _read(self) -> None:
        """Give each answer to whoever waits for it; at the end, or with an error, all that wait get that."""
        try:
            rest = b""
            source = aiter(self._pipe.read())
            while True:
                while b"\n" not in rest:
                    rest += await anext(source)
                line, _, rest = rest.partition(b"\n")
                answer: Fact = json.loads(line)
                while len(rest) < answer.get("bytes", 0):
                    rest += await anext(source)
                size = answer.get("bytes", 0)
                data, rest = rest[:size], rest[size:]
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result((answer, data))
        except StopAsyncIteration:
            self._problem = EnvironmentProblem(f"{self.url}: the helper pod has ended", hint="try again")
        except PlatformError as error:
            self._problem = error
        except (OSError, ValueError, IndexError) as error:
            self._problem = EnvironmentProblem(f"{self.url}: the way to the helper pod broke off: {error}")
        for waiting in self._waiting:
            if not waiting.done() and self._problem is not None:
                waiting.set_exception(self._problem)
        self._waiting.clear()


def _pieces(file: Path, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes, as was announced."""
    with file.open("rb") as source:
        while size and (piece := source.read(min(PIECE, size))):
            size -= len(piece)
            yield piece
    while size:  # it became shorter meanwhile
        yield b"\0" * min(PIECE, size)
        size -= min(PIECE, size)

"""The streams of an exec in a pod, played by a process of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class Pipe:
    """The program in the pod, as a process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def read(self) -> AsyncIterator[bytes]:
        assert self.process.stdout is not None
        while piece := await self.process.stdout.read(65536):
            yield piece

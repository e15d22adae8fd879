"""Somebody who types `platform ...` with a kubeconfig, and looks at what is printed while it runs."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from support.command import command, environment

STARTED_S = 30.0


class Going:
    """A command that runs: its lines with the moment at which each came."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[tuple[float, str]] = []
        self.said: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, lambda line: self.lines.append((time.monotonic(), line)))),
            asyncio.create_task(self._read(process.stderr, self.said.append)),
        ]

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[str], object]) -> None:
        while line := await stream.readline():
            take(line.decode().rstrip("\n"))

    async def until(self, text: str, timeout_s: float = STARTED_S) -> None:
        """Wait until it has printed or said this."""
        give_up = time.monotonic() + timeout_s
        while not any(text in line for line in [*(line for _, line in self.lines), *self.said]):
            assert self.process.returncode is None, f"it has ended without {text!r}: {self.said}"
            assert time.monotonic() < give_up, f"not within {timeout_s} s: {text!r}: {self.lines} {self.said}"
            await asyncio.sleep(0.02)

    async def end(self, timeout_s: float = 30) -> int:
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code


class Typist:
    """Types `platform ...` with a kubeconfig and a TRAINSERVE_HOME of its own."""

    def __init__(self, kubeconfig: Path, folder: Path, namespace: str) -> None:
        self.namespace = namespace
        self.environment = {**environment(folder / "home"), "KUBECONFIG": str(kubeconfig), "PYTHONUNBUFFERED": ""}

    @property
    def run(self) -> str:
        return f"k8s://{self.namespace}/flowers"

    async def __call__(self, *words: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(self.now, *words, timeout_s=timeout_s)

    def now(self, *words: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    @asynccontextmanager
    async def going(self, *words: object) -> AsyncIterator[Going]:
        """The command while it runs, its stdout a pipe."""
        process = await asyncio.create_subprocess_exec(
            *command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        going = Going(process)
        try:
            yield going
        finally:
            if process.returncode is None:
                process.kill()
            await going.end()

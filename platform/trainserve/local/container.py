"""One start of a container: a process group behind `shim.py`, its log, its end, its termination message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from trainserve.local import process, shim
from trainserve.local.podspec import CONTAINER_CANNOT_RUN, Process
from trainserve.local.podstatus import Ended
from trainserve.machine import cgroup
from trainserve.machine.files import read_end

MESSAGE_BYTES = 4096
LOG_TAIL_BYTES, LOG_TAIL_LINES = 2048, 80  # what a kubelet takes of a log in place of a message
KILLED = 137


class Container:
    """A started container. `start` it once, `wait` for its end; `terminate` and `kill` may come at any time."""

    def __init__(self, what: Process, pod_dir: Path, lifeline: int) -> None:
        self._what = what
        self._pod_dir = pod_dir
        self._lifeline = lifeline
        self._shim: asyncio.subprocess.Process | None = None
        self._report = asyncio.StreamReader()
        self._oom_before = cgroup.oom_kills()
        self.log = pod_dir / f"{what.name}.log"
        self.message_file = pod_dir / f"{what.name}.termination-log"
        self.pid = 0  # of the command, once it has started
        self.started = time.time()
        self._cannot_run = ""
        self._code: int | None = None
        self._finished = 0.0

    async def start(self) -> bool:
        """Start the command; False when it cannot be started, and `wait` will say why."""
        self.message_file.unlink(missing_ok=True)
        read_end, write_end = os.pipe()
        try:
            with self.log.open("ab") as log:
                self._shim = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", shim.__file__, str(write_end), str(self._lifeline)),
                    *self._what.argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd=self._what.cwd or self._pod_dir,
                    env=dict(self._what.env),
                    pass_fds=(write_end, self._lifeline),
                    start_new_session=True,
                )
        except OSError as error:  # workingDir is none, or the arguments are too long
            os.close(read_end)
            self._report.feed_eof()
            self._cannot_run = f"{error.filename or self._what.argv[0]}: {error.strerror}"
            return False
        finally:
            os.close(write_end)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._report), os.fdopen(read_end, "rb", buffering=0)
        )
        first = await self._next_report()
        self.pid = first.get("pid", 0)
        self._cannot_run, self._code = first.get("error", ""), first.get("code")
        return self.pid > 0

    async def wait(self) -> Ended:
        """Until the command has ended and no process of its session, nor any that descends from it, is left."""
        while report := await self._next_report():
            self._code, self._finished = report["code"], report["time"]
        if self._shim is not None:
            await self._shim.wait()
            if self._code is None:
                # Somebody killed the shim itself: what it can no longer end is found by its mark.
                self._code = KILLED
                await asyncio.to_thread(process.kill_marked, self._pod_dir)
        code, finished = self._code or 0, self._finished or time.time()
        if self._cannot_run:
            return self._ended(code or shim.NOT_FOUND, CONTAINER_CANNOT_RUN, self._cannot_run, finished)
        if code == 0:
            return self._ended(code, "Completed", self._message(failed=False), finished)
        return self._ended(
            code, "OOMKilled" if self._out_of_memory(code) else "Error", self._message(failed=True), finished
        )

    def terminate(self) -> None:
        """SIGTERM to the command; what it started is its own to stop."""
        self._ask(b"t")

    def kill(self) -> None:
        """SIGKILL to everything in the container."""
        self._ask(b"k")

    def _ask(self, what: bytes) -> None:
        if self._shim is not None and self._shim.stdin is not None and self._shim.returncode is None:
            with contextlib.suppress(ConnectionError, ProcessLookupError):  # it has just ended
                self._shim.stdin.write(what)
                self._shim.send_signal(signal.SIGCONT)  # a shim that somebody stopped would not read it

    async def _next_report(self) -> dict[str, Any]:
        line = await self._report.readline()
        parsed: dict[str, Any] = json.loads(line) if line else {}
        return parsed

    def _ended(self, code: int, reason: str, message: str, finished: float) -> Ended:
        container_id = f"process://{self.pid}" if self.pid else ""
        return Ended(code, reason, message, self.started, finished, container_id)

    def _out_of_memory(self, code: int) -> bool:
        """The kernel counts per cgroup, not per process: a SIGKILL while the count rose is taken for its doing."""
        return code == KILLED and (cgroup.oom_kills() or 0) > (self._oom_before or 0)

    def _message(self, *, failed: bool) -> str:
        text = read_end(self.message_file, MESSAGE_BYTES)
        if not text and failed and self._what.log_tail_on_error:
            text = "".join(read_end(self.log, LOG_TAIL_BYTES).splitlines(keepends=True)[-LOG_TAIL_LINES:])
        return text

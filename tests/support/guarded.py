"""A server of the tests, which ends when the process that started it does, however that dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHOWN_LINES = 25


class Guarded:
    """`command` runs until `stop`; its output is appended to `log`. `pid` is its own id, which takes signals."""

    def __init__(self, command: Sequence[object], log: Path) -> None:
        self.log = log
        scratch = tempfile.mkdtemp(prefix="guarded-", dir=log.parent)  # the guard removes a folder at its end
        read_end, self._lifeline = os.pipe()
        words = [sys.executable, "-m", "trainserve.serve.guard", str(read_end), scratch, "--", *map(str, command)]
        try:
            with log.open("ab") as output:
                self._guard = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    pass_fds=[read_end],
                    start_new_session=True,
                )
        finally:
            os.close(read_end)
        assert self._guard.stdout is not None
        with self._guard.stdout as first:
            said = first.readline()
        assert said.strip(), f"{words[5]} cannot be started:\n{self.tail()}"
        self.pid = int(said)

    def alive(self) -> bool:
        return self._guard.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = 20) -> int:
        """The command's exit code, 128 + n when signal n ended it."""
        return self._guard.wait(timeout_s)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End the command by a signal, then whatever is left of it; returns its exit code."""
        if self.alive():
            self.send(number)
            self.send(signal.SIGCONT)
        try:
            return self.wait()
        finally:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)

    def tail(self) -> str:
        """The end of what it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])

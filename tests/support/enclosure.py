"""Network, mounts and processes of their own: what runs inside ends and goes with its first process.

So nothing of a node has to be undone on the machine: its bridge, its packet filter's rules, its mounts and its
containers are the kernel's to remove, however the tests end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from support.guarded import Guarded
from support.runs import alive, wait_until
from trainserve.errors import EnvironmentProblem

WITHIN_S = 20.0


class Enclosure:
    """`first` is the program that holds it open: it has to reap what is left to it."""

    def __init__(self, first: Path, log: Path) -> None:
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._holder = Guarded([*unshare, first], log)
        self.pid = self._first(WITHIN_S)

    def words(self, *words: object) -> list[str]:
        """The command that runs this command inside."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--", *map(str, words)]

    def __call__(self, *words: object, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Run a command inside, and return what it prints. Raises EnvironmentProblem where it fails."""
        return run(*self.words(*words), stdin=stdin, timeout_s=timeout_s)

    def end(self) -> None:
        """Kill all that runs inside; returns when nothing does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not alive(self.pid), "everything on the node has ended", WITHIN_S)
        self._holder.stop()

    def _first(self, timeout_s: float) -> int:
        """Its process id out here: the only child of unshare, once that has all namespaces."""
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        give_up = time.monotonic() + timeout_s
        while self._holder.alive() and time.monotonic() < give_up:
            with contextlib.suppress(OSError):
                found = children.read_text().split()
                if found and "unshare" not in Path(f"/proc/{found[0]}/comm").read_text():
                    return int(found[0])
            time.sleep(0.01)
        self._holder.stop()
        raise EnvironmentProblem(
            f"no namespaces for a node can be made here:\n{self._holder.tail()}",
            hint="a real node needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN; use a virtual machine",
        )


def run(*words: object, stdin: str | None = None, timeout_s: float = 60) -> str:
    """What a command prints. Raises EnvironmentProblem, with what it complains of, where it fails."""
    done = subprocess.run(
        [*map(str, words)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise EnvironmentProblem(f"{' '.join(map(str, words))}: {done.returncode}\n{said}")
    return done.stdout

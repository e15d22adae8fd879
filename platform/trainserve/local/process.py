"""Which process is which: pids come again, so a process is known by what marks it in its environment."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from trainserve.kube.names import ENV_POD_DIR

PROC = Path("/proc")
POLL_S = 0.02
SUPERVISOR = "trainserve.local.supervisor"  # started with `python -m`, then the run's folder


def marked(folder: Path) -> list[int]:
    """Processes whose TRAINSERVE_POD_DIR is `folder` or below it: of those pods, whoever their parent is by now.

    A process keeps the environment that it was started with, so this finds what a dead supervisor left and can never
    find a stranger that got an old pid. Linux only: elsewhere the lifeline alone has to do.
    """
    found: list[int] = []
    if sys.platform != "linux":
        return found
    exact = f"{ENV_POD_DIR}={folder}".encode()
    for entry in os.scandir(PROC):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = Path(entry.path, "environ").read_bytes()
        except OSError:
            continue  # ended meanwhile, or another user's
        if any(item == exact or item.startswith(exact + b"/") for item in environ.split(b"\0")):
            found.append(int(entry.name))
    return found


def supervisors(folder: Path) -> list[int]:
    """Processes that supervise the run in `folder`, by their command. Linux only, as `marked`."""
    found: list[int] = []
    if sys.platform != "linux":
        return found
    words = b"".join(b"\0" + os.fsencode(word) for word in ("-m", SUPERVISOR, folder)) + b"\0"
    for entry in os.scandir(PROC):
        try:
            if entry.name.isdigit() and words in Path(entry.path, "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile
    return found


def kill_marked(folder: Path, timeout_s: float = 10.0) -> int:
    """SIGKILL to all of `marked(folder)` until none is left; returns how many there were.

    Raises TimeoutError when some do not go (a process may be stuck in the kernel).
    """
    give_up = time.monotonic() + timeout_s
    killed: set[int] = set()
    while left := marked(folder):
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes {left} of {folder} are still there {timeout_s:.0f} s after SIGKILL")
        for pid in left:
            killed.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # ended meanwhile
        time.sleep(POLL_S)
    return len(killed)

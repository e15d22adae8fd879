"""Loopback ports for jobs: free, outside the range that the system hands out, reserved across all runs of a user.

A port is reserved by a locked file in the temporary folder, from before the job starts until its generation has ended.
The lock goes with its process, however that dies; a bind tells whether a foreign program has the port.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

from trainserve.errors import EnvironmentProblem
from trainserve.kube.names import PORT

LOOPBACK = "127.0.0.1"
FIRST, LAST = 20_000, 65_000  # below are services' ports


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def ephemeral_range() -> tuple[int, int]:
    """Ports that the system gives to outgoing connections; a server's port there may be gone before it listens."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return 49_152, 65_535  # IANA's dynamic ports, which macOS and BSD use
    return int(low), int(high)


class Ports:
    """The ports that this process has reserved, by owner."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir(), f"trainserve-ports-{os.getuid()}")
        self._held: dict[str, tuple[int, int | None]] = {}  # owner -> port, file descriptor of the lock

    def port(self, owner: str, asked: int | None = None) -> int:
        """The port of `owner`, chosen at the first call: `asked`, else a free one.

        Raises EnvironmentProblem when there is no free port. Whether an asked one is free is the caller's to see.
        """
        if owner not in self._held:
            self._held[owner] = (asked, None) if asked is not None else self._reserve()
        return self._held[owner][0]

    def release(self, owner: str) -> None:
        """Give the port back; nothing happens when `owner` has none."""
        _, lock = self._held.pop(owner, (0, None))
        if lock is not None:
            os.close(lock)

    def _reserve(self) -> tuple[int, int]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        low, high = ephemeral_range()
        candidates = [port for port in range(FIRST, LAST) if not low <= port <= high and port != PORT]
        random.shuffle(candidates)
        for port in candidates:
            lock = os.open(self._folder / f"{port}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            if is_free(port):
                return port, lock
            os.close(lock)
        raise EnvironmentProblem(
            f"no free port from {FIRST} to {LAST} outside {low} to {high} on {LOOPBACK}",
            hint="end some of the programs that listen here",
        )

"""Loopback ports: free, outside the range that the system hands out, reserved across all processes of a user.

A port is reserved by a locked file in the temporary folder, from before its program starts until it has ended. The
lock goes with its process, however that dies; a bind tells whether a foreign program has the port.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import random
import socket
import tempfile
from pathlib import Path

from trainserve.errors import EnvironmentProblem
from trainserve.kube.names import PORT
from trainserve.machine import locks

LOOPBACK = "127.0.0.1"
LOOPBACK_HOSTS = frozenset({LOOPBACK, "localhost", "::1", "[::1]"})  # in an address an IPv6 host has brackets
FIRST, LAST = 20_000, 65_000  # below are services' ports


def loopback_of(owner: str) -> str:
    """A loopback address for `owner` alone: the same one whoever asks, without anything to look up or to write down.

    Linux answers the whole of 127.0.0.0/8. Of these, 127.0.0.0/16 is left to others; two owners among 1,000 get the
    same of the 16 million with a chance of 3 %, and then only meet where both listen on the same port.
    """
    net, _, _, _ = LOOPBACK.split(".")
    first, second, third = hashlib.sha256(owner.encode()).digest()[:3]
    return f"{net}.{first % 255 + 1}.{second}.{third % 254 + 1}"


def is_loopback(host: str) -> bool:
    """Whether what listens at this address, or under this name, is on this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def answers(host: str) -> bool:
    """Whether a server of this machine could listen on this address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def bind_problem(port: int) -> str | None:
    """Why a server could not listen on `port` of the loopback address now, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            return "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
    return None


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback address now."""
    return bind_problem(port) is None


def ephemeral_range() -> tuple[int, int]:
    """Ports that the system gives to outgoing connections; a server's port there may be gone before it listens."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:
        return 49_152, 65_535  # IANA's dynamic ports, which macOS and BSD use
    return int(low), int(high)


class Reserved:
    """The ports that this process has reserved, by owner; given back by `release`, or when the process ends."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir(), f"trainserve-ports-{os.getuid()}")
        self._held: dict[str, tuple[int, int | None]] = {}  # owner -> port, file descriptor of the lock

    def port(self, owner: str, asked: int | None = None) -> int:
        """The port of `owner`, chosen at the first call: `asked`, else a free one.

        Raises EnvironmentProblem when there is no free port, or none can be reserved. Whether an asked one is free is
        the caller's to see.
        """
        if owner not in self._held:
            self._held[owner] = (asked, None) if asked is not None else self._reserve()
        return self._held[owner][0]

    def release(self, owner: str) -> None:
        """Give the port back; nothing happens when `owner` has none."""
        _, lock = self._held.pop(owner, (0, None))
        if lock is not None:
            os.close(lock)

    def release_all(self) -> None:
        """Give all ports back."""
        for owner in list(self._held):
            self.release(owner)

    def _reserve(self) -> tuple[int, int]:
        low, high = ephemeral_range()
        taken = {PORT, *(port for port, _ in self._held.values())}
        candidates = [port for port in range(FIRST, LAST) if not low <= port <= high and port not in taken]
        random.shuffle(candidates)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for port in candidates:
                lock = locks.take(self._folder / f"{port}.lock", patience_s=0)
                if lock is None:
                    continue
                if is_free(port):
                    return port, lock
                os.close(lock)
        except OSError as error:
            raise EnvironmentProblem(
                f"no port can be reserved: {error.filename or self._folder}: {error.strerror or error}",
                hint=f"remove {self._folder}, or set TMPDIR to a folder of yours",
            ) from error
        raise EnvironmentProblem(
            f"no free port from {FIRST} to {LAST} outside {low} to {high} on {LOOPBACK}",
            hint="end some of the programs that listen here",
        )

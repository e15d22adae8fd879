"""Ports of a server: the user's, checked, or free ones on loopback outside the range the kernel hands out."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import EnvironmentProblem, UserError

LOOPBACK = "127.0.0.1"
LOWEST = 20_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Flag of each port that a user can give.
FLAGS = {"rest": "--port", "grpc": "--grpc-port", "management": "--management-port"}


@dataclass(frozen=True)
class Ports:
    """All five of TorchServe's ports, each on loopback."""

    rest: int
    grpc: int
    management: int
    metrics: int
    grpc_management: int


def choose_ports(given: Mapping[str, int | None]) -> Ports:
    """The given ports (keys of FLAGS) and free ones for the rest.

    Raises UserError for a number that is no port or is given twice, EnvironmentProblem naming flag and port where one
    is in use. Between this check and TorchServe's own bind somebody else may take a port: the start then fails.
    """
    chosen: dict[str, int] = {}
    for name, port in given.items():
        if port is None:
            continue
        flag = FLAGS[name]
        if not 1 <= port <= 65_535:
            raise UserError(f"{flag} {port}: a port is a number from 1 to 65535")
        if port in chosen.values():
            raise UserError(f"{flag} {port}: this port is given twice")
        problem = _bind_problem(port)
        if problem is not None:
            raise EnvironmentProblem(
                f"{flag} {port}: port {port} on {LOOPBACK} {problem}",
                hint=f"choose another, or leave {flag} out for a free one",
            )
        chosen[name] = port
    for name in ("rest", "grpc", "management", "metrics", "grpc_management"):
        if name not in chosen:
            chosen[name] = free_port(set(chosen.values()))
    return Ports(**chosen)


def free_port(taken: set[int]) -> int:
    """A port that nothing listens on. Outside the ephemeral range no outgoing connection can take it meanwhile."""
    highest = _first_ephemeral() - 1
    for _ in range(1000):
        port = random.randint(LOWEST, highest)
        if port not in taken and _bind_problem(port) is None:
            return port
    raise EnvironmentProblem(f"no free port from {LOWEST} to {highest} on {LOOPBACK}")


def _first_ephemeral() -> int:
    try:
        first = int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768  # not Linux: its default range begins here, others' higher
    return first if first > LOWEST + 1000 else 32_768


def _bind_problem(port: int) -> str | None:
    """Why TorchServe could not listen on `port`, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: TIME_WAIT does not matter
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is in use"
            return f"cannot be used: {error.strerror}"
    return None

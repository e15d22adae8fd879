"""Ports of a server: the user's, checked, or free ones on loopback, reserved while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.ports import LOOPBACK, Reserved, bind_problem

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


def port_number(flag: str, port: int) -> int:
    """`port`, if it is one. Raises UserError."""
    if not 1 <= port <= 65_535:
        raise UserError(f"{flag} {port}: a port is a number from 1 to 65535")
    return port


def in_use(flag: str, port: int, problem: str) -> EnvironmentProblem:
    """What to say of a given port that cannot be listened on."""
    return EnvironmentProblem(
        f"{flag} {port}: port {port} on {LOOPBACK} {problem}",
        hint=f"choose another, or leave {flag} out for a free one",
    )


@contextmanager
def chosen_ports(given: Mapping[str, int | None]) -> Iterator[Ports]:
    """The given ports (keys of FLAGS) and free ones for the rest, reserved until the block ends.

    Raises UserError for a number that is no port or is given twice, EnvironmentProblem naming flag and port where one
    is in use. Between this check and TorchServe's own bind a foreign program may take a port: the start then fails.
    """
    chosen: dict[str, int] = {}
    for name, port in given.items():
        if port is None:
            continue
        flag = FLAGS[name]
        port_number(flag, port)
        if port in chosen.values():
            raise UserError(f"{flag} {port}: this port is given twice", hint=f"choose another, or leave {flag} out")
        problem = bind_problem(port)
        if problem is not None:
            raise in_use(flag, port, problem)
        chosen[name] = port
    reserved = Reserved()
    try:
        # The given ones first, so that none of them is chosen for another.
        for name in sorted((field.name for field in fields(Ports)), key=lambda name: name not in chosen):
            chosen[name] = reserved.port(name, chosen.get(name))
        yield Ports(**chosen)
    finally:
        reserved.release_all()

from __future__ import annotations

import socket

import pytest

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.serve.ports import LOOPBACK, choose_ports


@pytest.fixture
def busy() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_free_ports_differ_and_lie_below_the_ephemeral_range() -> None:
    ports = choose_ports({"rest": None})
    numbers = [ports.rest, ports.grpc, ports.management, ports.metrics, ports.grpc_management]
    assert len(set(numbers)) == 5
    assert all(20_000 <= number < 32_768 for number in numbers)


def test_given_ports_are_kept() -> None:
    free = choose_ports({}).rest
    assert choose_ports({"rest": free}).rest == free


@pytest.mark.parametrize(("name", "flag"), [("rest", "--port"), ("grpc", "--grpc-port")])
def test_a_port_in_use_is_named_with_its_flag(busy: int, name: str, flag: str) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"{flag} {busy}: port {busy} on 127.0.0.1 is in use") as caught:
        choose_ports({name: busy})
    assert f"leave {flag} out" in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 70_000])
def test_no_port(port: int) -> None:
    with pytest.raises(UserError, match=rf"--port {port}: a port is a number from 1 to 65535"):
        choose_ports({"rest": port})


def test_one_port_for_two() -> None:
    free = choose_ports({}).rest
    with pytest.raises(UserError, match=rf"--grpc-port {free}: this port is given twice"):
        choose_ports({"rest": free, "grpc": free})

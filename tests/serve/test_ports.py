from __future__ import annotations

import socket

import pytest

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.ports import LOOPBACK, ephemeral_range
from trainserve.serve.ports import chosen_ports


@pytest.fixture
def busy() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_free_ports_of_two_servers_differ_and_lie_outside_the_ephemeral_range() -> None:
    with chosen_ports({"rest": None}) as one, chosen_ports({}) as other:
        numbers = [*vars(one).values(), *vars(other).values()]
    assert len(set(numbers)) == 10
    low, high = ephemeral_range()
    assert all(20_000 <= number < 65_000 and not low <= number <= high for number in numbers)


def test_given_ports_are_kept() -> None:
    with chosen_ports({}) as free:
        pass
    with chosen_ports({"rest": free.rest}) as ports:
        assert ports.rest == free.rest


@pytest.mark.parametrize(("name", "flag"), [("rest", "--port"), ("grpc", "--grpc-port")])
def test_a_port_in_use_is_named_with_its_flag(busy: int, name: str, flag: str) -> None:
    with (
        pytest.raises(EnvironmentProblem, match=rf"{flag} {busy}: port {busy} on 127.0.0.1 is in use") as caught,
        chosen_ports({name: busy}),
    ):
        pass
    assert f"leave {flag} out" in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 70_000])
def test_no_port(port: int) -> None:
    with (
        pytest.raises(UserError, match=rf"--port {port}: a port is a number from 1 to 65535"),
        chosen_ports({"rest": port}),
    ):
        pass


def test_one_port_for_two() -> None:
    given = {"rest": 21_000, "grpc": 21_000}
    with pytest.raises(UserError, match=r"--grpc-port 21000: this port is given twice"), chosen_ports(given):
        pass

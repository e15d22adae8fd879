"""Where the operator answers: addresses that make sense, checks that can fail, nothing left behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.operator.endpoints import SILENT_S, Heartbeat, serving
from trainserve.operator.settings import Address, parse_address, parse_namespaces

LOOPBACK = "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("[::1]:8080", Address("::1", 8080)),
        ("localhost:65535", Address("localhost", 65535)),
        ("0", None),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    assert parse_address(text) == address
    if address is not None:
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8080",
        "8080",
        "127.0.0.1",
        "127.0.0.1:",
        "a:b",
        "a:65536",
        "::1:8080",
        "a:-1",
        "[::1]",
        "[::1]:",
        "[::1:80",
        "::1]:80",
        "[]:80",
        "[[::1]]:80",
        "[localhost]:80",
        "[127.0.0.1]:80",
        "[::1]:99999",
        "*:80",
        "a b:80",
        "-a:80",
        "٣:80",
        "a:٣",
        "http://a:80",
        " a:80",
        "a:80 ",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="expected HOST:PORT"):
        parse_address(text)


def test_namespaces() -> None:
    assert parse_namespaces(("a,b", "c, a"), "--namespace") == ("a", "b", "c")
    assert parse_namespaces((), "--namespace") == ()
    for empty in ("", ",", "a,,b"):  # an unset variable of the shell must not mean all namespaces
        with pytest.raises(UserError, match="a name is empty"):
            parse_namespaces((empty,), "--namespace")
    for wrong in ("A", "a_b", "-a", "a-", "a.b", "x" * 64, "a/b", "*"):
        with pytest.raises(UserError, match="--namespace"):
            parse_namespaces((wrong,), "--namespace")


def served(
    body: Callable[[str], Awaitable[None]], *, health: list[str] | None = None, ready: list[str] | None = None
) -> None:
    async def play() -> None:
        async with serving(
            Address(LOOPBACK, 0),
            health=lambda: health or [],
            ready=lambda: ready or [],
            metrics=lambda: b"x 1\n",
            metrics_type="text/plain; version=1.0.0; charset=utf-8",
        ) as address:
            assert address.port != 0
            await body(f"http://{address}")

    asyncio.run(play())


def test_all_is_well() -> None:
    async def body(url: str) -> None:
        async with aiohttp.ClientSession(url) as session:
            for path, text in (("/healthz", "ok\n"), ("/readyz", "ok\n"), ("/metrics", "x 1\n")):
                async with session.get(path) as answer:
                    assert (answer.status, await answer.text()) == (200, text)
            assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
            async with session.get("/debug") as answer:
                assert answer.status == 404
            async with session.post("/metrics") as answer:
                assert answer.status == 405

    served(body)


def test_what_is_wrong_is_said() -> None:
    async def body(url: str) -> None:
        async with aiohttp.ClientSession(url) as session:
            async with session.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (500, "it hangs\n")
            async with session.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "pods\nservices\n")

    served(body, health=["it hangs"], ready=["pods", "services"])


def test_a_port_that_is_taken() -> None:
    async def body() -> None:
        with socket.create_server((LOOPBACK, 0)) as taken:
            address = Address(LOOPBACK, taken.getsockname()[1])
            with pytest.raises(EnvironmentProblem) as refused:
                async with serving(address, health=list, ready=list, metrics=bytes, metrics_type="text/plain"):
                    pass
        assert str(address) in refused.value.message
        assert "another process listens there" in str(refused.value.hint)

    asyncio.run(body())


def test_a_loop_that_gives_no_sign_is_a_problem() -> None:
    now = [100.0]
    heartbeat = Heartbeat(lambda: now[0])
    now[0] += SILENT_S
    assert heartbeat.problems() == []
    now[0] += 1
    assert heartbeat.problems() == ["the event loop has given no sign for 31 s"]
    heartbeat.beat(late_s=0.4)
    heartbeat.beat(late_s=0.1)
    assert heartbeat.problems() == []
    assert heartbeat.lag_s() == 0.4
    for _ in range(9):
        heartbeat.beat(late_s=0.0)
    assert heartbeat.lag_s() == 0.1

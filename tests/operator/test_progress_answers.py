"""What a pod answers to the question how far it is: kind ones, slow ones, hostile ones."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.askedpods import pod
from trainserve.machine.ports import LOOPBACK
from trainserve.operator.progress import (
    ANSWER_BYTES,
    ask_at_address,
    is_pod_address,
    read_progress,
)
from trainserve.spec.pytorchjob import Progress


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("192.168.0.7", True),
        ("100.64.3.4", True),
        ("fd00::7", True),
        ("2001:db8::7", True),
        (LOOPBACK, False),
        ("::1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("::ffff:169.254.169.254", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
    ],
)
def test_addresses_of_pods(address: str, allowed: bool) -> None:
    assert is_pod_address(ip_address(address)) is allowed


@pytest.mark.parametrize("address", ["", "localhost", "example.org", "10.0.0.1:80", "10.0.0.1/x", LOOPBACK])
def test_what_is_no_address_of_a_pod_is_not_connected_to(address: str) -> None:
    target = pod(port=1)
    target["status"]["podIP"] = address
    with pytest.raises(ValueError, match="address"):
        asyncio.run(ask_at_address(target, 1))


Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _ask_server(speak: Speak, limit_s: float = 5.0) -> bytes:
    async def ask() -> bytes:
        ended = asyncio.Event()

        async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await speak(reader, writer)
            finally:
                writer.close()
                ended.set()

        server = await asyncio.start_server(answering, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(limit_s):
                return await ask_at_address(pod(port=port), port, lambda address: True)
        finally:
            await asyncio.wait_for(ended.wait(), 10)  # also where we gave up
            server.close()
            await server.wait_closed()

    return asyncio.run(ask())


def _says(answer: bytes, seen: list[bytes] | None = None) -> Speak:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        try:
            writer.write(answer)
            await writer.drain()
            writer.close()
        except ConnectionError:
            writer.transport.abort()

    return speak


def test_a_kind_server_is_understood() -> None:
    seen: list[bytes] = []
    body = _ask_server(_says(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"epoch": 1}', seen))
    assert read_progress(body) == {"epoch": 1}
    assert seen[0].startswith(b"GET /progress HTTP/1.0\r\nHost: ")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * ANSWER_BYTES + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * ANSWER_BYTES,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"\xff" * 1000,
    ],
)
def test_answers_that_are_refused_whole(answer: bytes) -> None:
    with pytest.raises(ValueError, match="its answer"):
        _ask_server(_says(answer))


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00\x00",
    ],
)
def test_nothing_is_unpacked(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|decode"):
        read_progress(_ask_server(_says(body)))


def test_an_endless_answer_and_an_endlessly_slow_one_end() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"1" * 4096)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            writer.transport.abort()

    with pytest.raises(ValueError, match="more than 65536 bytes"):
        _ask_server(endless)
    with pytest.raises(TimeoutError):
        _ask_server(slow, limit_s=0.2)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"{", "Expecting"),
        (b'{"loss": NaN}', "NaN"),
        (b'{"loss": -Infinity}', "Infinity"),
        (b'{"loss": 1e999}', "its loss"),
        (b'{"step": -1}', "its step"),
        (b'{"step": 1.5}', "its step"),
        (b'{"step": true}', "its step"),
        (b'{"step": "7"}', "its step"),
        (b'{"step": 1' + b"0" * 5000 + b"}", "digits|its step"),
        (b'{"epoch": 4294967296}', "its epoch"),
        (b'{"top1": 1.01}', "its top1"),
        (b'{"top1": true}', "its top1"),
        (b'{"etaSeconds": -5}', "its etaSeconds"),
        (b'{"stalled": "yes"}', "its stalled"),
        (b'{"stalled": 1}', "its stalled"),
        (b'{"loss": {"a": 1}}', "its loss"),
        (b'{"loss": "' + b"a" * 2**20 + b'"}', "its loss"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 12_000, "nested too deeply"),
        (b"\xff\xfe\x00", "codec"),
    ],
)
def test_values_that_are_refused(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        read_progress(body)
    assert len(str(refused.value)) < 300


def test_a_loss_that_explodes_is_told_as_long_as_it_is_a_number() -> None:
    assert read_progress(b'{"loss": -1e300}') == {"loss": -1e300}


def test_unknown_fields_and_nulls_are_dropped() -> None:
    body = b'{"epoch": 1, "loss": null, "message": "<script>", "conditions": [], "__proto__": {}}'
    assert read_progress(body) == {"epoch": 1}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["epoch", "step", "loss", "top1", "etaSeconds", "stalled", "summary", "x"])


@settings(deadline=None)
@given(st.dictionaries(fields, anything, max_size=4))
def test_whatever_a_pod_says_only_numbers_in_range_come_through(said: dict[str, Any]) -> None:
    try:
        kept = read_progress(json.dumps(said).encode())
    except ValueError:
        return
    assert all(type(value) in (int, float, bool) and math.isfinite(value) for value in kept.values())
    assert all(abs(value) <= 10**15 for name, value in kept.items() if name != "loss")
    Progress.model_validate(kept)
    assert kept.keys() <= said.keys()

"""A pod's answer through the API server's proxy: of a stranger, on the API server's own address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from trainserve.kube import names
from trainserve.kube.client import connect
from trainserve.machine.ports import LOOPBACK
from trainserve.operator.progress import read_progress, through_api_server

PATH = "/api/v1/namespaces/team/pods/flowers-master-0:9464/proxy/progress"
POD = {"metadata": {"namespace": "team", "name": "flowers-master-0"}}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiServer:
    """Answers discovery, and `answer` for the pod; `seen` are the requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        if request.path == "/api/v1":
            return web.json_response({"resources": [{"name": "pods"}]})
        return await self.answer(request)


def _ask(answer: Answer, folder: Path, times: int = 1) -> tuple[bytes, ApiServer, list[tuple[str, str, int]]]:
    server, told = ApiServer(answer), []

    async def ask() -> bytes:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, LOOPBACK, 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://{LOOPBACK}:{port}"}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        try:
            async with connect(
                str(path), on_request=lambda verb, kind, status, seconds: told.append((verb, kind.plural, status))
            ) as cluster:
                through = through_api_server(cluster.read_pod)
                with pytest.raises(ConnectionError, match="no connection"):
                    await through(POD, 9464)
                assert await cluster.serves(names.POD)
                for _ in range(times):
                    body = await through(POD, 9464)
                assert await cluster.serves(names.POD)  # the client itself is as it was
                return body
        finally:
            await runner.cleanup()

    return asyncio.run(ask()), server, told


async def _kind(request: web.Request) -> web.StreamResponse:
    response = web.json_response({"epoch": 1})
    response.set_cookie("session", "of the pod")
    return response


def test_a_pod_is_asked_by_its_name_and_port_with_our_credentials(tmp_path: Path) -> None:
    body, server, told = _ask(_kind, tmp_path, times=2)
    assert read_progress(body) == {"epoch": 1}
    assert [request.path for request in server.seen[1:]] == [PATH, PATH]
    assert server.seen[1].headers["Authorization"] == "Bearer secret"
    assert "Cookie" not in server.seen[2].headers  # what a pod sets is not the API server's to hear
    assert told.count(("get", "pods", 200)) >= 2


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/api/v1/namespaces/kube-system/secrets"})

    with pytest.raises(ValueError, match="HTTP status 302"):
        _ask(redirect, tmp_path)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_what_a_pod_answers_makes_us_neither_wait_nor_read_credentials_again(status: int, tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="no" * 10_000, headers={"Retry-After": "3"})

    with pytest.raises(ValueError, match=f"HTTP status {status}") as refused:
        _ask(refuse, tmp_path)
    assert len(str(refused.value)) < 300


def test_an_answer_without_end_is_cut(tmp_path: Path) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"1" * 65536)
        except ConnectionError:
            return response

    with pytest.raises(ValueError, match="more than 65536 bytes"):
        _ask(endless, tmp_path)


def test_nothing_is_unpacked(tmp_path: Path) -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b\x08\x00", headers={"Content-Encoding": "gzip"})

    body, _, _ = _ask(packed, tmp_path)
    assert body == b"\x1f\x8b\x08\x00"

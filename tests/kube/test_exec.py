"""A command in a container, against a server that speaks the kubelet's channels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import WSMsgType, web

from trainserve.errors import EnvironmentProblem
from trainserve.kube import client, names
from trainserve.kube.cluster import ApiError, NotFound

STATUS = {"metadata": {}, "status": "Success"}


@asynccontextmanager
async def connected(tmp_path: Path, status: dict[str, object]) -> AsyncIterator[tuple[client.KubeCluster, list[str]]]:
    """A client of a server whose one pod sends back what it is sent, until `end`; then it complains."""
    asked: list[str] = []

    async def run(request: web.Request) -> web.StreamResponse:
        asked.append(request.query_string)
        if request.match_info["pod"] != "there":
            return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound", "message": "no"}, status=404)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        assert socket.ws_protocol == "v5.channel.k8s.io"
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            assert message.data[:1] == b"\0"
            if message.data[1:] == b"end":
                await socket.send_bytes(b"\2first complaint\nlast complaint\n")
                await socket.send_bytes(b"\3" + json.dumps(status).encode())
                break
            await socket.send_bytes(b"\1" + message.data[1:])
        return socket

    async def get(request: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": "there"}})

    application = web.Application()
    application.router.add_get("/api/v1/namespaces/team/pods/{pod}/exec", run)
    application.router.add_get("/api/v1/namespaces/team/pods/{pod}", get)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "a-token-of-nobody"}}],
    }  # fmt: skip
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    try:
        async with client.connect(str(file)) as cluster:
            await cluster.get(names.POD, "team", "there")
            yield cluster, asked
    finally:
        await runner.cleanup()


def test_what_is_written_is_read_until_the_command_ends(tmp_path: Path) -> None:
    async def work() -> None:
        async with connected(tmp_path, STATUS) as (cluster, asked):
            async with cluster.exec("team", "there", "main", ["cat", "a b"]) as running:
                await running.write(b"\0\1\2 anything")
                await running.write(b"end")
                assert b"".join([piece async for piece in running.read()]) == b"\0\1\2 anything"
            assert asked == ["stdin=1&stdout=1&stderr=1&container=main&command=cat&command=a b"]

    asyncio.run(work())


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def work() -> None:
        failed = {"status": "Failure", "message": "command terminated with exit code 1"}
        async with (
            connected(tmp_path, failed) as (cluster, _),
            cluster.exec("team", "there", "main", ["x"]) as running,
        ):
            await running.write(b"end")
            with pytest.raises(EnvironmentProblem, match="failed: last complaint"):
                [piece async for piece in running.read()]

    asyncio.run(work())


def test_a_pod_that_is_not_there_is_the_servers_refusal(tmp_path: Path) -> None:
    async def work() -> None:
        async with connected(tmp_path, STATUS) as (cluster, _):
            with pytest.raises((NotFound, ApiError)) as caught:
                async with cluster.exec("team", "gone", "main", ["x"]):
                    pytest.fail("it is not there")
            assert caught.value.status == 404

    asyncio.run(work())

"""Runs are followed on while the API server is away: no line is lost, and it is said once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.kubectl import Kubectl
from support.operating import Operator
from support.playedkubelet import PlayedKubelet, playing
from support.real import Team, connected
from support.scenario import pytorchjob
from support.testserver import OwnServer, Server
from support.typist import Typist
from trainserve.kube import names


@pytest.fixture
def server(own_server: OwnServer) -> Server:
    return own_server.server


@asynccontextmanager
async def kubelet_of(kubectl: Kubectl, folder: Path) -> AsyncIterator[PlayedKubelet]:
    assert kubectl.namespace
    async with (
        connected(str(kubectl.kubeconfig)) as cluster,
        playing(Team(cluster, kubectl.namespace), kubectl, folder) as kubelet,
    ):
        yield kubelet


async def test_logs_and_wait_go_on_when_the_api_server_is_back(
    own_server: OwnServer, kubectl: Kubectl, operator: Operator, team: Team, tmp_path: Path
) -> None:
    assert kubectl.namespace
    typist = Typist(kubectl.kubeconfig, tmp_path, kubectl.namespace)
    async with kubelet_of(kubectl, tmp_path) as kubelet:
        await team.create(kubelet.place(pytorchjob(workers=0)))
        await team.until_pods(1, phase="Pending")
        log = await kubelet.run("flowers-master-0")
        log.write("before")
        await team.until_state(names.RUNNING)
        async with typist.going("logs", "-f", typist.run) as following, typist.going("wait", typist.run) as waiting:
            await following.until("before")
            await asyncio.to_thread(own_server.control_plane.stop_api_server)
            log.write("meanwhile", after_s=1.0)
            log.cut()
            for going in (following, waiting):
                await going.until("the API server does not answer: asked again for 2m")
            log.write("still away", after_s=1.5)
            await asyncio.to_thread(own_server.come_back)
            await following.until("still away")
            await kubelet.end("flowers-master-0", 0)
            assert await following.end() == 0, following.said
            assert await waiting.end() == 0, waiting.said
        assert [line for _, line in following.lines] == [
            f"[flowers-master-0.g1] {text}" for text in ("before", "meanwhile", "still away")
        ]
        assert len([line for line in following.said if "does not answer" in line]) == 1
        assert len([line for line in following.said if "answers again" in line]) == 1

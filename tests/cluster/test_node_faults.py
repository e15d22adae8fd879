"""A node whose API server is away: pods go on, and what there was to tell is told later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kubectl import Kubectl
from support.nodeprocess import AddNode, Pods, added_nodes
from support.real import Team
from support.runs import terminated, wait_until
from support.testserver import OwnServer, Server
from trainserve.kube import names
from trainserve.kube.names import POD


@pytest.fixture
def server(own_server: OwnServer) -> Server:
    return own_server.server


@pytest.fixture
def add_node(kubectl: Kubectl, tmp_path: Path) -> Iterator[AddNode]:
    yield from added_nodes(kubectl, tmp_path)


async def test_pods_go_on_while_the_api_server_is_away_and_it_is_told_later(
    add_node: AddNode, team: Team, own_server: OwnServer
) -> None:
    node = add_node("one")
    node.wait_ready()
    pods, control_plane = Pods(team), own_server.control_plane
    wait = "while [ ! -e $TRAINSERVE_POD_DIR/go ]; do sleep 0.05; done;"
    for name, end in (("ends", "exit 3"), ("restarts", "exit 4"), ("goes-on", "sleep 99")):
        policy = "OnFailure" if name == "restarts" else "Never"
        await pods.create(name, f"echo began; {wait} echo went; {end}", restartPolicy=policy)
    for name in ("ends", "restarts", "goes-on"):
        await pods.phase(name, "Running")
    control_plane.stop_api_server()
    for folder in node.pods.iterdir():
        (folder / "go").touch()
    await asyncio.to_thread(
        wait_until, lambda: node.log_of("restarts", "main").count("began") >= 3, "it is restarted, with nobody to tell"
    )
    control_plane.start_api_server()
    assert terminated(await pods.phase("ends", "Failed"))["exitCode"] == 3
    again = await pods.until(
        "restarts", lambda found: found["status"]["containerStatuses"][0]["restartCount"] >= 2, timeout_s=60
    )
    assert again["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 4
    assert (await pods.get("goes-on"))["status"]["phase"] == "Running"
    # The node hears of changes again, and is still one.
    await team.cluster.delete(POD, team.namespace, "goes-on", grace_period_s=1)
    await pods.gone("goes-on")
    ready = (await team.cluster.get(names.NODE, None, node.name))["status"]["conditions"]
    assert [condition["status"] for condition in ready if condition["type"] == names.NODE_READY] == ["True"]

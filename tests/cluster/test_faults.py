"""What goes wrong around the controller changes nothing in the end: it dies, or its API server fails it."""

from __future__ import annotations

import asyncio
import random

import pytest

from support.operating import Operator
from support.real import Team, generation_of, state_of
from support.scenario import pytorchjob
from support.testserver import OwnServer, Server
from support.unreliable import Failing, kept_alive
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.operator.main import Controller

SEEDS = range(20)  # calls at which a controller dies
IN_ONE_TEST = 5
CALLS = 40  # that one life of this job takes, about
AWAY_S = 60.0


async def _live(team: Team, name: str) -> Manifest:
    """A job's life: it runs, a worker is killed, the gang starts again, the Master ends. Returns its status."""
    job = pytorchjob(name, workers=2, backoffLimit=3)
    await team.create(job)
    await team.until_pods(3, name=name, timeout_s=60)
    await team.until_state(names.RUNNING, name, timeout_s=60)
    await team.end(f"{name}-worker-1", 139)
    # The gang after it; or one more, free of charge: KWOK deletes by name without the uid, and when it is late, what it
    # takes away is the new pod of that name.
    again = await team.until(_runs_again, "the gang runs again", name, timeout_s=90)
    generation = int(again["status"]["generation"])
    assert generation <= 3, again["status"]
    await team.until_pods(3, generation=generation, name=name, timeout_s=60)
    await team.end(f"{name}-master-0", 0)
    status: Manifest = (await team.until_state(names.SUCCEEDED, name, timeout_s=60))["status"]
    pods = await team.children(name=name)
    assert [generation_of(pod) for pod in pods] == [status["generation"]] * 3
    assert len(await team.children(names.SERVICE, name)) == 3
    counted = [entry for entry in status["history"] if not entry["free"]]
    assert len(counted) == 1, status["history"]
    return status


def _runs_again(job: Manifest) -> bool:
    status = job["status"]
    active = sum(counts.get("active") or 0 for counts in status["replicaStatuses"].values())
    return int(status["generation"]) >= 2 and state_of(job) == names.RUNNING and active == 3


@pytest.mark.parametrize("first", range(0, len(SEEDS), IN_ONE_TEST))
async def test_a_controller_killed_at_any_call_leaves_the_same_end(team: Team, first: int) -> None:
    for seed in SEEDS[first : first + IN_ONE_TEST]:
        dice = random.Random(seed)
        deaths = [(dice.randrange(CALLS // 2), dice.random() < 0.5) for _ in range(2)]
        controlling = asyncio.create_task(kept_alive(team.cluster, team.namespace, deaths))
        try:
            status = await _live(team, f"job-{seed}")
        finally:
            controlling.cancel()
            await asyncio.wait([controlling])
        assert not deaths, f"seed {seed}: it has not died yet"
        assert status["restarts"] == 1, f"seed {seed}"
        assert [each["type"] for each in status["conditions"]] == [names.CREATED, names.RUNNING, names.SUCCEEDED]


@pytest.mark.parametrize("seed", range(3))
async def test_errors_of_the_server_at_every_third_call_leave_the_same_end(team: Team, seed: int) -> None:
    failing = Failing(team.cluster, seed)
    controller = Controller(failing, team.namespace)  # type: ignore[arg-type]
    controlling = asyncio.create_task(controller.run())
    try:
        status = await _live(team, "flowers")
    finally:
        controlling.cancel()
        await asyncio.wait([controlling])
    assert failing.failed > 10
    assert status["restarts"] == 1


class TestAway:
    @pytest.fixture
    def server(self, own_server: OwnServer) -> Server:
        return own_server.server

    @pytest.mark.timeout(240)
    async def test_an_api_server_that_was_away_for_a_minute_finds_the_controller_at_work(
        self, team: Team, operator: Operator, own_server: OwnServer
    ) -> None:
        await team.create(pytorchjob(workers=2, backoffLimit=3))
        await team.until_pods(3)
        await team.until_state(names.RUNNING)
        own_server.control_plane.stop_api_server()
        await asyncio.sleep(AWAY_S)
        own_server.come_back()
        await team.until(lambda job: state_of(job) == names.RUNNING, "runs as before", timeout_s=60)
        await team.end("flowers-worker-0", 139)
        await team.until_pods(3, generation=2, timeout_s=90)
        await team.end("flowers-master-0", 0)
        status = (await team.until_state(names.SUCCEEDED, timeout_s=60))["status"]
        assert (status["restarts"], status["generation"]) == (1, 2)
        assert operator.stop() == 0  # the process of before

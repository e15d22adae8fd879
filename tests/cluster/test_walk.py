"""A seeded walk through a job's life on a real API server: people and pods do what they like, and invariants hold.

The short form of tests/operator/test_machine.py, which is the same in memory, call by call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest

from support.operating import Operator
from support.real import Team, generation_of
from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Conflict, Manifest, NotFound

STEPS = 12
PAUSE_S = 0.7
LOOK_EVERY_S = 0.05


class Invariants:
    """Looked at all the time from a client of its own: a breach is remembered with what was seen."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._restarts = 0
        self.looks = 0
        self.breaches: list[str] = []

    async def watch(self) -> None:
        while True:
            self._check(await self._team.job(), await self._team.children())
            self.looks += 1
            await asyncio.sleep(LOOK_EVERY_S)

    def _check(self, job: Manifest, pods: list[Manifest]) -> None:
        seen = [(pod["metadata"]["name"], generation_of(pod), pod["status"].get("phase")) for pod in pods]
        alive = [pod for pod in pods if pod["status"].get("phase") not in {"Succeeded", "Failed"}]
        if len({generation_of(pod) for pod in alive}) > 1:
            self.breaches.append(f"two generations alive: {seen}")
        indices = [
            (pod["metadata"]["labels"][names.LABEL_REPLICA_TYPE], pod["metadata"]["labels"][names.LABEL_REPLICA_INDEX])
            for pod in alive
        ]
        if len(indices) != len(set(indices)):
            self.breaches.append(f"two pods of one index: {seen}")
        restarts = int((job.get("status") or {}).get("restarts") or 0)
        if restarts < self._restarts:
            self.breaches.append(f"restarts went from {self._restarts} to {restarts}")
        self._restarts = restarts


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_people_and_pods_do_the_job_keeps_its_rules_and_ends(
    team: Team, operator: Operator, seed: int
) -> None:
    dice = random.Random(seed)
    stranger = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "flowers-else", "namespace": team.namespace},
    }
    theirs = await team.cluster.create(
        names.SERVICE, team.namespace, {**stranger, "spec": {"clusterIP": "None", "selector": {"a": "b"}}}
    )
    await team.create(pytorchjob(workers=3, backoffLimit=50))
    await team.until_pods(4, timeout_s=60)

    async def some_pod(do: Callable[[str], Awaitable[None]]) -> None:
        if pods := await team.children():
            await do(str(dice.choice(pods)["metadata"]["name"]))

    async def kill(pod: str) -> None:
        found = await team.cluster.get(names.POD, team.namespace, pod)
        if found["status"].get("phase") == "Running":
            await team.end(pod, dice.choice([137, 139, 143]))

    async def evict(pod: str) -> None:
        await team.set_status(pod, {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"})

    async def lose_service() -> None:
        if services := await team.children(names.SERVICE):
            await team.cluster.delete(names.SERVICE, team.namespace, dice.choice(services)["metadata"]["name"])

    async def restart_operator() -> None:
        operator.kill()
        await asyncio.to_thread(operator.start)

    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: some_pod(kill),
        lambda: some_pod(evict),
        lambda: some_pod(team.remove),
        lose_service,
        lambda: team.patch({"spec": {"runPolicy": {"suspend": True}}}),
        lambda: team.patch({"spec": {"runPolicy": {"suspend": False}}}),
        lambda: team.patch({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": dice.randint(1, 4)}}}}),
        restart_operator,
    ]
    invariants = Invariants(team)
    watching = asyncio.create_task(invariants.watch())
    for _ in range(STEPS):
        with contextlib.suppress(NotFound, Conflict):  # what the step was about went meanwhile
            await dice.choice(steps)()
        await asyncio.sleep(dice.random() * 2 * PAUSE_S)

    await team.patch({"spec": {"runPolicy": {"suspend": False}, "pytorchReplicaSpecs": {"Worker": {"replicas": 2}}}})
    await team.until_state(names.RUNNING, timeout_s=100)
    await team.until_pods(3, timeout_s=60)
    watching.cancel()
    assert invariants.breaches == []
    assert invariants.looks > STEPS
    assert len(await team.children(names.SERVICE)) == 3
    await team.end("flowers-master-0", 0)
    await team.until_state(names.SUCCEEDED)
    assert await team.cluster.get(names.SERVICE, team.namespace, "flowers-else") == theirs

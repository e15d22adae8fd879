"""A server without Kubernetes' own gang scheduling: plain pods, and a warning where a gang was asked for by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team
from support.scenario import pytorchjob
from support.testserver import OwnServer, Server
from trainserve.kube import names


@pytest.fixture
def server(server_without_gangs: OwnServer) -> Server:
    return server_without_gangs.server


async def test_pods_are_plain_and_the_wish_for_a_gang_is_answered(kubectl: Kubectl, team: Team, tmp_path: Path) -> None:
    assert not await team.cluster.serves(names.POD_GROUP)
    operator = Operator(kubectl, tmp_path, "--gang", "kubernetes")
    try:
        operator.start()
        await team.create(pytorchjob(workers=1, schedulingPolicy={"minAvailable": 2}))
        pods = await team.until_pods(2)
        assert all("schedulingGroup" not in pod["spec"] for pod in pods)
        told = {event["message"] for event in await team.events("NotSupported")}
        assert told == {
            "pods are placed one by one, not by kubernetes: this cluster has no PodGroup of scheduling.k8s.io/v1beta1",
            "spec.runPolicy.schedulingPolicy.minAvailable has no effect: pods are placed one by one, for no gang "
            "scheduler is in use",
        }
    finally:
        operator.close()

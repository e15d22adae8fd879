"""What the controller lives on goes while it works: the kind, or its namespace with its own account.

It stays, asks seldom, and goes on with what comes back.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team, install
from support.scenario import pytorchjob
from support.testserver import OwnServer, Server
from trainserve.kube import names
from trainserve.kube.client import KubeCluster
from trainserve.kube.crd import CRD_NAME

WATCHED_S = 10
MOST = 40  # requests in that time: five caches ask anew after 1, 2, 4, ... 15 s


@pytest.fixture
def server(own_server: OwnServer) -> Server:
    return own_server.server


def requests(operator: Operator) -> int:
    """How many it has sent so far."""
    counts = re.findall(r"^trainserve_operator_api_requests_total{.*} (\S+)$", operator.get("/metrics"), re.MULTILINE)
    assert counts, "it does not answer"
    return sum(int(float(count)) for count in counts)


async def asked_seldom(operator: Operator) -> None:
    before = requests(operator)
    await asyncio.sleep(WATCHED_S)
    assert requests(operator) - before < MOST


@pytest.mark.timeout(300)
async def test_a_kind_that_is_deleted_and_installed_again(operator: Operator, team: Team, cluster: KubeCluster) -> None:
    await team.create(pytorchjob(workers=1))
    await team.until_state(names.RUNNING)
    await cluster.delete(names.CRD, None, CRD_NAME)
    await asked_seldom(operator)
    await install(cluster)
    await team.create(pytorchjob("another", workers=2))  # pods of the first may be there: of a kind that is gone
    await team.until_state(names.RUNNING, "another")
    assert len(await team.children(name="another")) == 3
    assert operator.stop() == 0
    assert "Traceback" not in operator.log.read_text()


@pytest.mark.timeout(300)
async def test_a_namespace_that_goes_with_all_in_it(operator: Operator, team: Team, kubectl: Kubectl) -> None:
    await team.create(pytorchjob(workers=2))
    await team.until_state(names.RUNNING)
    await asyncio.to_thread(Kubectl(kubectl.kubeconfig), "delete", "namespace", team.namespace, timeout_s=120)
    assert await team.children() == []
    await asked_seldom(operator)
    assert operator.stop() == 0
    assert "Traceback" not in operator.log.read_text()

"""Two operators and one lease: one ends, is killed, is stopped and goes on; the other one works, and never both."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team
from support.scenario import pytorchjob

# Defaults are 15 s, 10 s, 2 s; shorter where a test would only wait.
SHORT = (
    "--leader-elect-lease-duration=6s",
    "--leader-elect-renew-deadline=4s",
    "--leader-elect-retry-period=1s",
)
WRITES = ("create", "update", "patch", "delete", "deletecollection")

Start = Callable[..., Operator]


@pytest.fixture
def start(kubectl: Kubectl, tmp_path: Path) -> Iterator[Start]:
    """`start("a", *flags)`: an operator that takes part in the election."""
    started: list[Operator] = []

    def start(name: str, *flags: str) -> Operator:
        folder = tmp_path / name
        folder.mkdir()
        operator = Operator(kubectl, folder, "--leader-elect", *flags)
        started.append(operator)
        operator.start()
        return operator

    yield start
    for operator in started:
        operator.close()


def leads(operator: Operator) -> bool:
    return "\ntrainserve_operator_leader 1.0\n" in operator.get("/metrics")


def counted(operator: Operator, what: str) -> float:
    """One of the Training Operator's counters, over all namespaces."""
    lines = operator.get("/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"training_operator_jobs_{what}_total{{"))


async def until_leads(operator: Operator, timeout_s: float) -> float:
    """Seconds until it does."""
    began = time.monotonic()
    while not leads(operator):
        assert time.monotonic() < began + timeout_s, f"it does not lead after {timeout_s:.0f} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_another_one_takes_over_within_20_s_of_a_kill_and_at_once_when_one_ends(start: Start, team: Team) -> None:
    first, second = start("a"), start("b")
    await until_leads(first, 10)
    assert not leads(second)
    await team.create(pytorchjob())
    await team.until_pods(3)
    assert counted(first, "created") == 1

    first.kill()
    handed_over_s = await until_leads(second, 30)
    assert handed_over_s < 20
    await team.remove("flowers-worker-0")
    await team.until_pods(3, generation=2)  # that the gang was there is known to the second one, too

    third = start("c")
    assert second.stop() == 0
    assert await until_leads(third, 10) < 5
    await team.end("flowers-master-0", 0)
    await team.until_state("Succeeded")
    assert counted(third, "successful") == 1
    assert counted(third, "created") == 0  # it was, by the first one


async def test_one_that_was_stopped_and_goes_on_writes_nothing_more(start: Start, team: Team, audit_log: Path) -> None:
    first, second = start("a", *SHORT), start("b", *SHORT)
    await until_leads(first, 10)
    for number in range(4):
        await team.create(pytorchjob(f"early-{number}"))
    await team.until_pods(3, name="early-0")
    for number in range(4):  # the first one is in the middle of this as it is stopped
        await team.remove(f"early-{number}-worker-0")
        await team.create(pytorchjob(f"late-{number}"))
    first.send(signal.SIGSTOP)
    await until_leads(second, 30)
    await asyncio.sleep(3)
    for number in range(4):
        await team.remove(f"early-{number}-worker-1")  # work for whoever believes that it leads
    first.send(signal.SIGCONT)
    for number in range(4):
        await team.until_pods(3, name=f"late-{number}")
    await team.create(pytorchjob("last"))
    await team.until_pods(3, name="last")
    assert not leads(first)
    assert leads(second)
    assert first.get("/healthz") == "ok\n"

    ours = [request for request in requests(audit_log) if request.namespace == team.namespace]
    of_first = [request for request in ours if request.by == credential(first) and request.wrote]
    of_second = [request for request in ours if request.by == credential(second) and request.wrote]
    took_over = next(request.received for request in of_second if request.resource == "leases")
    assert [request for request in of_first if request.received < took_over]
    assert [request for request in of_first if request.received >= took_over] == []
    assert [request for request in of_second if request.received < took_over] == []


@dataclass(frozen=True)
class Request:
    """One request that the API server has answered. `by`: the id of the credential; `wrote`: it changed something."""

    by: str
    received: datetime
    verb: str
    namespace: str
    resource: str
    name: str
    wrote: bool


def requests(audit_log: Path) -> list[Request]:
    found = [_request(json.loads(line)) for line in audit_log.read_text().splitlines()]
    return sorted(found, key=lambda request: request.received)


def _request(event: dict[str, Any]) -> Request:
    target = event.get("objectRef") or {}
    ids = event["user"].get("extra", {}).get("authentication.kubernetes.io/credential-id") or [""]
    return Request(
        by=ids[0],
        received=datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00")),
        verb=event["verb"],
        namespace=target.get("namespace", ""),
        resource=target.get("resource", ""),
        name=target.get("name", ""),
        wrote=event["verb"] in WRITES and event.get("responseStatus", {}).get("code", 500) < 300,
    )


def credential(operator: Operator) -> str:
    """What the audit log calls the operator's token."""
    user = yaml.safe_load(operator.kubeconfig.read_text())["users"][0]["user"]
    payload = user["token"].split(".")[1]
    return f"JTI={json.loads(base64.urlsafe_b64decode(payload + '=' * (-len(payload) % 4)))['jti']}"

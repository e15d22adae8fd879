"""Pods that the API server refuses: for now (a quota), and for ever (a template that is no pod's)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support import audit
from support.operating import Operator
from support.real import Team, condition_of
from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.names import Kind

QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas")
FAILED_CREATE = f"{names.REASON_FAILED_CREATE}{names.POD}"
SETTLED_S = 5  # it is tried soon at first: what passes by itself mostly does so at once
WATCHED_S = 60
MOST = 20  # requests in that time


def misspelt() -> Manifest:
    job = pytorchjob(workers=3)
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Never"
    return job


async def set_quota(team: Team, pods: int) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"count/pods": str(pods)}},
    }
    await team.cluster.create(QUOTA, team.namespace, quota)
    async with asyncio.timeout(60):  # until its controller has counted, no pod is made at all
        while not (await team.cluster.get(QUOTA, team.namespace, "few")).get("status", {}).get("used"):
            await asyncio.sleep(0.1)


async def told(team: Team, reason: str) -> list[Manifest]:
    """Events of this reason, once there is one."""
    async with asyncio.timeout(60):
        while not (found := await team.events(reason)):
            await asyncio.sleep(0.2)
    return found


async def test_a_quota_holds_the_job_back_until_it_is_raised(operator: Operator, team: Team) -> None:
    await set_quota(team, 2)
    await team.create(pytorchjob(workers=3))
    assert "exceeded quota: few" in (await told(team, FAILED_CREATE))[0]["message"]
    assert condition_of(await team.job(), names.FAILED) == {}
    assert len(await team.children()) <= 2
    await team.cluster.patch(QUOTA, team.namespace, "few", {"spec": {"hard": {"count/pods": "9"}}})
    await team.until_pods(4, timeout_s=90)
    await team.until_state(names.RUNNING)


async def test_a_template_that_is_no_pod_fails_the_job_in_the_servers_words(operator: Operator, team: Team) -> None:
    await team.create(misspelt())
    job = await team.until_state(names.FAILED)
    failed = condition_of(job, names.FAILED)
    assert failed["reason"] == names.REASON_INVALID
    assert 'unknown field "spec.containers[0].imagePullPolcy"' in failed["message"]
    assert job["status"]["completionTime"]


@pytest.mark.parametrize("broken", ["by its template", "by a quota", "by its name's owner"])
async def test_a_broken_job_asks_the_server_seldom(
    broken: str, operator: Operator, team: Team, audit_log: Path
) -> None:
    if broken == "by a quota":
        await set_quota(team, 0)
    if broken == "by its name's owner":
        await team.cluster.create(names.POD, team.namespace, foreign_pod())
    await team.create(misspelt() if broken == "by its template" else pytorchjob(workers=3))
    await told(team, names.REASON_INVALID if broken == "by its template" else FAILED_CREATE)
    await asyncio.sleep(SETTLED_S)
    log = audit.AuditLog(audit_log)
    await asyncio.sleep(WATCHED_S)
    asked = log.requests(audit.service_account(team.namespace, names.OPERATOR_ACCOUNT))
    assert len(asked) < MOST, "\n".join(audit.shown(asked))
    if broken != "by its template":
        assert any(entry["verb"] == "create" for entry in asked), "it is tried again"


def foreign_pod() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "flowers-master-0"},
        "spec": {"containers": [{"name": "theirs", "image": "localhost/theirs:1"}]},
    }

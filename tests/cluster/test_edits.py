"""A job that is edited faster than it can follow, and what jobs cost the API server when nothing happens to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from support import audit
from support.operating import Operator
from support.real import Team, generation_of
from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest

EDITS = 20
EVERY_S = 0.1
PER_EDIT = 40  # requests: a job of four pods is made and taken away by far fewer
SETTLED_S = 5.0
WATCHED_S = 15.0


def renamed(name: str) -> Manifest:
    job = pytorchjob(workers=1)
    return {**job, "metadata": {**job["metadata"], "name": name}}


async def test_a_job_edited_twenty_times_in_two_seconds_ends_as_it_was_told_last(
    operator: Operator, team: Team, audit_log: Path
) -> None:
    log = audit.AuditLog(audit_log)
    await team.create(pytorchjob(workers=2))
    await team.until_pods(3)
    seen: Counter[str] = Counter()
    for number in range(EDITS):
        edit: Manifest = [
            {"metadata": {"labels": {"edit": str(number)}}},
            {"spec": {"pytorchReplicaSpecs": {names.REPLICA_WORKER: {"replicas": 1 + number % 4}}}},
            {"spec": {"runPolicy": {"suspend": number % 8 < 4}}},
        ][number % 3]
        await team.patch(edit)
        alive = [pod for pod in await team.children() if pod["status"].get("phase") in {"Pending", "Running"}]
        seen[f"{len({generation_of(pod) for pod in alive})} generations"] += 1
        await asyncio.sleep(EVERY_S)
    await team.patch(
        {
            "spec": {
                "runPolicy": {"suspend": False},
                "pytorchReplicaSpecs": {names.REPLICA_WORKER: {"replicas": 3}},
            }
        }
    )
    pods = await team.until_pods(4)
    job = await team.until(
        lambda job: job["status"].get("nodes") == "4/4" and job["status"]["conditions"][-1]["type"] == names.RUNNING,
        "it runs on four nodes",
    )
    assert {generation_of(pod) for pod in pods} == {job["status"]["generation"]}
    assert len(await team.children(names.SERVICE)) == 4
    assert job["status"].get("restarts", 0) == 0, "what its user does is no fault of the job"
    assert set(seen) <= {"0 generations", "1 generations"}, "two gangs at a time"
    requests = log.requests(audit.service_account(team.namespace, names.OPERATOR_ACCOUNT))
    assert len(requests) < EDITS * PER_EDIT, audit.shown(requests)


async def test_jobs_at_rest_cost_the_server_nothing(operator: Operator, team: Team, audit_log: Path) -> None:
    """A finished job, a suspended one, one that was refused for ever, and one that runs and says no progress."""
    suspended = renamed("suspended")
    suspended["spec"]["runPolicy"] = {**suspended["spec"].get("runPolicy", {}), "suspend": True}
    refused = renamed("refused")
    template = refused["spec"]["pytorchReplicaSpecs"][names.REPLICA_MASTER]["template"]
    template["spec"]["containers"][0]["imagePullPolicy"] = "Perhaps"
    for job in (renamed("finished"), suspended, refused, renamed("running")):
        await team.create(job)
    await team.until_pods(2, name="finished")
    await team.end("finished-master-0", 0)
    await team.until_state(names.SUCCEEDED, "finished")
    await team.until_state(names.SUSPENDED, "suspended")
    await team.until_state(names.FAILED, "refused")
    await team.until_state(names.RUNNING, "running")
    await asyncio.sleep(SETTLED_S)
    log = audit.AuditLog(audit_log)
    await asyncio.sleep(WATCHED_S)
    found = log.requests(audit.service_account(team.namespace, names.OPERATOR_ACCOUNT))
    assert [entry for entry in found if entry["verb"] != "watch"] == [], audit.shown(found)

"""Limits of a job, kept on time and across restarts of the controller: CTL-01 and CTL-02 among them."""

from __future__ import annotations

import asyncio
import time

from support.kwok import ending
from support.operating import Operator
from support.real import Team, condition_of, generation_of
from support.scenario import pytorchjob
from trainserve.kube import moments, names
from trainserve.kube.cluster import Manifest, NotFound

TTL_S = 20


def seconds(job: Manifest, field: str) -> float:
    """A time of the job's status, in unix seconds."""
    found = moments.unix(job["status"][field])
    assert found is not None
    return found


async def test_ctl_01_the_backoff_limit_counts_across_pods_and_controllers(operator: Operator, team: Team) -> None:
    job = pytorchjob(workers=1, policy="OnFailure", backoffLimit=1)
    await team.create(ending(ending(job, "Master", 1, "4s"), "Worker", 1, "4s"))
    await team.until(lambda job: job.get("status", {}).get("restarts") == 1, "the first failure is counted")
    operator.kill()
    operator.start()
    job = await team.until_state(names.FAILED)
    failed = condition_of(job, names.FAILED)
    assert failed["reason"] == names.REASON_BACKOFF_LIMIT
    assert failed["message"].startswith(names.MESSAGE_BACKOFF_LIMIT.format(job="flowers"))
    assert condition_of(job, names.RESTARTING).get("status", "False") == "False"
    assert job["status"]["completionTime"]
    assert {generation_of(pod) for pod in await team.children()} == {2}, "one restart, as backoffLimit allows"


async def test_the_deadline_is_kept_without_any_event(operator: Operator, team: Team) -> None:
    await team.create(pytorchjob(workers=1, activeDeadlineSeconds=5, cleanPodPolicy="Running"))
    await team.until_state(names.RUNNING)
    job = await team.until_state(names.FAILED)
    failed = condition_of(job, names.FAILED)
    assert failed["reason"] == names.REASON_DEADLINE
    assert failed["message"].startswith(names.MESSAGE_DEADLINE.format(job="flowers"))
    assert 5 <= seconds(job, "completionTime") - seconds(job, "startTime") <= 10
    async with asyncio.timeout(60):
        while await team.children():
            await asyncio.sleep(0.1)


async def gone_after_s(team: Team, name: str) -> float:
    """Seconds from a job's completion to its disappearance."""
    job = await team.until(lambda job: bool((job.get("status") or {}).get("completionTime")), "it has ended", name)
    while True:
        try:
            await team.job(name)
        except NotFound:
            return time.time() - seconds(job, "completionTime")
        await asyncio.sleep(0.1)


async def test_ctl_02_ended_jobs_go_when_their_time_to_live_is_over(operator: Operator, team: Team) -> None:
    good = pytorchjob("good", workers=1, ttlSecondsAfterFinished=TTL_S)
    bad = pytorchjob("bad", workers=1, policy="Never", ttlSecondsAfterFinished=TTL_S)
    jobs = {"good": ending(good, "Master", 0, "1s"), "bad": ending(bad, "Worker", 1, "1s")}
    for job in jobs.values():
        await team.create(job)
    took_s = dict(zip(jobs, await asyncio.gather(*(gone_after_s(team, name) for name in jobs)), strict=True))
    assert all(TTL_S <= each <= TTL_S + 10 for each in took_s.values()), took_s
    for name in jobs:
        await team.until_gone(name)


async def test_ctl_02_a_failed_job_without_time_to_live_goes_at_once(operator: Operator, team: Team) -> None:
    await team.create(pytorchjob(workers=1, policy="Never", ttlSecondsAfterFinished=0))
    await team.until_pods(2)
    await team.end("flowers-worker-0", 1)
    await team.until_gone(timeout_s=15)


async def test_ctl_02_the_time_to_live_is_kept_by_a_controller_that_came_later(operator: Operator, team: Team) -> None:
    job = ending(pytorchjob(workers=1, ttlSecondsAfterFinished=TTL_S), "Master", 0, "1s")
    await team.create(job)
    await team.until_state(names.SUCCEEDED)
    watched = asyncio.create_task(gone_after_s(team, "flowers"))
    await asyncio.sleep(5)
    operator.kill()
    await asyncio.to_thread(operator.start)
    took_s = await watched
    assert TTL_S <= took_s <= TTL_S + 10
    await team.until_gone()

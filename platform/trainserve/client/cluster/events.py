"""Kubernetes' Events of a run: of its job, its pods, its services and its group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from trainserve.client.cluster.connect import Session
from trainserve.client.cluster.run import ClusterRun, has_ended, job_of
from trainserve.client.cluster.watch import watching
from trainserve.client.runs import EventRow, event_row
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Manifest
from trainserve.kube.names import EVENT
from trainserve.kube.outage import Unauthorized

PAGE = 500
LOOK_S = 1.0


async def told(session: Session, run: ClusterRun, job: Manifest) -> list[Manifest]:
    """All of them that the cluster still has (an hour's, by default), oldest first."""
    found = [event for event in await _all(session, run) if _is_about(event, run, job["metadata"]["uid"])]
    began = job["metadata"].get("creationTimestamp") or ""  # before it, others had these names
    return sorted((event for event in found if _moment(event) >= began), key=_moment)


async def told_of_pods(session: Session, run: ClusterRun) -> list[Manifest]:
    """Those of pods of the job's name."""
    return [event for event in await _all(session, run) if _is_childs(event, run)]


async def rows(session: Session, run: ClusterRun, *, follow: bool = False) -> AsyncIterator[list[EventRow]]:
    """As rows, oldest first; with `follow` new ones and further counts as they come, until the job has ended."""
    if not follow:
        yield [event_row(event) for event in await told(session, run, await job_of(session, run))]
        return
    seen: dict[str, int] = {}
    async with watching(session, run) as watched:
        over = False
        while True:
            new = []
            for event in await _told_if_there(session, run, watched.job):
                count = int(event.get("count") or 1)
                if seen.get(event["metadata"]["uid"]) != count:
                    seen[event["metadata"]["uid"]] = count
                    new.append(event_row(event))
            yield new
            if over:
                return
            if watched.is_gone:
                raise run.gone()
            over = has_ended(watched.job)
            await (asyncio.sleep(LOOK_S) if over else watched.next(LOOK_S))


async def _told_if_there(session: Session, run: ClusterRun, job: Manifest) -> list[Manifest]:
    """As `told`; [] while the server is away: whoever watches the job bears that, tells it, and ends it."""
    try:
        return await told(session, run, job)
    except (ApiError, OSError) as error:
        if isinstance(error, OSError) or error.status >= 500 or isinstance(error, Unauthorized):
            return []
        raise


async def _all(session: Session, run: ClusterRun) -> list[Manifest]:
    found: list[Manifest] = []
    token = ""
    while True:
        page = await session.cluster.list(EVENT, run.place.namespace, limit=PAGE, continue_token=token)
        found += page.items
        token = page.continue_token
        if not token:
            return found


def _is_about(event: dict[str, Any], run: ClusterRun, uid: str) -> bool:
    about = event.get("involvedObject") or {}
    if about.get("kind") == names.PYTORCHJOB.kind:
        return about.get("name") == run.name and about.get("uid") in (None, "", uid)
    return _is_childs(event, run)


def _is_childs(event: Manifest, run: ClusterRun) -> bool:
    """By name: what an event is about may be gone, and its labels with it."""
    name = str((event.get("involvedObject") or {}).get("name", ""))
    heads = [names.replica_name(run.name, kind, 0)[:-1] for kind in (names.REPLICA_MASTER, names.REPLICA_WORKER)]
    group = names.pod_group_name(run.name, 0)[:-1]
    return any(name.startswith(head) and name.removeprefix(head).isdigit() for head in (*heads, group))


def _moment(event: Manifest) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")

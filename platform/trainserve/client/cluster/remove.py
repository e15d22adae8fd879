"""Remove runs from a cluster: the job with its pods. What they wrote into their output stays."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from trainserve.client.cluster.connect import Session
from trainserve.client.cluster.run import TERMINATING, ClusterRun, has_ended, job_of, output_of, state
from trainserve.client.cluster.stop import until_gone
from trainserve.client.cluster.watch import watching
from trainserve.errors import UserError
from trainserve.kube.cluster import NotFound
from trainserve.kube.names import PYTORCHJOB


@dataclass(frozen=True)
class ClusterRemoved:
    """A run that is no longer there. `output`: where what it wrote still is; None where that is not known."""

    name: str
    namespace: str
    output: str | None


def sentence(run: ClusterRun, removed: ClusterRemoved) -> str:
    """What happened, for a person."""
    stays = f"what it wrote stays in {removed.output}" if removed.output else "what it wrote elsewhere stays there"
    return f"{run} removed, its pods too; {stays}"


async def refuse_going(session: Session, run: ClusterRun) -> None:
    """Raises UserError for a run that goes on."""
    job = await job_of(session, run)
    if not has_ended(job) and state(job) != TERMINATING:
        raise UserError(
            f"run {str(run)!r} is going on: it is not removed",
            hint=f"platform cancel {run} stops it after a checkpoint; platform rm --force {run} ends it",
        )


async def remove(session: Session, run: ClusterRun) -> ClusterRemoved:
    """Delete the job with foreground propagation, and wait until it and its pods are gone.

    Raises TimedOut where pods are still there long after their grace.
    """
    async with watching(session, run) as watched:
        removed = ClusterRemoved(run.name, run.place.namespace, output_of(watched.job))
        uid = watched.job["metadata"]["uid"]
        with suppress(NotFound):  # somebody else was faster
            await session.cluster.delete(PYTORCHJOB, run.place.namespace, run.name, uid=uid, propagation="Foreground")
        await until_gone(watched)
    session.listener.notice(sentence(run, removed))
    return removed

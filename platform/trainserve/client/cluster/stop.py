"""Stop runs on a cluster with a checkpoint, or at once, and go on with them."""

from __future__ import annotations

import shlex
import time

from trainserve.client.cluster.connect import Session
from trainserve.client.cluster.run import (
    TERMINATING,
    ClusterRun,
    ClusterSummary,
    has_ended,
    job_of,
    state,
    summary,
)
from trainserve.client.cluster.watch import Watched, watching
from trainserve.errors import EnvironmentProblem, TimedOut, UserError
from trainserve.kube import names
from trainserve.kube.cluster import Manifest, NotFound
from trainserve.kube.names import POD, PYTORCHJOB
from trainserve.machine.files import write_json
from trainserve.machine.home import home
from trainserve.observe.words import duration

LOOK_S = 1.0
DEAF_S = 30.0  # a controller that is there begins to stop pods within a second or two
SLACK_S = 60.0  # beyond the pods' own grace
KILL_S = 1  # the shortest grace that still lets a kubelet end a pod in order


async def cancel(session: Session, run: ClusterRun, *, now: bool = False) -> ClusterSummary:
    """Suspend the run with its reason, and wait until its pods are gone; everything it wrote is kept.

    Raises TimedOut where pods are still there long after their grace, EnvironmentProblem where no controller acts.
    """
    job = await job_of(session, run)
    notice = session.listener.notice
    if has_ended(job) or state(job) == TERMINATING:
        notice(f"{run} is not running: {state(job)}")
        return summary(job, run.place)
    patch = {
        "metadata": {"annotations": {names.ANNOTATION_SUSPEND_REASON: names.SUSPEND_BY_USER}},
        "spec": {"runPolicy": {"suspend": True}},
    }
    how = "at once; the newest checkpoint stays" if now else "after a checkpoint (Ctrl-C: do not wait)"
    notice(f"stopping {run} {how}")
    await session.cluster.patch(PYTORCHJOB, run.place.namespace, run.name, patch)
    async with watching(session, run) as watched:
        if now:
            await _kill(session, watched)
        return await _stopped(session, watched)


async def resume(session: Session, run: ClusterRun) -> Manifest:
    """Let a suspended run go on; one that failed is made anew, with the same output, so from its newest checkpoint.

    Returns the job. Raises UserError where there is nothing to go on with.
    """
    job = await job_of(session, run)
    check_resumable(run, job)
    if state(job) == names.FAILED:
        return await _made_anew(session, run, job)
    patch: Manifest = {
        "metadata": {"annotations": {names.ANNOTATION_SUSPEND_REASON: None}},
        "spec": {"runPolicy": {"suspend": False}},
    }
    return await session.cluster.patch(PYTORCHJOB, run.place.namespace, run.name, patch)


async def plan(session: Session, run: ClusterRun) -> Manifest:
    """The job as `resume` would let it go on; nothing is changed."""
    job = await job_of(session, run)
    check_resumable(run, job)
    anew = going_on(job)
    if state(job) != names.FAILED:
        del anew["metadata"]["annotations"][names.ANNOTATION_AFTER_GENERATION]  # the job itself goes on
    return anew


def check_resumable(run: ClusterRun, job: Manifest) -> None:
    """Raises UserError for a run that goes on, has succeeded, or is being removed."""
    found = state(job)
    if found == names.SUCCEEDED:
        raise UserError(
            f"run {str(run)!r} has succeeded; there is nothing to resume", hint="train again under another --name"
        )
    if found == TERMINATING:
        raise UserError(f"run {str(run)!r} is being deleted", hint="train again under another --name")
    if not (job["spec"].get("runPolicy") or {}).get("suspend") and found != names.FAILED:
        raise UserError(f"run {str(run)!r} is going on", hint=f"platform status {run}")


def going_on(job: Manifest) -> Manifest:
    """The job of a failed run as it is made anew: what was asked for, without what the server has added."""
    metadata = job["metadata"]
    policy = {name: value for name, value in (job["spec"].get("runPolicy") or {}).items() if name != "suspend"}
    annotations = {
        name: value
        for name, value in (metadata.get("annotations") or {}).items()
        if name not in (names.ANNOTATION_SUSPEND_REASON, names.ANNOTATION_APPLIED)
    }
    annotations[names.ANNOTATION_AFTER_GENERATION] = str((job.get("status") or {}).get("generation") or 0)
    kept = {name: metadata[name] for name in ("name", "namespace", "labels") if name in metadata}
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": {**kept, "annotations": annotations},
        "spec": {**job["spec"], "runPolicy": policy},
    }


async def _made_anew(session: Session, run: ClusterRun, job: Manifest) -> Manifest:
    """A job that has failed is final, to every controller of PyTorchJobs: another takes its name.

    Between the two it is nowhere but in a file of ours. Raises EnvironmentProblem where that cannot be written.
    """
    anew = going_on(job)
    uid = job["metadata"]["uid"]
    session.listener.notice(f"{run} has failed, which is final: a new job of the same name goes on from its checkpoint")
    kept = home() / "resuming" / f"{run.place.namespace}.{run.name}.json"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, anew, indent=2)
    except OSError as error:
        raise EnvironmentProblem(
            f"{kept} cannot be written: {error.strerror or error}", hint="the job is kept there while it is made anew"
        ) from error
    is_deleted = False
    try:
        async with watching(session, run) as watched:
            await session.cluster.delete(PYTORCHJOB, run.place.namespace, run.name, uid=uid, propagation="Foreground")
            is_deleted = True
            await until_gone(watched)
        made = await session.cluster.create(PYTORCHJOB, run.place.namespace, anew)
    except BaseException:  # Ctrl-C, too
        if is_deleted:
            create = f"{run.place.kubectl()} create -f {shlex.quote(str(kept))}"
            session.listener.notice(f"{run} was deleted, and is not made anew; once its pods are gone:\n  {create}")
        else:
            kept.unlink(missing_ok=True)
        raise
    kept.unlink(missing_ok=True)
    return made


async def until_gone(watched: Watched) -> None:
    """Until a job that was deleted is gone, with its pods. Raises TimedOut long after the pods' grace."""
    give_up = time.monotonic() + _patience_s(watched)
    while not watched.is_gone or watched.pods:
        if time.monotonic() >= give_up:
            raise _still_there(watched)
        await watched.next(LOOK_S)


async def _kill(session: Session, watched: Watched) -> None:
    for pod in watched.pods:
        metadata = pod["metadata"]
        try:
            await session.cluster.delete(
                POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_period_s=KILL_S
            )
        except NotFound:
            continue  # it has just gone


async def _stopped(session: Session, watched: Watched) -> ClusterSummary:
    began = time.monotonic()
    give_up = began + _patience_s(watched)
    while True:
        job, run = watched.job, watched.run
        if watched.is_gone:
            raise run.gone()
        if has_ended(job):
            return summary(job, run.place)
        stopping = [pod for pod in watched.pods if "deletionTimestamp" in pod["metadata"]]
        if time.monotonic() - began > DEAF_S and watched.pods and not stopping and not session.patience.away:
            raise EnvironmentProblem(
                f"{run} is asked to stop, and after {duration(DEAF_S)} no pod of it stops: no controller acts on it",
                hint=f"is the operator running? kubectl --namespace={names.OPERATOR_NAMESPACE} get pods",
            )
        if time.monotonic() >= give_up:
            raise _still_there(watched)
        await watched.next(LOOK_S)


def _patience_s(watched: Watched) -> float:
    graces = [float(pod["spec"].get("terminationGracePeriodSeconds", 30)) for pod in watched.pods]
    return max(graces, default=0.0) + SLACK_S


def _still_there(watched: Watched) -> TimedOut:
    left = [f"{pod['metadata']['name']} on {pod['spec'].get('nodeName') or 'no node'}" for pod in watched.pods]
    if not left:
        return TimedOut(
            f"{watched.run} is not stopped yet, though no pod of it is left: no controller says so",
            hint=f"platform status {watched.run}",
        )
    return TimedOut(
        f"{watched.run}: pods are still there, long after their grace: {', '.join(left)}",
        hint=f"is the node alive? kubectl get nodes; then {watched.run.place.kubectl()} delete pod NAME --force",
    )

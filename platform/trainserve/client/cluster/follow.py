"""Follow a run on a cluster by what the controller writes into its status, wait for a state, say how it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from trainserve.client.cluster.connect import Place, Session, ask
from trainserve.client.cluster.pending import waits_for
from trainserve.client.cluster.run import ClusterRun, ClusterSummary, has_ended, job_of, output_of, summary
from trainserve.client.cluster.watch import watching
from trainserve.client.follow import Hangup, Outcome, failure_code
from trainserve.client.listener import Listener
from trainserve.client.waiting import ENDED, Wanted
from trainserve.errors import EXIT_HANGUP, EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_FAILED, RunFailed, TimedOut
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.names import POD
from trainserve.observe.events import Event
from trainserve.observe.words import duration, percent

LOOK_S = 1.0
_SAME = ("epoch", "loss", "imagesPerSecond", "etaSeconds", "top1")  # in status.progress as in an event


def follow(run: ClusterRun, listener: Listener) -> Outcome:
    """Tell how far the run is until it ends. KeyboardInterrupt ends only the following: the run goes on."""
    try:
        return ask(run.place, lambda session: _followed(session, run), listener)
    except KeyboardInterrupt as interrupt:
        hangup = isinstance(interrupt, Hangup)
        listener.notice(comes_back(run))
        job = {"metadata": {"name": run.name, "namespace": run.place.namespace}, "spec": {}}
        return Outcome(summary(job, run.place), None, EXIT_HANGUP if hangup else EXIT_INTERRUPTED)


def comes_back(run: ClusterRun) -> str:
    """What to say to somebody who stops looking at a run that goes on."""
    return (
        f"{run} goes on:\n  platform logs -f {run}\n  platform status {run}\n  platform wait {run}\n"
        f"  platform cancel {run}"
    )


async def outcome(session: Session, run: ClusterRun) -> Outcome:
    """How the run has ended, or is now."""
    job = await job_of(session, run)
    pods = await session.cluster.list(POD, run.place.namespace, labels={names.LABEL_JOB_NAME: run.name})
    return outcome_of(job, pods.items, run.place)


def outcome_of(job: Manifest, pods: Sequence[Manifest], place: Place) -> Outcome:
    """With the exit code that this means, as on a laptop."""
    found = summary(job, place)
    match found["state"]:
        case names.SUCCEEDED:
            code = EXIT_OK
        case names.SUSPENDED:
            code = EXIT_INTERRUPTED
        case names.FAILED:
            code = failure_code([*pods])
        case _:  # it goes on
            code = EXIT_RUN_FAILED
    return Outcome(found, output_of(job), code, (job.get("status") or {}).get("cause"))


async def wait(session: Session, run: ClusterRun, wanted: Wanted, timeout_s: float | None) -> ClusterSummary:
    """The run once it is as wanted; Running is also reached by a run that has succeeded meanwhile.

    Raises RunFailed when it has ended otherwise, TimedOut after `timeout_s`, EnvironmentProblem when it is deleted.
    """
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    async with watching(session, run) as watched:
        while True:
            if watched.is_gone:
                raise run.gone()
            found = summary(watched.job, run.place)
            if _reached(wanted, found["state"]):
                return found
            if has_ended(watched.job):
                raise RunFailed(
                    f"{run} is {found['state']}, not {wanted}" + (f": {found['message']}" if found["message"] else ""),
                    hint=f"platform status {run}",
                )
            left_s = LOOK_S if give_up is None else min(LOOK_S, give_up - time.monotonic())
            if left_s <= 0:
                waits = waits_for(watched.job, watched.pods)
                raise TimedOut(
                    f"{run} is {found['state']} after {duration(timeout_s)}, not {wanted}"
                    + (f"; it waits: {waits}" if waits else ""),
                    hint=f"platform status {run}",
                )
            await watched.next(left_s)


def _reached(wanted: Wanted, found: str) -> bool:
    if wanted == names.RUNNING:
        return found in (names.RUNNING, names.SUCCEEDED)
    return found == wanted or (wanted == ENDED and found in (names.SUCCEEDED, names.FAILED, names.SUSPENDED))


async def _followed(session: Session, run: ClusterRun) -> Outcome:
    session.listener.following(str(run))
    async with watching(session, run) as watched:
        teller = Teller(session.listener, watched.job)
        while True:
            if watched.is_gone:
                raise run.gone()
            teller.tell(watched.job, watched.pods, time.time())
            if has_ended(watched.job):
                return outcome_of(watched.job, watched.pods, run.place)
            await watched.next(LOOK_S)


class Teller:
    """Turns what a job's status says, again and again, into what a listener hears, each thing once."""

    def __init__(self, listener: Listener, first: Manifest) -> None:
        self._listener = listener
        self._restarts = (first.get("status") or {}).get("restarts", 0)
        self._step: int | None = None
        self._top1: float | None = ((first.get("status") or {}).get("progress") or {}).get("top1")
        self._waits: str | None = None

    def tell(self, job: Manifest, pods: Sequence[Manifest], now: float) -> None:
        status = job.get("status") or {}
        waits = None if has_ended(job) else waits_for(job, pods)
        if waits and waits != self._waits:
            self._listener.notice(f"waiting: {waits}")
        self._waits = waits
        if status.get("restarts", 0) > self._restarts:
            self._restarts = status["restarts"]
            self._listener.notice(f"restart {self._restarts}: {status.get('cause') or summary(job)['message']}")
        self._tell_progress(status.get("progress") or {}, now)

    def _tell_progress(self, progress: Manifest, now: float) -> None:
        step = progress.get("step")
        if step is None or step == self._step:
            return
        self._step = step
        epochs, steps = progress.get("epochs") or 0, progress.get("steps") or 0
        values: dict[str, Any] = {"time": now, "kind": "step", "step": step, "epochs": epochs}
        values["stepsPerEpoch"] = steps // epochs if epochs else 0
        values |= {name: progress[name] for name in _SAME if progress.get(name) is not None}
        top1 = progress.get("top1")
        if top1 is not None and top1 != self._top1:
            self._top1 = top1
            self._listener.notice(f"validation: top-1 {percent(top1)}, at step {step} of {steps or '?'}")
        self._listener.event(cast("Event", values))

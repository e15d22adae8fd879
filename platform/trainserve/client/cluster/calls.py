"""What the Client asks of a cluster: each is one call, with a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

from trainserve.client.cluster import events, follow, stop
from trainserve.client.cluster import listing as listed
from trainserve.client.cluster import logs as read
from trainserve.client.cluster import remove as removal
from trainserve.client.cluster import status as whole
from trainserve.client.cluster import why as reasons
from trainserve.client.cluster.connect import Place, Session, ask, each
from trainserve.client.cluster.remove import ClusterRemoved
from trainserve.client.cluster.run import ClusterRun, ClusterSummary, summary
from trainserve.client.cluster.status import ClusterStatus
from trainserve.client.follow import Outcome
from trainserve.client.listener import Listener
from trainserve.client.logs import LogLine
from trainserve.client.runs import EventRow
from trainserve.client.waiting import Wanted
from trainserve.errors import EXIT_OK, UserError
from trainserve.kube.cluster import Manifest
from trainserve.observe.why.diagnose import Diagnosis


def listing(place: Place, *, all_namespaces: bool) -> list[ClusterSummary]:
    return ask(place, lambda session: listed.listing(session, place, all_namespaces=all_namespaces))


def status(run: ClusterRun) -> ClusterStatus:
    return ask(run.place, lambda session: whole.status(session, run))


def why(run: ClusterRun) -> Diagnosis:
    return ask(run.place, lambda session: reasons.why(session, run))


def outcome(run: ClusterRun) -> Outcome:
    return ask(run.place, lambda session: follow.outcome(session, run))


def wait(run: ClusterRun, wanted: Wanted, timeout_s: float | None, listener: Listener) -> ClusterSummary:
    return ask(run.place, lambda session: follow.wait(session, run, wanted, timeout_s), listener)


def logs(
    run: ClusterRun, listener: Listener, *, follow: bool, rank: int | None, tail: int | None, previous: bool
) -> Iterator[LogLine]:
    wish = read.Wish(follow=follow, rank=rank, tail=tail, previous=previous)
    begun = False
    try:
        for line in each(run.place, lambda session: read.lines(session, run, wish), listener):
            begun = True
            yield line
    except (read.PodsGone, read.NotGiven) as problem:
        if begun:
            raise
        from trainserve.client.cluster.outputs import kept_logs

        kept = kept_logs(run, listener, rank=rank, tail=tail)
        try:
            first = next(kept)
        except UserError:
            if isinstance(problem, read.NotGiven):
                raise problem from None
            raise
        listener.notice(f"{problem.message}; these are the lines that its output has")
        yield first
        yield from kept


def told(run: ClusterRun, listener: Listener, *, follow: bool) -> Iterator[EventRow]:
    return each(run.place, lambda session: events.rows(session, run, follow=follow), listener)


def resume(run: ClusterRun, listener: Listener, *, detach: bool) -> Outcome:
    """Let it go on, and follow it unless `detach`."""
    job = ask(run.place, lambda session: stop.resume(session, run), listener)
    return Outcome(summary(job, run.place), None, EXIT_OK) if detach else follow.follow(run, listener)


def going_on(run: ClusterRun) -> Manifest:
    """The job as it would go on. Raises UserError where there is nothing to go on with."""
    return ask(run.place, lambda session: stop.plan(session, run))


def cancel(runs: Sequence[ClusterRun], listener: Listener, *, now: bool) -> list[ClusterSummary]:
    """Stop runs side by side. KeyboardInterrupt ends the waiting, not the stopping."""
    try:
        return [found for place, some in _by_place(runs) for found in _cancel(place, some, listener, now=now)]
    except KeyboardInterrupt:
        for run in runs:
            listener.notice(f"{run} goes on stopping:\n  platform status {run}\n  platform cancel --now {run}")
        raise


def remove(runs: Sequence[ClusterRun], listener: Listener, *, force: bool) -> list[ClusterRemoved]:
    """Remove runs, one after the other; without `force` none where one of them goes on."""
    if not force:
        for run in runs:
            ask(run.place, partial(removal.refuse_going, run=run))
    return [ask(run.place, partial(removal.remove, run=run), listener) for run in runs]


def _cancel(place: Place, runs: Sequence[ClusterRun], listener: Listener, *, now: bool) -> list[ClusterSummary]:
    async def all_of_them(session: Session) -> list[ClusterSummary]:
        return await asyncio.gather(*(stop.cancel(session, run, now=now) for run in runs))

    return ask(place, all_of_them, listener)


def _by_place(runs: Sequence[ClusterRun]) -> list[tuple[Place, list[ClusterRun]]]:
    places = dict.fromkeys(run.place for run in runs)
    return [(place, [run for run in runs if run.place == place]) for place in places]

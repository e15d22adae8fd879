"""One job with its pods and events, kept up to date for whoever follows it, also while the API server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from trainserve.client.cluster.connect import Session, in_words
from trainserve.client.cluster.run import ClusterRun, job_of
from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Manifest
from trainserve.kube.informer import Backoff, Informer
from trainserve.kube.names import POD, PYTORCHJOB

BACKOFF = Backoff(first_s=0.3, limit_s=3.0)  # a person waits


class Watched:
    """What `watching` gives: `job` and `pods` as they are, `next` for the next change. Do not change them."""

    def __init__(self, session: Session, run: ClusterRun, first: Manifest) -> None:
        self.run = run
        self.job = first
        self.is_gone = False  # the job was deleted, or another has its name
        self._session = session
        self._uid = first["metadata"]["uid"]
        self._changed = asyncio.Event()
        place = run.place
        by_name = {"metadata.name": run.name}
        self._jobs = Informer(session.cluster, PYTORCHJOB, place.namespace, fields=by_name, backoff=BACKOFF)
        labels = {names.LABEL_JOB_NAME: run.name}
        self._pods = Informer(session.cluster, POD, place.namespace, labels, backoff=BACKOFF)
        self.informers = (self._jobs, self._pods)
        self._jobs.add_handler(self._job_changed)
        self._pods.add_handler(lambda _before, _after: self._changed.set())

    @property
    def pods(self) -> Sequence[Manifest]:
        return self._pods.all()

    async def synced(self) -> None:
        for informer in self.informers:
            await informer.synced.wait()

    async def next(self, timeout_s: float) -> None:
        """Until something has changed, or so many seconds.

        Raises EnvironmentProblem where the server was away for longer than a person is made to wait.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        self._changed.clear()
        self._session.patience.tell()
        if self._session.patience.is_over:
            await self._why_away()

    async def _why_away(self) -> None:
        try:
            await self._session.cluster.get(PYTORCHJOB, self.run.place.namespace, self.run.name)
        except (ApiError, OSError) as error:
            found = in_words(error)
            raise EnvironmentProblem(
                f"{self.run} is not followed any longer: {found.message}", hint=found.hint
            ) from error

    def _job_changed(self, _before: Manifest | None, after: Manifest | None) -> None:
        if after is None or after["metadata"]["uid"] != self._uid:
            self.is_gone = True
        elif not self.is_gone:
            self.job = after
        self._changed.set()


@asynccontextmanager
async def watching(session: Session, run: ClusterRun) -> AsyncIterator[Watched]:
    """The run for the length of a block. Raises UserError where there is none, ApiError where it may not be seen."""
    first = await job_of(session, run)
    await session.cluster.list(POD, run.place.namespace, labels={names.LABEL_JOB_NAME: run.name}, limit=1)
    watched = Watched(session, run, first)
    tasks = [asyncio.create_task(informer.run(), name=str(informer)) for informer in watched.informers]
    ready = asyncio.create_task(watched.synced())
    try:
        done, _ = await asyncio.wait((ready, *tasks), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a part that fails has a bug
        yield watched
    finally:
        for task in (ready, *tasks):
            task.cancel()
        await asyncio.gather(ready, *tasks, return_exceptions=True)

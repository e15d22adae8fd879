"""The PyTorchJob controller as a running thing: informers fill caches, every change enqueues a job, workers sync it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Cluster, Conflict, Manifest, NotFound
from trainserve.kube.informer import Informer, by_owner_uid
from trainserve.kube.outage import level
from trainserve.log import about
from trainserve.operator.fence import LeaseLost
from trainserve.operator.progress import Ask, ProgressPoller
from trainserve.operator.pytorchjob.draft import PROGRESS_EVERY_S
from trainserve.operator.queue import WorkQueue
from trainserve.operator.refusals import Key
from trainserve.operator.settings import GangSetting
from trainserve.operator.surroundings import Surroundings
from trainserve.operator.sync import Caches, ProgressSource, Syncer
from trainserve.operator.telemetry import Telemetry

log = logging.getLogger(__name__)

COUNTS_EVERY_S = 1.0  # how many pods are active, where that is all the news

_OWNER = "owner"


class Controller:
    """Keeps every PyTorchJob of `namespaces` (one, several, or None: all) moving, until `stop` or cancelled.

    `workers` jobs are worked on at the same time. `clock` gives unix seconds. `progress_source(job)` gives what becomes
    `status.progress`; it is asked every 5 s while it has something to say and must not block. Without it, pods that
    declare a port for it are asked by `ask_progress`, where that is given (`operator.progress`). Every job is looked at
    again after `resync_s` seconds without being told (None: never). With `leading` False nothing is worked on before
    `lead` is called; the caches are filled and kept all the same. `gang` is the scheduler of gangs
    (`operator.surroundings`).
    """

    def __init__(
        self,
        cluster: Cluster,
        namespaces: str | Sequence[str] | None,
        *,
        workers: int = 4,
        clock: Callable[[], float] = time.time,
        progress_source: ProgressSource | None = None,
        ask_progress: Ask | None = None,
        resync_s: float | None = None,
        leading: bool = True,
        telemetry: Telemetry | None = None,
        gang: GangSetting = "auto",
    ) -> None:
        places = [namespaces] if namespaces is None or isinstance(namespaces, str) else list(namespaces)
        ours = {names.LABEL_OPERATOR_NAME: names.OPERATOR_NAME}
        index = {_OWNER: by_owner_uid}
        self._jobs = {place: Informer(cluster, names.PYTORCHJOB, place) for place in places}
        self._pods = [Informer(cluster, names.POD, place, ours, indexes=index) for place in places]
        self._services = [Informer(cluster, names.SERVICE, place, ours, indexes=index) for place in places]
        self.queue: WorkQueue[Key] = WorkQueue()
        self._workers = workers
        self._resync_s = resync_s
        self._telemetry = telemetry or Telemetry()
        self._stopping = asyncio.Event()
        self._leading = leading
        self._may_go = asyncio.Event()  # leading, or stopping
        if leading:
            self._may_go.set()
        self._began: dict[Key, float] = {}  # passes in progress, by time.monotonic
        caches = Caches(
            job=self._job,
            pods=lambda uid: _owned(self._pods, uid),
            services=lambda uid: _owned(self._services, uid),
        )
        self._poller = None if ask_progress is None else ProgressPoller(ask_progress, caches, self._add)
        self._surroundings = Surroundings(cluster, places, gang=gang)
        self._surroundings.add_handler(self._child_changed)
        self._syncer = Syncer(
            cluster,
            caches,
            clock=clock,
            progress_source=progress_source or self._poller,
            progress_again_s=PROGRESS_EVERY_S if self._poller is None else None,
            status_written=self._telemetry.status_written,
            counts_every_s=COUNTS_EVERY_S,
            surroundings=self._surroundings.complete,
        )
        for informer in self._jobs.values():
            informer.add_handler(self._job_changed)
        for informer in (*self._pods, *self._services):
            informer.add_handler(self._child_changed)

    async def run(self) -> None:
        """Work until `stop`; then passes that have begun are finished."""
        informers = (*self._jobs.values(), *self._pods, *self._services)
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(informer.run()) for informer in informers]
            background.append(tasks.create_task(self._surroundings.run()))
            stopping = tasks.create_task(self._stopping.wait())
            synced = tasks.create_task(_all_synced(informers, self._surroundings))
            await asyncio.wait((stopping, synced), return_when=asyncio.FIRST_COMPLETED)
            synced.cancel()
            if self._resync_s is not None:
                background.append(tasks.create_task(self._resync(self._resync_s)))
            if self._poller is not None:
                background.append(tasks.create_task(self._poller.run()))
            working = [tasks.create_task(self._work()) for _ in range(self._workers)]
            await stopping
            await asyncio.gather(*working)
            for task in background:
                task.cancel()

    def stop(self) -> None:
        """End `run`."""
        self.queue.close()  # first: a key left from when we led would go round between a worker and the queue for ever
        self._stopping.set()
        self._may_go.set()

    def lead(self) -> None:
        """Work from now on, and look at every job."""
        self._leading = True
        self._syncer.forget_all()  # jobs that were deleted meanwhile are not looked at any more
        self._look_at_all()
        self._may_go.set()

    def follow(self) -> None:
        """Begin no pass from now on. What changes meanwhile is looked at by `lead`, with all else."""
        self._leading = False
        self.queue.clear()
        if self._poller is not None:
            self._poller.forget_all()
        if not self._stopping.is_set():
            self._may_go.clear()

    def not_synced(self) -> list[str]:
        """What is not in the caches yet, such as "pods of team"; empty once the controller can work."""
        informers = (*self._jobs.values(), *self._pods, *self._services)
        missing = [str(informer) for informer in informers if not informer.synced.is_set()]
        return missing + self._surroundings.not_known()

    def jobs(self) -> Iterator[Manifest]:
        """The jobs that are known; not to be changed."""
        for informer in self._jobs.values():
            yield from informer.all()

    def longest_pass_s(self) -> float:
        """Seconds since the oldest pass in progress began; 0 where there is none."""
        now = time.monotonic()
        return max((now - began for began in self._began.values()), default=0.0)

    def _job(self, namespace: str, name: str) -> Manifest | None:
        informer = self._jobs.get(namespace) or self._jobs.get(None)
        return informer.get(namespace, name) if informer else None

    def _add(self, key: Key) -> None:
        """Who stands by keeps no queue: it would grow by every job that comes and goes."""
        if self._leading:
            self.queue.add(key)

    def _job_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        metadata = (after or before or {})["metadata"]
        self._add((metadata["namespace"], metadata["name"]))
        if self._leading:  # one of several operators tells it
            self._telemetry.job_changed(before, after)

    def _child_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """Whose it is, and whose it was: labels and owners are changed by hand, too."""
        for child in (before, after):
            if child is not None:
                for job in _jobs_of(child):
                    self._add((child["metadata"]["namespace"], job))

    def _look_at_all(self) -> None:
        for job in self.jobs():
            self._add((job["metadata"]["namespace"], job["metadata"]["name"]))

    async def _resync(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self._look_at_all()

    async def _next(self) -> Key | None:
        """The next job to look at, once we lead; None at the end."""
        while True:
            await self._may_go.wait()
            key = await self.queue.get()
            if key is None or self._leading:
                return key
            self.queue.done(key)  # the lead was lost while we waited for a key: `lead` looks at every job

    async def _work(self) -> None:
        while (key := await self._next()) is not None:
            began = self._began[key] = time.monotonic()
            with about(**self._facts(key)):
                result = await self._pass(key)
            self.queue.done(key)
            if not self._leading:
                self.queue.clear()  # of what the pass has put off
            del self._began[key]
            self._telemetry.pass_ended(result, time.monotonic() - began)

    def _facts(self, key: Key) -> dict[str, str | int]:
        """What each log line of a pass carries."""
        job = self._job(*key) or {}
        facts: dict[str, str | int] = {"namespace": key[0], "name": key[1]}
        if uid := job.get("metadata", {}).get("uid"):
            facts["uid"] = uid
        if generation := (job.get("status") or {}).get("generation"):
            facts["generation"] = generation
        return facts

    async def _pass(self, key: Key) -> str:
        """One pass, and when the next is due. Returns how it ended, for `Telemetry.pass_ended`."""
        try:
            again_s = await self._syncer.sync(key)
        except (Conflict, NotFound, LeaseLost) as error:
            log.debug("%s/%s: somebody else was quicker: %s", *key, error)
            self.queue.add_failed(key)
            return "conflict"
        except (ApiError, OSError) as error:
            delay_s = self.queue.add_failed(key)
            log.log(level(error), "%s/%s: %s; again in %.2f s", *key, error, delay_s)
            return "error"
        except Exception:  # a bug that one job brings out must not keep the others from being worked on
            delay_s = self.queue.add_failed(key)
            log.exception("%s/%s: a bug in the controller; again in %.2f s", *key, delay_s)
            return "bug"
        self.queue.forget(key)
        if again_s is not None:
            self.queue.add_after(key, again_s)
        return "success"


def _jobs_of(child: Manifest) -> set[str]:
    """The jobs that a child names by its owner or by its label: one, unless somebody has changed it."""
    metadata = child["metadata"]
    owners = {
        owner["name"] for owner in metadata.get("ownerReferences") or [] if owner.get("kind") == names.PYTORCHJOB.kind
    }
    return owners | {job for job in [(metadata.get("labels") or {}).get(names.LABEL_JOB_NAME)] if job}


async def _all_synced(informers: Sequence[Informer], surroundings: Surroundings) -> None:
    for informer in informers:
        await informer.synced.wait()
    await surroundings.known()


def _owned(informers: Sequence[Informer], uid: str) -> Sequence[Manifest]:
    """A job's children: they are in one namespace, so in one of the caches."""
    return next((found for informer in informers if (found := informer.indexed(_OWNER, uid))), ())

"""The PyTorchJob controller as a running thing: informers fill caches, every change enqueues a job, workers sync it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Cluster, Conflict, Manifest, NotFound
from trainserve.kube.informer import Informer, by_owner_uid
from trainserve.operator.queue import WorkQueue
from trainserve.operator.sync import Caches, Key, ProgressSource, Syncer

log = logging.getLogger(__name__)

_OWNER = "owner"


class Controller:
    """Keeps every PyTorchJob of `namespace` (None: of all) moving, until `stop` or cancelled.

    `workers` jobs are worked on at the same time. `clock` gives unix seconds. `progress_source(job)` gives what becomes
    `status.progress`; it is asked every 5 s while it has something to say and must not block.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str | None,
        *,
        workers: int = 4,
        clock: Callable[[], float] = time.time,
        progress_source: ProgressSource | None = None,
    ) -> None:
        ours = {names.LABEL_OPERATOR_NAME: names.OPERATOR_NAME}
        index = {_OWNER: by_owner_uid}
        self._jobs = Informer(cluster, names.PYTORCHJOB, namespace)
        self._pods = Informer(cluster, names.POD, namespace, ours, indexes=index)
        self._services = Informer(cluster, names.SERVICE, namespace, ours, indexes=index)
        self._queue: WorkQueue[Key] = WorkQueue()
        self._workers = workers
        self._stopping = asyncio.Event()
        caches = Caches(
            job=self._jobs.get,
            pods=lambda uid: self._pods.indexed(_OWNER, uid),
            services=lambda uid: self._services.indexed(_OWNER, uid),
        )
        self._syncer = Syncer(cluster, caches, clock=clock, progress_source=progress_source)
        self._jobs.add_handler(self._job_changed)
        self._pods.add_handler(self._child_changed)
        self._services.add_handler(self._child_changed)

    async def run(self) -> None:
        """Work until `stop`; then passes that have begun are finished."""
        informers = (self._jobs, self._pods, self._services)
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(informer.run()) for informer in informers]
            stopping = tasks.create_task(self._stopping.wait())
            synced = tasks.create_task(_all_synced(informers))
            await asyncio.wait((stopping, synced), return_when=asyncio.FIRST_COMPLETED)
            synced.cancel()
            working = [tasks.create_task(self._work()) for _ in range(self._workers)]
            await stopping
            self._queue.close()
            await asyncio.gather(*working)
            for task in watching:
                task.cancel()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    def _job_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        metadata = (after or before or {})["metadata"]
        self._queue.add((metadata["namespace"], metadata["name"]))

    def _child_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        metadata = (after or before or {})["metadata"]
        job = (metadata.get("labels") or {}).get(names.LABEL_JOB_NAME)
        if job:
            self._queue.add((metadata["namespace"], job))

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                again_s = await self._syncer.sync(key)
            except (Conflict, NotFound) as error:
                log.debug("%s/%s changed meanwhile: %s", *key, error)
                self._queue.add_failed(key)
            except (ApiError, OSError) as error:
                delay_s = self._queue.add_failed(key)
                log.warning("%s/%s: %s; again in %.2f s", *key, error, delay_s)
            except Exception:  # a bug that one job brings out must not keep the others from being worked on
                delay_s = self._queue.add_failed(key)
                log.exception("%s/%s: a bug in the controller; again in %.2f s", *key, delay_s)
            else:
                self._queue.forget(key)
                if again_s is not None:
                    self._queue.add_after(key, again_s)
            finally:
                self._queue.done(key)


async def _all_synced(informers: tuple[Informer, ...]) -> None:
    for informer in informers:
        await informer.synced.wait()

"""A cache of a kind that an API server may not serve, may serve later, or may not let this controller read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from trainserve.kube.cluster import ApiError, Cluster, Forbidden, Manifest, NotFound
from trainserve.kube.informer import Handler, Informer, by_owner_uid
from trainserve.kube.names import Kind
from trainserve.kube.outage import level

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
RETRY_S = 2.0  # the server could not be asked
_OWNER = "owner"


class OptionalCache:
    """`await run()` finds out whether the kind is there, and keeps its objects in `namespaces` while it is.

    `known` is set when that was found out for the first time, and the objects, if any, are in the cache.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        namespaces: Sequence[str | None],
        labels: Mapping[str, str],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.served = False
        self.known = asyncio.Event()
        self._cluster = cluster
        self._kind = kind
        self._namespaces = namespaces
        self._sleep = sleep
        self._labels = labels
        self._handlers: list[Handler] = []
        self._informers: list[Informer] = []

    def __str__(self) -> str:
        return f"{self._kind.plural} of {self._kind.api_version}"

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change; before `run`."""
        self._handlers.append(handler)

    def owned(self, uid: str) -> Sequence[Manifest]:
        """The objects of one owner; not to be changed."""
        return [item for informer in self._informers for item in informer.indexed(_OWNER, uid)]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                usable = await self._usable()
            except (ApiError, OSError) as error:
                log.log(level(error), "%s: cannot find out whether it is served: %s", self._kind.api_version, error)
                await self._sleep(RETRY_S)
                continue
            if usable:
                await self._keep()
            self.known.set()
            await self._sleep(LOOK_EVERY_S)

    async def _usable(self) -> bool:
        if not await self._cluster.serves(self._kind):
            return False
        try:
            for namespace in self._namespaces:
                await self._cluster.list(self._kind, namespace, labels=self._labels, limit=1)
        except Forbidden as error:
            log.warning("%s is served, and not used: %s", self._kind.api_version, error)
            return False
        except NotFound:
            return False
        return True

    async def _keep(self) -> None:
        """Cache the objects until the kind is served no more."""
        self._informers = [
            Informer(self._cluster, self._kind, namespace, self._labels, indexes={_OWNER: by_owner_uid})
            for namespace in self._namespaces
        ]
        for informer in self._informers:
            for handler in self._handlers:
                informer.add_handler(handler)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(informer.run()) for informer in self._informers]
            for informer in self._informers:
                await informer.synced.wait()
            self.served = True
            self.known.set()
            log.info("%s is served, and used", self._kind.api_version)
            while self.served:
                await self._sleep(LOOK_EVERY_S)
                try:
                    self.served = await self._usable()
                except (ApiError, OSError) as error:
                    log.debug("%s: %s", self._kind, error)  # the server is away: it comes back with its kinds
            for task in running:
                task.cancel()
        self._informers = []

"""What a pass looks at beside pods and services: kinds that not every API server has, and what the nodes have free."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from trainserve.kube import names
from trainserve.kube.cluster import Cluster, Manifest
from trainserve.kube.informer import Handler
from trainserve.kube.podgroup import KINDS, Gang
from trainserve.operator.capacity import Capacity
from trainserve.operator.optional import OptionalCache
from trainserve.operator.pytorchjob import placement
from trainserve.operator.pytorchjob.observed import Facilities, Observed
from trainserve.operator.pytorchjob.reading import observe
from trainserve.operator.settings import GangSetting


class Surroundings:
    """`await run()` keeps the caches of PodGroups and autoscalers; `complete` adds them to what was observed.

    `gang` is the scheduler to use for gangs; auto is Kubernetes' own where the server has it. Whatever is not served
    is done without, and looked for again every minute.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Sequence[str | None],
        *,
        gang: GangSetting = "auto",
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._setting = gang
        self._gang: Gang = "kubernetes" if gang == "auto" else gang
        labels = {names.LABEL_OPERATOR_NAME: names.OPERATOR_NAME}
        kind = KINDS.get(self._gang)
        self._groups = None if kind is None else OptionalCache(cluster, kind, namespaces, labels, sleep=sleep)
        self._autoscalers = OptionalCache(cluster, names.AUTOSCALER, namespaces, labels, sleep=sleep)
        self._caches = [cache for cache in (self._groups, self._autoscalers) if cache is not None]
        self._capacity = Capacity(cluster)

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change of a PodGroup or an autoscaler."""
        for cache in self._caches:
            cache.add_handler(handler)

    async def run(self) -> None:
        """Keep the caches until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cache in self._caches:
                tasks.create_task(cache.run())

    async def known(self) -> None:
        """Wait until it is known which kinds are served, and those are in the caches."""
        for cache in self._caches:
            await cache.known.wait()

    def not_known(self) -> list[str]:
        """Kinds of which it is not known yet whether they are served."""
        return [str(cache) for cache in self._caches if not cache.known.is_set()]

    async def complete(self, job: Manifest, observed: Observed, now: float) -> Observed:
        """`observed`, with the job's PodGroups and autoscalers, and what the cluster can do for it."""
        uid = job["metadata"]["uid"]
        generation = int((job.get("status") or {}).get("generation") or 0)
        wanted = placement.wants_room(observed, generation, now)
        gang: Gang = self._gang if self._groups is not None and self._groups.served else "none"
        facilities = Facilities(
            gang=gang,
            no_gang=self._no_gang() if gang == "none" else "",
            autoscaling=self._autoscalers.served,
            room=await self._capacity.room() if wanted else None,
        )
        groups = self._groups.owned(uid) if self._groups is not None else ()
        found = observe(job, (), (), pod_groups=groups, autoscalers=self._autoscalers.owned(uid))
        return replace(observed, pod_groups=found.pod_groups, autoscalers=found.autoscalers, facilities=facilities)

    def _no_gang(self) -> str:
        """Why there is no gang scheduler, where one was asked for by name."""
        if self._setting in {"auto", "none"}:
            return ""
        kind = KINDS[self._gang]
        return f"pods are placed one by one, not by {self._gang}: this cluster has no {kind} of {kind.api_version}"

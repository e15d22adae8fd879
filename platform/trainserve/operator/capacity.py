"""What the nodes of the cluster have free, looked up when somebody waits for it, and at most twice a minute.

Nodes and other people's pods belong to the whole cluster: a controller that may not see them does without.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from fractions import Fraction

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Cluster, Forbidden, Manifest, NotFound
from trainserve.kube.outage import level
from trainserve.kube.requests import pod_requests
from trainserve.kube.room import Room, node_room

log = logging.getLogger(__name__)

EVERY_S = 30.0
FORBIDDEN_S = 600.0  # rights are seldom given meanwhile
SHARE = 20.0  # of the time at most a twentieth goes into looking: a large cluster is looked at less often
PAGE = 500
PATIENCE_S = 1.0  # for somebody else's look: in a large cluster it takes longer, and no worker is to stand for it


class Capacity:
    """One for all jobs. `clock` gives seconds and never goes back."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._lock = asyncio.Lock()
        self._room: Room | None = None
        self._look_at = float("-inf")

    async def room(self) -> Room | None:
        """None: it cannot be seen. While somebody looks for long, what was seen before."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._lock.acquire()
        except TimeoutError:
            return self._room
        try:
            began = self._clock()
            if began >= self._look_at:
                await self._look(began)
            return self._room
        finally:
            self._lock.release()

    async def _look(self, began: float) -> None:
        pause_s = EVERY_S
        try:
            self._room = await self._looked()
        except (Forbidden, NotFound) as error:
            log.info("what the nodes have free is not said: %s", error)
            self._room, pause_s = None, FORBIDDEN_S
        except (ApiError, OSError) as error:
            log.log(level(error), "what the nodes have free is not known: %s", error)
            self._room = None
        ended = self._clock()
        self._look_at = ended + max(pause_s, SHARE * (ended - began))

    async def _looked(self) -> Room:
        nodes = [node async for node in self._all(names.NODE)]
        used: dict[str, dict[str, Fraction]] = defaultdict(dict)
        async for pod in self._all(names.POD):
            node = pod["spec"].get("nodeName")
            if node and (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}:
                of_node = used[node]
                for name, amount in pod_requests(pod["spec"]).items():
                    of_node[name] = of_node.get(name, Fraction(0)) + amount
        rooms = (node_room(node, used.get(node["metadata"]["name"], {})) for node in nodes)
        return tuple(room for room in rooms if room is not None)

    async def _all(self, kind: names.Kind) -> AsyncIterator[Manifest]:
        token = ""
        while True:
            page = await self._cluster.list(kind, None, limit=PAGE, continue_token=token)
            for item in page.items:
                yield item
            token = page.continue_token
            if not token:
                return

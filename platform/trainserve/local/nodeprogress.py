"""How far the pods of a node are: asked on loopback, which nobody else can, and written at the pod."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Cluster, Forbidden, Manifest
from trainserve.kube.names import POD
from trainserve.operator.progress import ANSWER_S, ask_at_address, read_progress

log = logging.getLogger(__name__)

EVERY_S = 5.0
REFUSED_S = 60.0  # until a server that has refused it is asked again: rights are seldom given meanwhile


def address(container: Manifest, host: str) -> str | None:
    """`<host>:<port>` where the container's rank 0 is to answer; None where it writes no output: it knows nothing."""
    asked = {variable["name"] for variable in container.get("env") or []}
    return f"{host}:{names.PROGRESS_PORT}" if names.ENV_OUTPUT in asked else None


class ProgressWriter:
    """`await run()` asks the pods that `pods` gives, each at the host that `host` gives for it, until cancelled."""

    def __init__(
        self,
        cluster: Cluster,
        pods: Callable[[], Sequence[Manifest]],
        host: Callable[[Manifest], str | None],
        every_s: float = EVERY_S,
    ) -> None:
        self._cluster = cluster
        self._pods = pods
        self._host = host
        self._every_s = every_s
        self._written: dict[str, str] = {}  # by uid
        self._again_at: dict[str, float] = {}  # by namespace: after a refusal there, by time.monotonic

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            pods = [pod for pod in self._pods() if "deletionTimestamp" not in pod["metadata"]]
            there = {pod["metadata"]["uid"] for pod in pods}
            self._written = {uid: text for uid, text in self._written.items() if uid in there}
            await asyncio.gather(*(self._look(pod) for pod in pods))

    async def _look(self, pod: Manifest) -> None:
        host = self._host(pod)
        if host is None or not any(address(container, host) for container in pod["spec"]["containers"]):
            return
        meta = pod["metadata"]
        if time.monotonic() < self._again_at.get(meta["namespace"], 0.0):
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await ask_at_address({"status": {"podIP": host}}, names.PROGRESS_PORT, lambda _: True)
            progress = json.dumps(read_progress(answer), sort_keys=True)
            if progress == "{}" or progress == self._written.get(meta["uid"]):
                return
            patch = {"metadata": {"uid": meta["uid"], "annotations": {names.ANNOTATION_PROGRESS: progress}}}
            await self._cluster.patch(POD, meta["namespace"], meta["name"], patch)
        except Forbidden as error:
            if meta["namespace"] not in self._again_at:
                log.warning("progress of pods in %s cannot be told: %s", meta["namespace"], error.message)
            self._again_at[meta["namespace"]] = time.monotonic() + REFUSED_S
        except (OSError, ApiError, ValueError) as error:  # a timeout is an OSError; it has not begun, or has ended
            log.debug("pod %s/%s: its progress: %s", meta["namespace"], meta["name"], error)
        else:
            self._written[meta["uid"]] = progress

"""The node agent of a cluster on a laptop: pods of the API server in memory become processes of this machine."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import Cluster, Conflict, Gone, Manifest, NotFound, WatchEvent
from trainserve.kube.names import POD, PYTORCHJOB
from trainserve.local import podspec, process
from trainserve.local.nodepods import NodePods, generation_of, is_over
from trainserve.local.pod import Report, restart_delay_s
from trainserve.local.rundir import pod_folder
from trainserve.machine.ports import Reserved, is_free

log = logging.getLogger(__name__)

MESSAGE_NODE_LOST = "the supervisor of this run ended while the pod was running"


class LocalCluster(Cluster, Protocol):
    """A cluster whose pods this kubelet may also schedule."""

    async def bind(self, namespace: str, name: str, node: str) -> Manifest: ...


class Kubelet:
    """Runs the pods of one namespace below the folder `pods`. It is scheduler and kubelet in one: there is one node.

    `lifeline` is the read end of a pipe whose write end only this process holds. `clock` gives unix seconds.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        pods: Path,
        *,
        lifeline: int,
        clock: Callable[[], float],
        ports: Reserved | None = None,
        namespace: str = names.LOCAL_NAMESPACE,
        node: str = "",
        delay_s: Callable[[int], float] = restart_delay_s,
    ) -> None:
        self._cluster = cluster
        self._folder = pods
        self._ports = ports or Reserved()
        self._namespace = namespace
        self.node = node or platform.node() or "laptop"
        self._objects: dict[str, Manifest] = {}  # by uid: all there are, as last seen
        self._pods = NodePods(
            cluster,
            self,
            node=self.node,
            lifeline=lifeline,
            clock=clock,
            scheduled=False,
            where_errors_are="supervisor.log",
            delay_s=delay_s,
        )

    @property
    def running(self) -> int:
        """Pods that have, or are about to have, processes."""
        return self._pods.running

    async def run(self) -> None:
        """Run pods until cancelled; then `stop` ends what is left."""
        page = await self._cluster.list(POD, self._namespace)
        await self._take_over(page.items)
        while True:
            try:
                for pod in page.items:
                    await self._see(pod)
                version = page.resource_version
                while True:
                    async for event in self._cluster.watch(POD, self._namespace, resource_version=version):
                        version = event.object["metadata"]["resourceVersion"]
                        await self._handle(event)
            except Gone:
                page = await self._cluster.list(POD, self._namespace)
                left = {pod["metadata"]["uid"] for pod in page.items}
                for uid in [uid for uid in self._objects if uid not in left]:
                    self._forget(uid)

    async def stop(self) -> None:
        """Kill what runs and wait until it is gone. To the controller these pods are lost with their node."""
        self._pods.kill_all(names.REASON_NODE_LOST, MESSAGE_NODE_LOST)
        await self._pods.ended()

    async def _take_over(self, pods: Sequence[Manifest]) -> None:
        """Pods of a snapshot belonged to a kubelet that is gone: what is left of them ends, and they are lost."""
        killed = await asyncio.to_thread(process.kill_marked, self._folder)
        if killed:
            log.warning("killed %d processes that an earlier supervisor had left", killed)
        for pod in pods:
            if not pod["spec"].get("nodeName") or is_over(pod):
                continue
            lost = {"phase": "Failed", "reason": names.REASON_NODE_LOST, "message": MESSAGE_NODE_LOST}
            pod["status"] = {**pod.get("status", {}), **lost}
            await self._write_status(pod, pod["status"])

    async def _handle(self, event: WatchEvent) -> None:
        if event.type == "DELETED":
            self._forget(event.object["metadata"]["uid"])
        elif event.type != "BOOKMARK":
            await self._see(event.object)

    async def _see(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        self._objects[uid] = pod
        if self._pods.has(uid):
            self._pods.update(pod)
        elif is_over(pod) or pod["spec"].get("nodeName"):
            if "deletionTimestamp" in pod["metadata"]:
                await self._pods.remove(pod)
        elif "deletionTimestamp" not in pod["metadata"]:
            try:
                bound = await self._cluster.bind(self._namespace, pod["metadata"]["name"], self.node)
            except (NotFound, Conflict):
                return  # deleted or replaced meanwhile; its event follows
            self._objects[uid] = bound
            self._pods.start(bound)

    def _forget(self, uid: str) -> None:
        self._objects.pop(uid, None)
        self._pods.kill(uid)

    async def _write_status(self, pod: Manifest, status: Manifest) -> bool:
        """False when this very pod is gone."""
        meta = pod["metadata"]
        patch: Manifest = {"metadata": {"uid": meta["uid"]}, "status": status}
        try:
            await self._cluster.patch(POD, self._namespace, meta["name"], patch, subresource="status")
        except (NotFound, Conflict):
            return False
        return True

    # The setting of its pods.

    def folder(self, pod: Manifest) -> Path:
        return self._folder / pod_folder(pod)

    def environment(self, pod: Manifest, container: Manifest) -> Mapping[str, str]:  # noqa: ARG002  nothing more here
        return {}

    async def objects(self, pod: Manifest) -> None:
        """There are no claims, Secrets or ConfigMaps on a laptop."""

    async def address(self, pod: Manifest) -> podspec.Address:
        """The same for all pods of one generation: this machine's loopback, and a free port."""
        job = pod["metadata"].get("labels", {}).get(names.LABEL_JOB_NAME)
        if job is None:
            return podspec.Address()
        try:
            asked = podspec.asked_port(await self._cluster.get(PYTORCHJOB, self._namespace, job))
        except NotFound:
            asked = None  # deleted; the pod goes the same way
        try:
            port = self._ports.port(generation_of(pod), asked)
        except EnvironmentProblem as error:
            raise podspec.no_port(error) from error
        is_master = pod["metadata"]["labels"].get(names.LABEL_JOB_ROLE) == "master"
        if asked is not None and is_master and not is_free(asked):
            raise podspec.port_in_use(asked)
        return podspec.address(job, self._namespace, port)

    def reporter(self, pod: Manifest) -> Report:
        uid = pod["metadata"]["uid"]

        async def report(status: Manifest) -> bool:
            return uid in self._objects and await self._write_status(pod, status)

        return report

    async def reported(self, pod: Manifest) -> None:
        """At once: this server hears everything as it is told."""

    def over(self, pod: Manifest) -> None:
        """Give back the port that was the last pod's of its generation."""
        generation = generation_of(pod)
        if not any(generation_of(other) == generation for other in self._pods.manifests()):
            self._ports.release(generation)

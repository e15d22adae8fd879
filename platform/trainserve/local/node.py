"""A machine as a node of a real cluster: its scheduler binds pods to it, which run here as processes.

Its parts: the node's own object (nodeheart), status (nodestatus), addresses (nodenetwork), GPUs (nodedevices), progress
(nodeprogress) and folders (nodefolders) of its pods. Nothing listens beyond loopback.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Forbidden, Manifest
from trainserve.kube.informer import Informer
from trainserve.kube.names import POD
from trainserve.kube.outage import problem
from trainserve.local import nodeprogress, nodestatus, nodevolumes, podspec, process
from trainserve.local.nodedevices import Devices
from trainserve.local.nodefolders import Room, folder_name, keep_tidy
from trainserve.local.nodeheart import NodeHeart
from trainserve.local.nodenetwork import Network
from trainserve.local.nodeobject import Machine, NodeShape
from trainserve.local.nodepods import NodePods, is_over
from trainserve.local.nodeprogress import ProgressWriter
from trainserve.local.nodestatus import StatusWriter
from trainserve.local.pod import Report, restart_delay_s
from trainserve.machine.ports import LOOPBACK, answers, loopback_of

if TYPE_CHECKING:
    from trainserve.kube.client import KubeCluster

log = logging.getLogger(__name__)

MESSAGE_NODE_LOST = "the node's process ended while the pod was running"
MESSAGE_STOPPED = "the node is being stopped"
LAST_WORDS_S = 10.0  # for what there is to tell the server after the last process has ended


@dataclass(frozen=True)
class NodeSettings:
    """What a node process is told. An empty `namespaces` means all.

    `gpus` are the devices behind its nvidia.com/gpu. `root` is the node's folder: lock, log files of pods. Pods that
    end with the node get `stop_grace_s` at most.
    """

    shape: NodeShape
    machine: Machine
    root: Path
    gpus: tuple[str, ...]
    namespaces: tuple[str, ...]
    stop_grace_s: float

    @property
    def pods(self) -> Path:
        return self.root / "pods"


class Node:
    """`await run()` is a node until `stop`. `lifeline`: read end of a pipe whose write end only this process holds.

    `registered` is called once the cluster has taken the node: from then on an outage of the server ends nothing.
    """

    def __init__(
        self,
        cluster: KubeCluster,
        settings: NodeSettings,
        *,
        lifeline: int,
        clock: Callable[[], float] = time.time,
        delay_s: Callable[[int], float] = restart_delay_s,
        registered: Callable[[], object] | None = None,
    ) -> None:
        self._cluster = cluster
        self._registered = registered
        self._settings = settings
        self._clock = clock
        self._name = settings.shape.name
        self._heart = NodeHeart(cluster, settings.shape, settings.machine, clock)
        self._pods = NodePods(
            cluster,
            self,
            node=self._name,
            lifeline=lifeline,
            clock=clock,
            scheduled=True,
            where_errors_are=f"the output of platform node run on {self._name}",
            delay_s=delay_s,
        )
        self._writers: dict[str, tuple[StatusWriter, asyncio.Task[None]]] = {}  # by uid
        self._there: set[str] = set()  # uids of all pods that are bound here
        self._done: set[str] = set()  # of those, what is over, lost or refused: told once
        self._background: set[asyncio.Task[None]] = set()
        self._network = Network(cluster, self._name, settings.machine.boot)
        self._devices = Devices(settings.gpus)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Register, run the pods that are bound here, and at `stop` end them in order.

        Raises UserError and EnvironmentProblem where the node cannot be one.
        """
        if not answers(loopback_of(self._name)):
            raise EnvironmentProblem(
                f"this system has no loopback address beside {LOOPBACK}, and each job needs one of its own",
                hint="run the node on Linux, where all of 127.0.0.0/8 answers",
            )
        killed = await asyncio.to_thread(process.kill_marked, self._settings.pods)
        if killed:
            log.warning("killed %d processes that an earlier process of this node had left", killed)
        for folder in await asyncio.to_thread(lambda: [*self._settings.pods.iterdir()]):
            await asyncio.to_thread(nodevolumes.forget, folder)
        informers = await self._informers()
        await self._heart.register()
        log.info("node %s is Ready", self._name)
        if self._registered is not None:
            self._registered()
        parts = [asyncio.create_task(informer.run(), name=str(informer)) for informer in informers]
        progress = ProgressWriter(self._cluster, self._pods.manifests, self._network.host)
        parts += [asyncio.create_task(self._heart.beat(), name="heart")]
        parts += [asyncio.create_task(progress.run(), name="progress")]
        tidying = keep_tidy(self._settings.pods, lambda: self._there, self._clock)
        parts += [asyncio.create_task(tidying, name="folders")]
        parts += [asyncio.create_task(Room(self._settings.pods).watch(), name="room")]
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait((*parts, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a part that fails takes the node with it
            await self._end_in_order()
        finally:
            for task in (*parts, stopping):
                task.cancel()
            await asyncio.gather(*parts, stopping, return_exceptions=True)
            await self._end_at_once()

    def stop(self) -> None:
        """End `run`: pods get their grace period, the node is told not to be Ready."""
        self._stopping.set()

    async def _informers(self) -> Sequence[Informer]:
        """Of all pods bound here, also those of namespaces that are refused, so that they are told why they wait."""
        here = {"spec.nodeName": self._name}
        namespaces: Sequence[str | None] = [None]
        try:
            await self._cluster.list(POD, None, fields=here, limit=1)
        except Forbidden as error:
            if not self._settings.namespaces:
                raise EnvironmentProblem(
                    f"pods of all namespaces cannot be read: {error.message}",
                    hint="name those you may read: --namespace",
                ) from error
            log.warning("pods that other namespaces place here wait without being told why: %s", error.message)
            namespaces = self._settings.namespaces
        except (ApiError, OSError) as error:
            raise problem(error) from error
        informers = [Informer(self._cluster, POD, namespace, fields=here) for namespace in namespaces]
        for informer in informers:
            informer.add_handler(self._changed)
        return informers

    def _changed(self, before: Manifest | None, after: Manifest | None) -> None:
        if after is not None:
            self._see(after)
            return
        assert before is not None
        uid = before["metadata"]["uid"]
        self._there.discard(uid)
        self._done.discard(uid)
        self._pods.kill(uid)

    def _see(self, pod: Manifest) -> None:
        meta = pod["metadata"]
        uid, is_deleted = meta["uid"], "deletionTimestamp" in meta
        self._there.add(uid)
        if self._pods.has(uid):
            self._pods.update(pod)
            if uid in self._writers:
                self._writers[uid][0].update(pod)
        elif uid in self._done or is_over(pod):
            if is_deleted:
                self._soon(self._pods.remove(pod))
        elif pod.get("status", {}).get("startTime"):
            lost = nodestatus.lost(pod, names.REASON_NODE_LOST, MESSAGE_NODE_LOST, self._clock())
            self._tell_once(pod, lost)
        elif is_deleted:
            self._soon(self._pods.remove(pod))
        elif self._stopping.is_set():
            self._tell_once(pod, nodestatus.lost(pod, names.POD_REJECTED, MESSAGE_STOPPED, self._clock()))
        elif self._settings.namespaces and meta["namespace"] not in self._settings.namespaces:
            taken = ", ".join(self._settings.namespaces)
            message = f"node {self._name} takes pods of these namespaces only: {taken}"
            self._tell_once(pod, nodestatus.waiting(pod, names.REASON_NAMESPACE, message))
        else:
            self._pods.start(pod)
            logs = self.folder(pod)
            self._soon(
                self._pods.tell(
                    pod, "Normal", names.REASON_STARTED, f"runs as processes on {self._name}; their logs: {logs}"
                )
            )

    def _tell_once(self, pod: Manifest, status: Manifest) -> None:
        """Write the status of a pod that is not run."""
        meta = pod["metadata"]
        self._done.add(meta["uid"])
        log.warning("pod %s/%s: %s", meta["namespace"], meta["name"], status.get("message") or _why_waiting(status))

        async def write() -> None:
            writer = StatusWriter(self._cluster, pod, lambda: None)
            writing = asyncio.create_task(writer.run())
            await writer(status)
            await writer.written()
            writing.cancel()
            if "deletionTimestamp" in meta:
                await self._pods.remove(pod)

        self._soon(write())

    def _soon(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # The end.

    async def _end_in_order(self) -> None:
        """No pods come any more; those that are here stop within their grace period."""
        log.info("node %s: stopping; %d pods are asked to end", self._name, self._pods.running)
        try:
            await asyncio.wait_for(self._heart.stopped(), LAST_WORDS_S)
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("node %s cannot be told not to be Ready: %s", self._name, str(error) or type(error).__name__)
        self._pods.stop_all(names.POD_TERMINATED, MESSAGE_STOPPED, self._settings.stop_grace_s)
        try:
            await asyncio.wait_for(self._pods.ended(), self._settings.stop_grace_s + LAST_WORDS_S)
        except TimeoutError:
            log.warning("%d pods did not end, or could not be told ended", self._pods.running)

    async def _end_at_once(self) -> None:
        """Kill what is left, and tell what can be told within a few seconds."""
        self._pods.kill_all(names.REASON_NODE_LOST, MESSAGE_NODE_LOST)
        left = asyncio.gather(self._pods.ended(), *self._background, return_exceptions=True)
        try:
            await asyncio.wait_for(left, LAST_WORDS_S)
        except TimeoutError:
            log.warning(
                "the API server does not hear of the end of %d pods; the next start tells it", self._pods.running
            )
        for _, writing in self._writers.values():
            writing.cancel()

    # The setting of its pods.

    def folder(self, pod: Manifest) -> Path:
        return self._settings.pods / folder_name(pod)

    async def address(self, pod: Manifest) -> podspec.Address:
        return await self._network.address(pod)

    async def objects(self, pod: Manifest) -> nodevolumes.Found:
        return await nodevolumes.find(self._cluster, pod, self.folder(pod))

    def environment(self, pod: Manifest, container: Manifest) -> Mapping[str, str]:
        host = self._network.host(pod)
        progress = None if host is None else nodeprogress.address(container, host)
        told = {names.ENV_PROGRESS_ADDRESS: progress} if progress else {}
        return {**self._devices.environment(pod, container), **told}

    def reporter(self, pod: Manifest) -> Report:
        uid = pod["metadata"]["uid"]
        if uid not in self._writers:
            writer = StatusWriter(self._cluster, pod, lambda: self._pods.kill(uid))
            self._writers[uid] = writer, asyncio.create_task(writer.run(), name=f"status of {pod['metadata']['name']}")
        return self._writers[uid][0]

    async def reported(self, pod: Manifest) -> None:
        await self._writers[pod["metadata"]["uid"]][0].written()

    def over(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._there:
            self._done.add(uid)
        self._devices.release(uid)
        writer, writing = self._writers.pop(uid)
        writing.cancel()
        log.info("pod %s/%s: %s", pod["metadata"]["namespace"], pod["metadata"]["name"], nodestatus.end(writer.pod))
        self._soon(asyncio.to_thread(nodevolumes.forget, self.folder(pod)))


def _why_waiting(status: Manifest) -> str:
    waiting = status["containerStatuses"][0]["state"]["waiting"]
    return f"{waiting['reason']}: {waiting['message']}"

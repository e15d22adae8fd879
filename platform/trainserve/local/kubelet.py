"""The node agent of a cluster on a laptop: pods of the API server in memory become processes of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import Cluster, Conflict, Gone, Manifest, NotFound, WatchEvent
from trainserve.kube.moments import rfc3339
from trainserve.kube.names import EVENT, POD, PYTORCHJOB
from trainserve.local import podspec, process
from trainserve.local.pod import Pod, restart_delay_s
from trainserve.local.podspec import Process
from trainserve.local.rundir import pod_folder
from trainserve.machine.ports import Reserved, is_free

log = logging.getLogger(__name__)

MESSAGE_NODE_LOST = "the supervisor of this run ended while the pod was running"
REASON_KUBELET_ERROR = "KubeletError"
REASON_WITHOUT_EFFECT = "WithoutEffect"
FINAL = ("Succeeded", "Failed")


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
        self._lifeline = lifeline
        self._clock = clock
        self._ports = ports or Reserved()
        self._namespace = namespace
        self.node = node or platform.node() or "laptop"
        self._delay_s = delay_s
        self._pods: dict[str, Pod] = {}  # by uid: those that are not over
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._objects: dict[str, Manifest] = {}  # by uid: all there are, as last seen
        self._told: dict[str, set[str]] = {}  # by job

    @property
    def running(self) -> int:
        """Pods that have, or are about to have, processes."""
        return len(self._tasks)

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
        for pod in self._pods.values():
            pod.kill(names.REASON_NODE_LOST, MESSAGE_NODE_LOST)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _take_over(self, pods: Sequence[Manifest]) -> None:
        """Pods of a snapshot belonged to a kubelet that is gone: what is left of them ends, and they are lost."""
        killed = await asyncio.to_thread(process.kill_marked, self._folder)
        if killed:
            log.warning("killed %d processes that an earlier supervisor had left", killed)
        for pod in pods:
            if not pod["spec"].get("nodeName") or _is_over(pod):
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
        if uid in self._pods:
            self._pods[uid].update(pod)
        elif _is_over(pod) or pod["spec"].get("nodeName"):
            if "deletionTimestamp" in pod["metadata"]:
                await self._remove(pod)
        elif "deletionTimestamp" not in pod["metadata"]:
            try:
                bound = await self._cluster.bind(self._namespace, pod["metadata"]["name"], self.node)
            except (NotFound, Conflict):
                return  # deleted or replaced meanwhile; its event follows
            self._start(bound)

    def _start(self, pod: Manifest) -> None:
        meta = pod["metadata"]
        folder = self._folder / pod_folder(pod)
        folder.mkdir(parents=True, exist_ok=True)
        Path(folder, "ranks.json").unlink(missing_ok=True)
        uid = meta["uid"]

        async def report(status: Manifest) -> bool:
            return uid in self._objects and await self._write_status(pod, status)

        async def processes(manifest: Manifest) -> tuple[list[Process], list[Process]]:
            return await self._processes(manifest, folder)

        running = Pod(pod, folder, processes=processes, report=report, lifeline=self._lifeline, delay_s=self._delay_s)
        self._objects[uid] = pod
        self._pods[uid] = running
        self._tasks[uid] = asyncio.create_task(self._run(uid, running), name=meta["name"])

    async def _run(self, uid: str, running: Pod) -> None:
        try:
            await running.run()
        except Exception:
            # A mistake of this kubelet with one pod must not end the others; the traceback is in supervisor.log.
            log.exception("pod %s", running.manifest["metadata"]["name"])
            running.kill()
            await asyncio.to_thread(process.kill_marked, running.pod_dir)
            failed = {"phase": "Failed", "reason": REASON_KUBELET_ERROR, "message": "see supervisor.log"}
            await self._write_status(running.manifest, failed)
        finally:
            # No await between these: whoever sees the pod next finds it over, with no process left.
            del self._pods[uid], self._tasks[uid]
            self._release_port(running.manifest)
        pod = self._objects.get(uid)
        if pod is not None and "deletionTimestamp" in pod["metadata"]:
            await self._remove(pod)

    async def _processes(self, pod: Manifest, folder: Path) -> tuple[list[Process], list[Process]]:
        """Init containers and containers as processes. Raises podspec.CannotRun."""
        podspec.check(pod)
        await self._tell(pod)
        address = await self._address(pod)
        first = str(Path(sys.executable).parent)
        base = {**os.environ, "PATH": os.pathsep.join(filter(None, (first, os.environ.get("PATH", os.defpath))))}

        def translate(container: Manifest) -> Process:
            extra = {
                names.ENV_LIFELINE_FD: str(self._lifeline),
                names.ENV_POD_DIR: str(folder),
                names.ENV_TERMINATION_LOG: str(folder / f"{container['name']}.termination-log"),
                **_host_nodes(container),
            }
            return podspec.process(container, base=base, extra=extra, address=address)

        spec = pod["spec"]
        return (
            [translate(container) for container in spec.get("initContainers") or []],
            [translate(container) for container in spec["containers"]],
        )

    async def _address(self, pod: Manifest) -> podspec.Address:
        """Where rank 0 of the pod's job listens; the same for all pods of one generation."""
        job = pod["metadata"].get("labels", {}).get(names.LABEL_JOB_NAME)
        if job is None:
            return podspec.Address()
        try:
            asked = podspec.asked_port(await self._cluster.get(PYTORCHJOB, self._namespace, job))
        except NotFound:
            asked = None  # deleted; the pod goes the same way
        try:
            port = self._ports.port(_generation_of(pod), asked)
        except EnvironmentProblem as error:
            raise podspec.no_port(error) from error
        is_master = pod["metadata"]["labels"].get(names.LABEL_JOB_ROLE) == "master"
        if asked is not None and is_master and not is_free(asked):
            raise podspec.port_in_use(asked)
        return podspec.address(job, self._namespace, port)

    def _release_port(self, pod: Manifest) -> None:
        generation = _generation_of(pod)
        if not any(_generation_of(other.manifest) == generation for other in self._pods.values()):
            self._ports.release(generation)

    async def _tell(self, pod: Manifest) -> None:
        """Say once a job what has no effect here."""
        job = pod["metadata"].get("labels", {}).get(names.LABEL_JOB_NAME, pod["metadata"]["name"])
        new = podspec.without_effect(pod) - self._told.setdefault(job, set())
        if not new:
            return
        self._told[job] |= new
        fields = ", ".join(sorted(new))
        sentence = f"no effect on this machine, where a pod is a group of processes: {fields}"
        log.info("pod %s: %s", pod["metadata"]["name"], sentence)
        now = rfc3339(self._clock())
        await self._cluster.create(
            EVENT,
            self._namespace,
            {
                "apiVersion": EVENT.api_version,
                "kind": EVENT.kind,
                "metadata": {"generateName": f"{pod['metadata']['name']}.", "namespace": self._namespace},
                "involvedObject": {
                    "apiVersion": POD.api_version,
                    "kind": POD.kind,
                    "namespace": self._namespace,
                    "name": pod["metadata"]["name"],
                    "uid": pod["metadata"]["uid"],
                },
                "type": "Warning",
                "reason": REASON_WITHOUT_EFFECT,
                "message": sentence,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": "kubelet", "host": self.node},
                "reportingComponent": "kubelet",
                "reportingInstance": self.node,
            },
        )

    async def _write_status(self, pod: Manifest, status: Manifest) -> bool:
        """False when this very pod is gone."""
        meta = pod["metadata"]
        patch: Manifest = {"metadata": {"uid": meta["uid"]}, "status": status}
        try:
            await self._cluster.patch(POD, self._namespace, meta["name"], patch, subresource="status")
        except (NotFound, Conflict):
            return False
        return True

    async def _remove(self, pod: Manifest) -> None:
        """The last word on a deleted pod: no process is left, the object may go."""
        meta = pod["metadata"]
        try:
            await self._cluster.delete(POD, self._namespace, meta["name"], uid=meta["uid"], grace_period_s=0)
        except (NotFound, Conflict):
            log.debug("pod %s is gone already", meta["name"])

    def _forget(self, uid: str) -> None:
        self._objects.pop(uid, None)
        if uid in self._pods:  # deleted by force: there is no object left that could ask for patience
            self._pods[uid].kill()


def _generation_of(pod: Manifest) -> str:
    labels: Mapping[str, str] = pod["metadata"].get("labels", {})
    return f"{labels.get(names.LABEL_JOB_NAME, '')}.g{labels.get(names.LABEL_GENERATION, '0')}"


def _host_nodes(container: Manifest) -> dict[str, str]:
    """All nodes of a job share this machine's cores."""
    values = [entry.get("value") for entry in container.get("env") or [] if entry["name"] == names.ENV_PET_NNODES]
    nodes = values[-1].rpartition(":")[2] if values and values[-1] else ""
    return {names.ENV_HOST_NODES: nodes} if nodes else {}


def _is_over(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in FINAL

"""The pods of one node as processes: started, followed, stopped, removed. Others bind them and watch them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Cluster, Conflict, Manifest, NotFound
from trainserve.kube.informer import DEFAULT_BACKOFF
from trainserve.kube.moments import rfc3339
from trainserve.kube.names import EVENT, POD
from trainserve.kube.outage import level
from trainserve.local import podspec, process
from trainserve.local.nodevolumes import Found
from trainserve.local.pod import Pod, Report, restart_delay_s
from trainserve.local.podspec import Address, Process

log = logging.getLogger(__name__)

REASON_KUBELET_ERROR = "KubeletError"
REASON_WITHOUT_EFFECT = "WithoutEffect"
FINAL = ("Succeeded", "Failed")
MOST_TOLD = 1000  # jobs of which it is remembered what they were told; a node may run for months


class Setting(Protocol):
    """Where and how the pods of a node run."""

    def folder(self, pod: Manifest) -> Path:
        """The pod's own folder: logs, termination messages. Made when it is missing."""
        ...

    async def address(self, pod: Manifest) -> Address:
        """Where rank 0 of the pod's job listens. Raises podspec.CannotRun."""
        ...

    async def objects(self, pod: Manifest) -> Found | None:
        """What the objects are that the pod names, such as claims; None where there are none. Raises CannotRun."""
        ...

    def environment(self, pod: Manifest, container: Manifest) -> Mapping[str, str]:
        """What a container gets beside its own variables and those of every pod; it goes before both."""
        ...

    def reporter(self, pod: Manifest) -> Report:
        """What writes the pod's status."""
        ...

    async def reported(self, pod: Manifest) -> None:
        """Wait until the last status of a pod that is over is written, or the pod is gone."""
        ...

    def over(self, pod: Manifest) -> None:
        """No process of the pod is left."""
        ...


class NodePods:
    """Runs pods that have this node. `lifeline` is the read end of a pipe whose write end only this process holds.

    `scheduled`: a scheduler has chosen the node by the pod's wishes. `clock` gives unix seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        setting: Setting,
        *,
        node: str,
        lifeline: int,
        clock: Callable[[], float],
        scheduled: bool,
        where_errors_are: str,
        delay_s: Callable[[int], float] = restart_delay_s,
    ) -> None:
        self._cluster = cluster
        self._setting = setting
        self._node = node
        self._lifeline = lifeline
        self._clock = clock
        self._scheduled = scheduled
        self._where_errors_are = where_errors_are
        self._delay_s = delay_s
        self._pods: dict[str, Pod] = {}  # by uid: those that are not over
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told: dict[tuple[str, str], set[str]] = {}  # by namespace and job

    @property
    def running(self) -> int:
        """Pods that have, or are about to have, processes."""
        return len(self._tasks)

    def manifests(self) -> Sequence[Manifest]:
        """The pods that are not over, as they were last seen."""
        return [pod.manifest for pod in self._pods.values()]

    def has(self, uid: str) -> bool:
        return uid in self._pods

    def update(self, pod: Manifest) -> None:
        """Tell a running pod what its object is now."""
        self._pods[pod["metadata"]["uid"]].update(pod)

    def start(self, pod: Manifest) -> None:
        """Run a pod; its end is written into its status."""
        uid = pod["metadata"]["uid"]
        folder = self._setting.folder(pod)

        async def processes(manifest: Manifest) -> tuple[list[Process], list[Process]]:
            return await self._processes(manifest, folder)

        running = Pod(
            pod,
            folder,
            processes=processes,
            report=self._setting.reporter(pod),
            lifeline=self._lifeline,
            delay_s=self._delay_s,
        )
        self._pods[uid] = running
        self._tasks[uid] = asyncio.create_task(self._run(uid, running), name=pod["metadata"]["name"])

    def kill(self, uid: str) -> None:
        """End a pod at once: its object is gone, so nothing is left that could ask for patience."""
        if uid in self._pods:
            self._pods[uid].kill()

    def stop_all(self, reason: str, message: str, grace_s: float) -> None:
        """Ask every pod to end; after its own grace period, at most `grace_s`, it is killed."""
        for pod in self._pods.values():
            pod.stop(reason, message, grace_s)

    def kill_all(self, reason: str, message: str) -> None:
        """End every pod at once. To a controller they are failed for `reason`."""
        for pod in self._pods.values():
            pod.kill(reason, message)

    async def ended(self) -> None:
        """Until no pod runs any more."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def remove(self, pod: Manifest) -> None:
        """The last word on a deleted pod: no process is left, the object may go. Tried until the server hears it."""
        meta = pod["metadata"]
        for failures in itertools.count():
            try:
                await self._cluster.delete(POD, meta["namespace"], meta["name"], uid=meta["uid"], grace_period_s=0)
            except (NotFound, Conflict):
                log.debug("pod %s is gone already", meta["name"])
            except (ApiError, OSError) as error:
                delay_s = DEFAULT_BACKOFF.delay_s(failures, random.random())
                log.log(level(error), "pod %s cannot be removed: %s; again in %.1f s", meta["name"], error, delay_s)
                await asyncio.sleep(delay_s)
                continue
            return

    async def _run(self, uid: str, running: Pod) -> None:
        try:
            await self._run_and_report(running)
            if "deletionTimestamp" in running.manifest["metadata"]:
                await self.remove(running.manifest)
        finally:
            # No await between these: whoever sees the pod next finds it over, with no process left.
            del self._pods[uid], self._tasks[uid]
            self._setting.over(running.manifest)

    async def _run_and_report(self, running: Pod) -> None:
        folder = running.pod_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Path(folder, "ranks.json").unlink(missing_ok=True)
        except OSError as error:  # a full disk, say: that is one pod's end and not the node's
            log.error("pod %s: its folder cannot be made: %s", running.manifest["metadata"]["name"], error)
            await self._failed(running, f"{folder} cannot be made: {error.strerror or error}")
            return
        try:
            await running.run()
        except Exception:
            # A mistake of this kubelet with one pod must not end the others; the traceback is in its log.
            log.exception("pod %s", running.manifest["metadata"]["name"])
            running.kill()
            await asyncio.to_thread(process.kill_marked, folder)
            await self._failed(running, f"see {self._where_errors_are}")
        else:
            await self._setting.reported(running.manifest)

    async def _failed(self, running: Pod, message: str) -> None:
        failed = {"phase": "Failed", "reason": REASON_KUBELET_ERROR, "message": message}
        await self._setting.reporter(running.manifest)(failed)
        await self._setting.reported(running.manifest)

    async def _processes(self, pod: Manifest, folder: Path) -> tuple[list[Process], list[Process]]:
        """Init containers and containers as processes. Raises podspec.CannotRun."""
        found = await self._setting.objects(pod)
        podspec.check(pod, looked_up=found is not None)
        await self._tell_without_effect(pod)
        address = await self._setting.address(pod)
        first = str(Path(sys.executable).parent)
        base = {**os.environ, "PATH": os.pathsep.join(filter(None, (first, os.environ.get("PATH", os.defpath))))}

        def translate(container: Manifest) -> Process:
            extra = {
                names.ENV_LIFELINE_FD: str(self._lifeline),
                names.ENV_POD_DIR: str(folder),
                names.ENV_TERMINATION_LOG: str(folder / f"{container['name']}.termination-log"),
                **_host_nodes(container),
                **self._setting.environment(pod, container),
            }
            given = found.given[container["name"]] if found else None
            what = podspec.process(container, base=base, extra=extra, address=address, given=given)
            return found.entered(what, container) if found else what

        spec = pod["spec"]
        return (
            [translate(container) for container in spec.get("initContainers") or []],
            [translate(container) for container in spec["containers"]],
        )

    async def _tell_without_effect(self, pod: Manifest) -> None:
        """Say once a job what has no effect here."""
        meta = pod["metadata"]
        job = meta.get("labels", {}).get(names.LABEL_JOB_NAME, meta["name"])
        told = self._told.setdefault((meta["namespace"], job), set())
        new = podspec.without_effect(pod, scheduled=self._scheduled) - told
        if not new:
            return
        told |= new
        while len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        fields = ", ".join(sorted(new))
        sentence = f"no effect on this machine, where a pod is a group of processes: {fields}"
        await self.tell(pod, "Warning", REASON_WITHOUT_EFFECT, sentence)

    async def tell(self, pod: Manifest, kind: str, reason: str, message: str) -> None:
        """An Event about the pod. One that cannot be told is logged: it decides nothing."""
        meta = pod["metadata"]
        log.info("pod %s/%s: %s: %s", meta["namespace"], meta["name"], reason, message)
        now = rfc3339(self._clock())
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": POD.api_version,
                "kind": POD.kind,
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
        }
        try:
            await self._cluster.create(EVENT, meta["namespace"], event)
        except (ApiError, OSError) as error:
            log.log(
                level(error),
                "pod %s/%s: this could not be told as an event: %s",
                meta["namespace"],
                meta["name"],
                error,
            )


def is_over(pod: Manifest) -> bool:
    """Whether no container of it will run any more."""
    return pod.get("status", {}).get("phase") in FINAL


def generation_of(pod: Manifest) -> str:
    """The pod's gang, within its namespace."""
    labels: Mapping[str, str] = pod["metadata"].get("labels", {})
    return f"{labels.get(names.LABEL_JOB_NAME, '')}.g{labels.get(names.LABEL_GENERATION, '0')}"


def _host_nodes(container: Manifest) -> dict[str, str]:
    """All nodes of a job share this machine's cores."""
    values = [entry.get("value") for entry in container.get("env") or [] if entry["name"] == names.ENV_PET_NNODES]
    nodes = values[-1].rpartition(":")[2] if values and values[-1] else ""
    return {names.ENV_HOST_NODES: nodes} if nodes else {}

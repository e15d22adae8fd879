"""A real API server that somebody has started, what a test needs in it, and what a test asks of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from trainserve.kube import names
from trainserve.kube.client import KubeCluster, connect
from trainserve.kube.cluster import AlreadyExists, ApiError, Cluster, Manifest, NotFound
from trainserve.kube.crd import pytorchjob_crd
from trainserve.kube.names import PYTORCHJOB, Kind

WITHIN_S = 20.0
CLOSED_S = 0.1


@asynccontextmanager
async def connected(kubeconfig: str) -> AsyncIterator[KubeCluster]:
    """A client of it, whose connections are closed before the event loop is: TLS takes some turns of the loop."""
    async with connect(kubeconfig) as cluster:
        yield cluster
    await asyncio.sleep(CLOSED_S)


@asynccontextmanager
async def namespaced(kubeconfig: str, *namespaces: str) -> AsyncIterator[Cluster]:
    """A client of it; the namespaces are there for the length of the block, and pods can be made in them."""
    async with connected(kubeconfig) as cluster:
        await install(cluster)
        for namespace in namespaces:
            metadata = {"name": namespace}
            await cluster.create(names.NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        try:
            for namespace in namespaces:
                await there(cluster, names.SERVICE_ACCOUNT, namespace, "default")
            yield cluster
        finally:
            for namespace in namespaces:
                await cluster.delete(names.NAMESPACE, None, namespace)


async def install(cluster: KubeCluster) -> None:
    """Install the CRD where it is missing, and wait until the server serves it."""
    with contextlib.suppress(AlreadyExists):
        await cluster.create(names.CRD, None, pytorchjob_crd())
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                await cluster.list(PYTORCHJOB, None, limit=1)
            except ApiError:
                await asyncio.sleep(0.1)
            else:
                return


async def there(cluster: KubeCluster, kind: Kind, namespace: str, name: str) -> None:
    """Wait until the object exists."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                await cluster.get(kind, namespace, name)
            except NotFound:
                await asyncio.sleep(0.02)
            else:
                return


class Team:
    """One namespace of a real API server: what a test does there, and what it waits for.

    Every wait is by what the server says, and fails with what it said last.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    async def create(self, job: Manifest) -> Manifest:
        """Create a PyTorchJob in this namespace, whichever it names."""
        job = {**job, "metadata": {**job["metadata"], "namespace": self.namespace}}
        return await self.cluster.create(PYTORCHJOB, self.namespace, job)

    async def job(self, name: str = "flowers") -> Manifest:
        return await self.cluster.get(PYTORCHJOB, self.namespace, name)

    async def patch(self, patch: Manifest, name: str = "flowers") -> Manifest:
        """A merge patch of a job, such as {"spec": {"runPolicy": {"suspend": True}}}."""
        return await self.cluster.patch(PYTORCHJOB, self.namespace, name, patch)

    async def delete(self, name: str = "flowers") -> None:
        await self.cluster.delete(PYTORCHJOB, self.namespace, name)

    async def children(self, kind: Kind = names.POD, name: str = "flowers") -> list[Manifest]:
        """A job's pods, or its services, by label, in the order of their names."""
        labels = {names.LABEL_JOB_NAME: name}
        found = (await self.cluster.list(kind, self.namespace, labels=labels)).items
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    async def events(self, reason: str) -> list[Manifest]:
        """Events of one reason."""
        return [
            event for event in (await self.cluster.list(names.EVENT, self.namespace)).items if event["reason"] == reason
        ]

    async def until(
        self, condition: Callable[[Manifest], bool], what: str, name: str = "flowers", timeout_s: float = 150
    ) -> Manifest:
        """The job once `condition(job)` holds."""
        give_up = time.monotonic() + timeout_s
        while not condition(found := await self.job(name)):
            assert time.monotonic() < give_up, f"{what}: not within {timeout_s:.0f} s: {found.get('status')}"
            await asyncio.sleep(0.1)
        return found

    async def until_state(self, state: str, name: str = "flowers", timeout_s: float = 150) -> Manifest:
        """The job once the last of its conditions is `state`, which is what `kubectl get` shows."""
        return await self.until(lambda job: state_of(job) == state, state, name, timeout_s)

    async def until_gone(self, name: str = "flowers", timeout_s: float = 150) -> None:
        """Job, pods and services are gone."""
        give_up = time.monotonic() + timeout_s
        while True:
            left = [*await self.children(name=name), *await self.children(names.SERVICE, name)]
            try:
                left.append(await self.job(name))
            except NotFound:
                if not left:
                    return
            assert time.monotonic() < give_up, f"not gone within {timeout_s:.0f} s: {left}"
            await asyncio.sleep(0.1)

    async def until_another(self, job: Manifest, timeout_s: float = 150) -> Manifest:
        """The job that has the name of this one, which was deleted."""
        give_up = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(NotFound):
                found = await self.job(job["metadata"]["name"])
                if found["metadata"]["uid"] != job["metadata"]["uid"]:
                    return found
            assert time.monotonic() < give_up, f"no other job within {timeout_s:.0f} s"
            await asyncio.sleep(0.1)

    async def until_pods(
        self,
        count: int,
        *,
        phase: str = "Running",
        generation: int | None = None,
        name: str = "flowers",
        timeout_s: float = 150,
    ) -> list[Manifest]:
        """The job's pods once there are `count`, all in this phase, and of this generation if one is given."""
        give_up = time.monotonic() + timeout_s
        while True:
            pods = await self.children(name=name)
            if len(pods) == count and all(
                pod["status"].get("phase") == phase
                and "deletionTimestamp" not in pod["metadata"]
                and generation in {None, generation_of(pod)}
                for pod in pods
            ):
                return pods
            seen = [(pod["metadata"]["name"], generation_of(pod), pod["status"].get("phase")) for pod in pods]
            wanted = f"{count} pods {phase}" + (f" of generation {generation}" if generation else "")
            assert time.monotonic() < give_up, f"{wanted}: not within {timeout_s:.0f} s: {seen}"
            await asyncio.sleep(0.1)

    async def end(self, pod: str, code: int, *, reason: str = "", message: str = "") -> None:
        """All containers of a running pod end with this exit code, and so does the pod: a kubelet's part."""
        found = await self.cluster.get(names.POD, self.namespace, pod)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "finishedAt": now}
        if message:
            ended["message"] = message
        containers = [
            {**status, "ready": False, "state": {"terminated": ended}}
            for status in found["status"]["containerStatuses"]
        ]
        await self.set_status(pod, {"phase": "Failed" if code else "Succeeded", "containerStatuses": containers})

    async def set_status(self, pod: str, status: Mapping[str, Any]) -> None:
        """Patch a pod's status, as its kubelet would."""
        await self.cluster.patch(names.POD, self.namespace, pod, {"status": dict(status)}, subresource="status")

    async def status(self, status: Mapping[str, Any], name: str = "flowers") -> None:
        """Patch a job's status, as its controller would."""
        await self.cluster.patch(PYTORCHJOB, self.namespace, name, {"status": dict(status)}, subresource="status")

    async def remove(self, pod: str) -> None:
        """A pod is gone at once, as `kubectl delete pod --force` does it."""
        await self.cluster.delete(names.POD, self.namespace, pod, grace_period_s=0)


def state_of(job: Manifest) -> str:
    """The type of its last condition; "" before it has one."""
    conditions = (job.get("status") or {}).get("conditions") or [{"type": ""}]
    return str(conditions[-1]["type"])


def condition_of(job: Manifest, kind: str) -> Manifest:
    """The condition of this type; {} where there is none."""
    conditions: list[Manifest] = (job.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == kind), {})


def generation_of(pod: Manifest) -> int:
    """Which gang it belongs to; 0 where it has no label."""
    return int((pod["metadata"].get("labels") or {}).get(names.LABEL_GENERATION, 0))

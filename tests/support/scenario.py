"""A job, an API server in memory, a kubelet and a clock that the test steps, and the controller between them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from support.kubelet import Kubelet
from support.rbac import Call, UnderItsRole
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Cluster, Manifest, NotFound
from trainserve.kube.informer import by_owner_uid
from trainserve.kube.podgroup import KINDS
from trainserve.local.resources import RESOURCES, Resource
from trainserve.local.server import MemoryCluster
from trainserve.operator.pytorchjob.observed import Facilities, Observed
from trainserve.operator.pytorchjob.reading import observe
from trainserve.operator.sync import Caches, StatusWritten, Syncer

T = TypeVar("T")
NAMESPACE = "team"
START = 1_700_000_000.0


def pytorchjob(
    name: str = "flowers",
    *,
    workers: int = 2,
    master: bool = True,
    policy: str | None = "ExitCode",
    annotations: dict[str, str] | None = None,
    elastic: Manifest | None = None,
    **run_policy: Any,
) -> Manifest:
    """A PyTorchJob as a user would send it."""
    container = {"name": names.CONTAINER, "image": "localhost/train:1", "command": ["train"]}

    def replica(count: int) -> Manifest:
        spec: Manifest = {"replicas": count, "template": {"spec": {"containers": [dict(container)]}}}
        return spec if policy is None else {**spec, "restartPolicy": policy}

    replica_specs = {}
    if master:
        replica_specs["Master"] = replica(1)
    if workers:
        replica_specs["Worker"] = replica(workers)
    metadata: Manifest = {"name": name, "namespace": NAMESPACE}
    if annotations:
        metadata["annotations"] = annotations
    spec: Manifest = {"pytorchReplicaSpecs": replica_specs}
    if run_policy:
        spec["runPolicy"] = run_policy
    if elastic is not None:
        spec["elasticPolicy"] = elastic
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": metadata, "spec": spec}


class Scenario:
    """`settle()` syncs until nothing more happens by itself; everything else is one step of the world."""

    def __init__(
        self,
        job: Manifest,
        *,
        progress: Callable[[Manifest], Manifest | None] | None = None,
        resources: Mapping[names.Kind, Resource] = RESOURCES,
        facilities: Facilities | None = None,
    ) -> None:
        self.now = START
        self._runner = asyncio.Runner()
        uids = itertools.count(1)
        self.cluster = MemoryCluster(clock=lambda: self.now, uid=lambda: f"uid-{next(uids):04d}", resources=resources)
        self.facilities = facilities or Facilities()
        self._optional = {"groups": KINDS.get(self.facilities.gang), "autoscalers": names.AUTOSCALER}
        self.kubelet = Kubelet(self.cluster, NAMESPACE, lambda: self.now)
        self.name: str = job["metadata"]["name"]
        self.progress = progress
        self.status_written: StatusWritten | None = None
        self.counts_every_s = 0.0
        self.again_s: float | None = None
        self.calls: set[Call] = set()  # everything that the controller has asked of the server
        self.controller_restarts()
        try:
            self.run(self.cluster.create(names.PYTORCHJOB, NAMESPACE, job))
        except ApiError:
            self._runner.close()
            raise

    def __enter__(self) -> Scenario:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def controller_restarts(self, cluster: Cluster | None = None) -> None:
        """A controller that remembers nothing."""
        self._seen: dict[str, list[Manifest]] = {part: [] for part in ("jobs", "pods", "services", *self._optional)}
        caches = Caches(
            job=lambda namespace, name: _named(self._seen["jobs"], name),
            pods=lambda uid: [pod for pod in self._seen["pods"] if uid in by_owner_uid(pod)],
            services=lambda uid: [service for service in self._seen["services"] if uid in by_owner_uid(service)],
        )
        self.syncer = Syncer(
            UnderItsRole(cluster or self.cluster, self.calls),
            caches,
            clock=lambda: self.now,
            progress_source=self.progress,
            status_written=self.status_written,
            surroundings=self._surroundings,
            counts_every_s=self.counts_every_s,
        )

    def look(self, *parts: str) -> None:
        """The caches catch up: all, or only those named; the rest stays stale."""
        kinds = {"jobs": names.PYTORCHJOB, "pods": names.POD, "services": names.SERVICE}
        for part in [part for part in parts or kinds if part in kinds]:
            self._seen[part] = self.run(self.cluster.list(kinds[part], NAMESPACE)).items
        for part, kind in self._optional.items():
            if (not parts or part in parts) and kind is not None and self.run(self.cluster.serves(kind)):
                self._seen[part] = self.run(self.cluster.list(kind, NAMESPACE)).items

    async def _surroundings(self, job: Manifest, observed: Observed, now: float) -> Observed:
        groups, autoscalers = self._seen["groups"], self._seen["autoscalers"]
        found = observe(job, (), (), pod_groups=groups, autoscalers=autoscalers)
        return replace(observed, pod_groups=found.pod_groups, autoscalers=found.autoscalers, facilities=self.facilities)

    def sync(self) -> float | None:
        """One pass, on the caches as they are."""
        return self.run(self.syncer.sync((NAMESPACE, self.name)))

    def settle(self, limit: int = 12) -> None:
        """Pass after pass with fresh caches until one writes nothing."""
        for _ in range(limit):
            before = self.version()
            self.look()
            try:
                self.again_s = self.sync()
            except Crash:
                self.controller_restarts()
                continue
            if self.version() == before and self.again_s != 0:
                return
        raise AssertionError(f"not settled after {limit} passes: {self.status()}")

    def version(self) -> int:
        return int(self.run(self.cluster.list(names.EVENT, NAMESPACE)).resource_version)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def start_pods(self, *only: str) -> None:
        self.run(self.kubelet.start(*only))
        self.settle()

    def end_pod(self, replica: str, code: int | None, **how: Any) -> None:
        self.run(self.kubelet.end(f"{self.name}-{replica}", code, **how))

    def finish_deletions(self, *only: str) -> list[str]:
        gone = self.run(self.kubelet.finish_deletions(*only))
        self.settle()
        return gone

    def patch_job(self, patch: Manifest) -> None:
        self.run(self.cluster.patch(names.PYTORCHJOB, NAMESPACE, self.name, patch))

    def suspend(self, value: bool = True) -> None:
        self.patch_job({"spec": {"runPolicy": {"suspend": value}}})

    def job(self) -> Manifest | None:
        try:
            return self.run(self.cluster.get(names.PYTORCHJOB, NAMESPACE, self.name))
        except NotFound:
            return None

    def status(self) -> Manifest:
        job = self.job()
        assert job is not None
        status: Manifest = job.get("status") or {}
        return status

    def conditions(self) -> list[tuple[str, str]]:
        return [(condition["type"], condition["status"]) for condition in self.status().get("conditions", [])]

    def state(self) -> str:
        return str(self.status()["conditions"][-1]["type"])

    def message(self) -> str:
        return str(self.status()["conditions"][-1]["message"])

    def reason(self) -> str:
        return str(self.status()["conditions"][-1]["reason"])

    def pods(self) -> dict[str, Manifest]:
        found = self.run(self.cluster.list(names.POD, NAMESPACE)).items
        return {pod["metadata"]["name"].removeprefix(f"{self.name}-"): pod for pod in found}

    def services(self) -> set[str]:
        found = self.run(self.cluster.list(names.SERVICE, NAMESPACE)).items
        return {service["metadata"]["name"].removeprefix(f"{self.name}-") for service in found}

    def generations(self) -> dict[str, str]:
        return {name: pod["metadata"]["labels"][names.LABEL_GENERATION] for name, pod in self.pods().items()}

    def deleting(self) -> set[str]:
        return {name for name, pod in self.pods().items() if "deletionTimestamp" in pod["metadata"]}

    def events(self, reason: str) -> list[Manifest]:
        found = self.run(self.cluster.list(names.EVENT, NAMESPACE)).items
        return [event for event in found if event["reason"] == reason]


class Crash(BaseException):
    """The controller's process ends here: nothing of it handles that."""


class Crashing:
    """A cluster that the controller can make `writes` writes to before it dies; reads are free."""

    def __init__(self, cluster: Cluster, writes: int, *, after: bool) -> None:
        self._cluster = cluster
        self._left = writes
        self.writes = 0
        self._after = after  # die once the write has reached the server, else before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in {"create", "patch", "delete"}:
            return method

        async def write(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self._after:
                raise Crash(name)
            try:
                result = await method(*args, **kwargs)
            except ApiError:
                self._left += 1  # refused: nothing was written
                raise
            self.writes += 1
            if self._left < 0:
                raise Crash(name)
            return result

        return write


def _named(items: list[Manifest], name: str) -> Manifest | None:
    return next((item for item in items if item["metadata"]["name"] == name), None)

"""Objects to send to an API server, and what to do with a watch; used on any implementation of `Cluster`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from trainserve.kube.cluster import Cluster, Manifest, WatchEvent
from trainserve.kube.names import Kind

NODE = "conformance-node"  # no kubelet there: what is bound to it stays until it is deleted with grace 0


def pod(name: str, *, labels: dict[str, str] | None = None, owner: Manifest | None = None, **spec: Any) -> Manifest:
    metadata: dict[str, Any] = {"name": name}
    if labels is not None:
        metadata["labels"] = labels
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "pytorch", "image": "localhost/none:1"}],
            "schedulerName": "nobody",  # no scheduler of a real cluster writes into its status
            **spec,
        },
    }


def service(name: str, *, port: int = 23456, **spec: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"name": "port", "port": port}], **spec},
    }


def event(name: str, namespace: str, **fields: Any) -> Manifest:
    involved = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": "a"}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": involved,
        "reason": "Tested",
        "type": "Normal",
        **fields,
    }


def job(name: str, *, workers: int = 0, **spec: Any) -> Manifest:
    """A PyTorchJob with a Master, with `workers` Workers, and with these further fields of its spec."""
    replica_specs: dict[str, Any] = {"Master": {"template": template()}}
    if workers:
        replica_specs["Worker"] = {"replicas": workers, "template": template()}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {"pytorchReplicaSpecs": replica_specs, **spec},
    }


def template(**container: Any) -> Manifest:
    return {"spec": {"containers": [{"name": "pytorch", "image": "localhost/none:1", **container}]}}


def owner_reference(owner: Manifest) -> Manifest:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


async def changes(
    cluster: Cluster,
    kind: Kind,
    namespace: str | None,
    version: str,
    count: int,
    *,
    labels: dict[str, str] | None = None,
    fields: dict[str, str] | None = None,
    within_s: float = 10.0,
) -> list[WatchEvent]:
    """The next `count` changes after `version`; bookmarks and announcements of a removal are left out."""
    seen: list[WatchEvent] = []
    watch = cluster.watch(kind, namespace, labels=labels, fields=fields, resource_version=version, timeout_s=within_s)
    async with asyncio.timeout(within_s), contextlib.aclosing(watch):  # type: ignore[type-var]
        async for change in watch:
            if change.type != "BOOKMARK" and not _is_announcement(change):
                seen.append(change)
                if len(seen) == count:
                    break
    return seen


def _is_announcement(change: WatchEvent) -> bool:
    """Before a real API server removes a pod, it stores that no grace is left, which a watch sees as a change."""
    return change.type == "MODIFIED" and change.object["metadata"].get("deletionGracePeriodSeconds") == 0


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 60.0) -> None:
    """Wait until `check` holds: for what a server does in the background.

    The garbage collector of a real cluster looks for new kinds every 30 s.
    """
    async with asyncio.timeout(within_s):
        while not await check():
            await asyncio.sleep(0.02)


def names_of(items: list[Manifest]) -> list[str]:
    return [item["metadata"]["name"] for item in items]

"""A real API server that somebody has started, with what a test needs in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trainserve.kube.client import KubeCluster, connect
from trainserve.kube.cluster import AlreadyExists, ApiError, Cluster, NotFound
from trainserve.kube.crd import pytorchjob_crd
from trainserve.kube.names import PYTORCHJOB, Kind

CRD = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
NAMESPACE = Kind("", "v1", "Namespace", "namespaces")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
WITHIN_S = 20.0


@asynccontextmanager
async def namespaced(kubeconfig: str, *namespaces: str) -> AsyncIterator[Cluster]:
    """A client of it; the namespaces are there for the length of the block, and pods can be made in them."""
    async with connect(kubeconfig) as cluster:
        await install(cluster)
        for namespace in namespaces:
            metadata = {"name": namespace}
            await cluster.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        try:
            for namespace in namespaces:
                await there(cluster, SERVICE_ACCOUNT, namespace, "default")
            yield cluster
        finally:
            for namespace in namespaces:
                await cluster.delete(NAMESPACE, None, namespace)


async def install(cluster: KubeCluster) -> None:
    """Install the CRD where it is missing, and wait until the server serves it."""
    try:
        await cluster.create(CRD, None, pytorchjob_crd())
    except AlreadyExists:
        return
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

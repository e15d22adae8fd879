"""Where the pods of a gang meet on a node of processes: a loopback address that follows from job and generation.

Everybody computes it and nobody writes it down, and no two gangs share a port. It holds on one machine only.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Manifest
from trainserve.kube.outage import level
from trainserve.local import podspec
from trainserve.local.nodepods import is_over
from trainserve.machine.ports import loopback_of

if TYPE_CHECKING:
    from trainserve.kube.client import KubeCluster

log = logging.getLogger(__name__)


class Network:
    """Addresses of the pods on node `node` of the machine that was booted as `boot`."""

    def __init__(self, cluster: KubeCluster, node: str, boot: str) -> None:
        self._cluster = cluster
        self._node = node
        self._boots = {node: boot}  # of nodes, by name

    def host(self, pod: Manifest) -> str | None:
        """The gang's own loopback address; None of a pod that is of no job."""
        meta = pod["metadata"]
        labels = meta.get("labels") or {}
        job = labels.get(names.LABEL_JOB_NAME)
        if job is None:
            return None
        owner = next((each["uid"] for each in meta.get("ownerReferences") or [] if each.get("controller")), job)
        return loopback_of(f"{meta['namespace']} {owner} {labels.get(names.LABEL_GENERATION, '0')}")

    async def address(self, pod: Manifest) -> podspec.Address:
        """Where rank 0 listens; ports stay as they are given.

        Raises CannotRun where the gang is on another machine too: its pods would wait for each other for half an hour.
        Of two pods that are apart the one that starts later sees where the other is.
        """
        host = self.host(pod)
        if host is None:
            return podspec.Address(port=None)
        meta = pod["metadata"]
        try:
            apart = await self._apart(pod)
        except (ApiError, OSError) as error:
            log.log(level(error), "pod %s: where the others of its job are cannot be seen: %s", meta["name"], error)
            apart = None
        if apart is not None:
            raise podspec.CannotRun(
                f"{apart['metadata']['name']} of the same job is on node {apart['spec']['nodeName']}, which is another "
                f"machine, and pods on {self._node} meet on loopback only; a nodeSelector keeps a job on one machine"
            )
        return podspec.address(meta["labels"][names.LABEL_JOB_NAME], meta["namespace"], None, host)

    async def _apart(self, pod: Manifest) -> Manifest | None:
        """A pod of the same gang on another machine."""
        meta = pod["metadata"]
        carried = meta["labels"]
        gang = {name: carried[name] for name in (names.LABEL_JOB_NAME, names.LABEL_GENERATION) if name in carried}
        for other in (await self._cluster.list(names.POD, meta["namespace"], labels=gang)).items:
            node = other["spec"].get("nodeName")
            if not node or is_over(other) or "deletionTimestamp" in other["metadata"]:
                continue
            if node not in self._boots:
                found = await self._cluster.get(names.NODE, None, node)
                self._boots[node] = found.get("status", {}).get("nodeInfo", {}).get("bootID", "")
            if self._boots[node] != self._boots[self._node]:
                return other
        return None

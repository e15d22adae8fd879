"""What keeps a node known and alive: its object, its Ready condition, its Lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import moments, names
from trainserve.kube.cluster import AlreadyExists, ApiError, Conflict, Forbidden, Manifest, NotFound
from trainserve.kube.outage import Unauthorized, level, problem
from trainserve.local import nodeobject
from trainserve.local.nodeobject import LEASE_S, Machine, NodeShape

if TYPE_CHECKING:
    from trainserve.kube.client import KubeCluster

log = logging.getLogger(__name__)

T = TypeVar("T")

BEAT_S = 10.0  # a quarter of LEASE_S, as a kubelet's
STATUS_EVERY_S = 60.0  # where nothing has changed
TRIES = 5  # where somebody else writes the node at the same time


class NodeHeart:
    """Writes the node's object and Lease. `clock` gives unix seconds."""

    def __init__(
        self,
        cluster: KubeCluster,
        shape: NodeShape,
        machine: Machine,
        clock: Callable[[], float],
        beat_s: float = BEAT_S,
    ) -> None:
        self._cluster = cluster
        self._shape = shape
        self._machine = machine
        self._clock = clock
        self._beat_s = beat_s
        self._takes_pods = True

    async def register(self) -> None:
        """Make the node known and Ready.

        Raises UserError when the name is another node's, EnvironmentProblem when the server refuses or is away.
        """
        try:
            found = await self._find()
            if found is not None:
                await self._check_is_ours(found)
                await self._cluster.patch(names.NODE, None, self._shape.name, {"metadata": {"labels": self._labels()}})
                await self._tried(self._put_taints)
            await self._beat()
        except Unauthorized as error:
            raise problem(error) from error
        except ApiError as error:
            hints = "the kubeconfig's user must be allowed to create, get and patch nodes, their status and Leases"
            raise EnvironmentProblem(
                f"the API server refuses node {self._shape.name!r}: {error.message}",
                hint=hints if isinstance(error, Forbidden) else "it is made of --name, --label, --taint and --resource",
            ) from error
        except OSError as error:
            raise problem(error) from error

    async def beat(self) -> None:
        """Until cancelled: renew the Lease, keep the node there and Ready."""
        while True:
            await asyncio.sleep(self._beat_s)
            try:
                await self._beat()
            except (ApiError, OSError) as error:
                log.log(level(error), "the node's sign of life cannot be written: %s", error)

    async def stopped(self) -> None:
        """Say that the node is not Ready and takes no pods.

        In this order: from a node that is Ready, the node controller takes the taint off again.
        """
        self._takes_pods = False
        await self._tried(self._keep)
        await self._tried(self._keep_pods_away)

    async def _put_taints(self) -> None:
        """Those that it is told to have; what others have put on, or an earlier start, stays."""
        found = await self._find()
        if found is None or not self._shape.taints:
            return
        taints = nodeobject.tainted(found, self._shape.taints)
        if taints != (found.get("spec") or {}).get("taints"):
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            patch = {"metadata": version, "spec": {"taints": taints}}
            await self._cluster.patch(names.NODE, None, self._shape.name, patch)

    async def _keep_pods_away(self) -> Manifest | None:
        found = await self._find()
        if found is None:
            return None
        taints = nodeobject.not_ready_taints(found)
        if taints == found.get("spec", {}).get("taints"):
            return found
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        return await self._cluster.patch(
            names.NODE, None, self._shape.name, {"metadata": version, "spec": {"taints": taints}}
        )

    async def _tried(self, write: Callable[[], Awaitable[T]]) -> T:
        """The node controller writes too, and at the same moments: what it changed is read again."""
        tries = 1
        while True:
            try:
                return await write()
            except Conflict:
                if tries == TRIES:
                    raise
            tries += 1
            await asyncio.sleep(self._beat_s / 100)

    async def _find(self) -> Manifest | None:
        try:
            return await self._cluster.get(names.NODE, None, self._shape.name)
        except NotFound:
            return None

    async def _check_is_ours(self, found: Manifest) -> None:
        name = self._shape.name
        if (found["metadata"].get("labels") or {}).get(names.LABEL_NODE) != names.NODE_OF_PROCESSES:
            raise UserError(
                f"node {name!r} of this cluster is not one of `platform node run`", hint="choose another --name"
            )
        info = found.get("status", {}).get("nodeInfo", {})
        if (info.get("bootID"), info.get("machineID")) == (self._machine.boot, self._machine.folder):
            return  # an earlier process here: the lock of its folder says that it has ended
        try:
            lease = await self._cluster.get(names.LEASE, names.NODE_LEASE_NAMESPACE, name)
        except NotFound:
            return
        renewed = moments.unix(lease["spec"].get("renewTime")) or 0.0
        if self._clock() - renewed < LEASE_S and _ready(found).get("status") == "True":
            where = "with another --root" if info.get("bootID") == self._machine.boot else "on another machine"
            raise UserError(f"a node {name!r} runs {where}, or ran there {LEASE_S} s ago", hint="choose another --name")

    async def _beat(self) -> None:
        """The node there, its condition as it should be, its Lease renewed."""
        found = await self._tried(self._keep)
        if found is not None:
            await self._renew(found)

    async def _keep(self) -> Manifest | None:
        """The node as it should be; None where somebody has taken it away as it stopped."""
        found = await self._find()
        if found is None:
            if not self._takes_pods:
                return None
            found = await self._create()
        before = _ready(found)
        heard = moments.unix(before.get("lastHeartbeatTime")) or 0.0
        wanted = "True" if self._takes_pods else "False"
        if before.get("status") != wanted or self._clock() - heard >= STATUS_EVERY_S or not self._is_told(found):
            await self._write_status(found, ready=self._takes_pods)
        return found

    def _is_told(self, found: Manifest) -> bool:
        status: Manifest = found.get("status", {})
        info = status.get("nodeInfo", {})
        here = (info.get("bootID"), info.get("machineID")) == (self._machine.boot, self._machine.folder)
        return here and dict(self._shape.resources) == status.get("capacity")

    async def _create(self) -> Manifest:
        log.info("node %s: created", self._shape.name)
        try:
            return await self._cluster.create(names.NODE, None, nodeobject.node(self._shape, self._machine))
        except AlreadyExists:
            return await self._cluster.get(names.NODE, None, self._shape.name)

    async def _write_status(self, found: Manifest, *, ready: bool) -> None:
        status = nodeobject.status(self._shape, self._machine, found.get("status") or {}, self._clock(), ready=ready)
        gone = {name: None for name in found.get("status", {}).get("capacity") or {} if name not in status["capacity"]}
        for part in ("capacity", "allocatable"):
            status[part] = {**gone, **status[part]}
        patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "status": status}
        await self._cluster.patch(names.NODE, None, self._shape.name, patch, subresource="status")

    async def _renew(self, found: Manifest) -> None:
        lease = nodeobject.lease(found, self._clock())
        try:
            await self._cluster.patch(
                names.LEASE, names.NODE_LEASE_NAMESPACE, self._shape.name, {"spec": lease["spec"]}
            )
        except NotFound:
            await self._cluster.create(names.LEASE, names.NODE_LEASE_NAMESPACE, lease)

    def _labels(self) -> dict[str, str]:
        return nodeobject.labels(self._shape, self._machine)


def _ready(found: Manifest) -> Manifest:
    """The condition Ready; empty where there is none."""
    conditions: list[Manifest] = found.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == names.NODE_READY), {})

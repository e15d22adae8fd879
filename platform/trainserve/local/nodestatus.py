"""A pod's status on a node of a real cluster: what it says beside a laptop's, and the writing of it.

The server may be away for a while; pods go on. So the newest status waits here until it can be written.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, BadRequest, Cluster, Conflict, Invalid, Manifest, NotFound
from trainserve.kube.informer import DEFAULT_BACKOFF, Backoff
from trainserve.kube.moments import rfc3339
from trainserve.kube.names import POD
from trainserve.kube.outage import level
from trainserve.machine.ports import LOOPBACK

log = logging.getLogger(__name__)

KILLED = 137  # the exit code of a container that ended with its node
# What the server sets at creation, and addresses: see `on_node`.
_NOT_OURS = {"qosClass", "podIP", "podIPs"}


def on_node(status: Manifest, current: Manifest) -> Manifest:
    """`status` as a patch of a pod whose status is `current`.

    Conditions that others set stay. There is no podIP: a pod has no address of its own in the cluster's network, and
    one on loopback is refused in EndpointSlices, over and over, with a Warning at the pod's Service.
    """
    found = {name: value for name, value in status.items() if name not in _NOT_OURS}
    found["hostIP"] = LOOPBACK
    ours = [condition for condition in status.get("conditions") or [] if condition["type"] != "PodScheduled"]
    if status.get("reason") == names.POD_TERMINATED:
        ours.append(
            {
                "type": names.DISRUPTION_TARGET,
                "status": "True",
                "reason": names.TERMINATION_BY_KUBELET,
                "message": status.get("message", ""),
                "lastTransitionTime": max(c["lastTransitionTime"] for c in ours),
            }
        )
    types = {condition["type"] for condition in ours}
    found["conditions"] = [c for c in current.get("conditions") or [] if c["type"] not in types] + ours
    return found


def lost(pod: Manifest, reason: str, message: str, now: float) -> Manifest:
    """The status of a pod that ended unseen: what ran has ended, nobody knows how."""
    moment = rfc3339(now)
    current: Manifest = pod.get("status") or {}
    found: Manifest = {"phase": "Failed", "reason": reason, "message": message}
    found["conditions"] = [
        {**condition, "status": "False", "reason": "PodFailed", "lastTransitionTime": moment}
        if condition["type"] in ("Ready", "ContainersReady")
        else condition
        for condition in current.get("conditions") or []
    ]
    for part in ("initContainerStatuses", "containerStatuses"):
        if part in current:
            found[part] = [_ended(container, message, moment) for container in current[part]]
    return found


def waiting(pod: Manifest, reason: str, message: str) -> Manifest:
    """The status of a pod that is not run here: it stays Pending, and `kubectl get` shows the reason."""
    return {
        "phase": "Pending",
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container.get("image", ""),
                "imageID": "",
                "ready": False,
                "started": False,
                "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }
            for container in pod["spec"]["containers"]
        ],
    }


def _ended(container: Manifest, message: str, moment: str) -> Manifest:
    state = container.get("state") or {}
    if "terminated" in state:
        return container
    began = (state.get("running") or {}).get("startedAt", moment)
    terminated = {
        "exitCode": KILLED,
        "reason": names.STATUS_UNKNOWN,
        "message": message,
        "startedAt": began,
        "finishedAt": moment,
    }
    return {**container, "ready": False, "started": False, "state": {"terminated": terminated}}


def end(pod: Manifest) -> str:
    """How a pod has ended, for the log: `Failed (DeadlineExceeded): pytorch 143`."""
    status = pod.get("status") or {}
    reason = f" ({status['reason']})" if status.get("reason") else ""
    codes = [
        f"{container['name']} {container['state']['terminated']['exitCode']}"
        for container in status.get("containerStatuses") or []
        if "terminated" in container.get("state", {})
    ]
    return f"{status.get('phase', 'Unknown')}{reason}: {', '.join(codes) or 'no container has run'}"


class StatusWriter:
    """Writes the newest status of one pod, in the background, as soon as the server hears it.

    `gone` is called when the pod is there no more. `await run()` works until cancelled.
    """

    def __init__(
        self, cluster: Cluster, pod: Manifest, gone: Callable[[], None], backoff: Backoff = DEFAULT_BACKOFF
    ) -> None:
        self._cluster = cluster
        self._pod = pod
        self._call_gone = gone
        self._backoff = backoff
        self._wanted: Manifest | None = None
        self._is_gone = False
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, status: Manifest) -> bool:
        """Take a status to write; False once the pod is gone."""
        self._wanted = status
        self._idle.clear()
        self._changed.set()
        return not self._is_gone

    @property
    def pod(self) -> Manifest:
        """The pod's object as it was last seen or written."""
        return self._pod

    async def written(self) -> None:
        """Wait until the newest status is written, or the pod is gone."""
        await self._idle.wait()

    def update(self, pod: Manifest) -> None:
        """The pod's object as it is now."""
        self._pod = pod

    async def run(self) -> None:
        failures = 0
        while not self._is_gone:
            await self._changed.wait()
            self._changed.clear()
            status = self._wanted
            if status is None:
                continue
            try:
                await self._write(status)
            except (NotFound, _Replaced):
                self._is_gone = True
                self._idle.set()
                self._call_gone()
                return
            except (BadRequest, Invalid) as error:
                # No later try helps; the next status may.
                log.error("pod %s: the server takes no such status: %s", self._pod["metadata"]["name"], error)
            except (ApiError, OSError) as error:
                name, delay_s = self._pod["metadata"]["name"], self._backoff.delay_s(failures, random.random())
                log.log(
                    level(error), "the status of pod %s cannot be written: %s; again in %.1f s", name, error, delay_s
                )
                failures += 1
                self._changed.set()
                await asyncio.sleep(delay_s)
                continue
            failures = 0
            if self._wanted is status:
                self._wanted = None
                self._idle.set()

    async def _write(self, status: Manifest) -> None:
        """On the version that was seen, so that no condition of others gets lost; on a newer one when there is one."""
        while True:
            meta = self._pod["metadata"]
            patch = {
                "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
                "status": on_node(status, self._pod.get("status") or {}),
            }
            try:
                self._pod = await self._cluster.patch(POD, meta["namespace"], meta["name"], patch, subresource="status")
            except Conflict:
                found = await self._cluster.get(POD, meta["namespace"], meta["name"])
                if found["metadata"]["uid"] != meta["uid"]:
                    raise _Replaced from None
                self._pod = found
            else:
                return


class _Replaced(Exception):
    """There is another pod of this name."""

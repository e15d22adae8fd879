"""A node of a real API server whose kubelet the test plays: statuses it writes, logs the API server fetches from it.

Pods come to it by `spec.nodeName`. It answers GET /containerLogs/NAMESPACE/POD/CONTAINER as a kubelet does.
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from support import clusterbinaries
from support.containerlogs import ContainerLog, NodeLogs
from support.kubectl import Kubectl
from support.real import Team
from trainserve.kube.cluster import BadRequest, Manifest, NotFound
from trainserve.kube.moments import rfc3339
from trainserve.kube.names import POD
from trainserve.kube.outage import NoAnswer
from trainserve.machine.ports import LOOPBACK

BEGAN = 1_795_608_000.0  # what its statuses say
CHUNK = 4096


class PlayedKubelet:
    """`name` is the node's. Each method is what a kubelet does with a pod of the test's namespace."""

    def __init__(self, team: Team, name: str) -> None:
        self.name = name
        self.logs = NodeLogs()
        self._team = team

    def place(self, job: Manifest) -> Manifest:
        """The PyTorchJob with all its pods on this node."""
        specs = {
            kind: {**replica, "template": {"spec": {**replica["template"]["spec"], "nodeName": self.name}}}
            for kind, replica in job["spec"]["pytorchReplicaSpecs"].items()
        }
        return {**job, "spec": {**job["spec"], "pytorchReplicaSpecs": specs}}

    async def run(self, pod: str, *, restarts: int = 0, ended: Manifest | None = None) -> ContainerLog:
        """Its container starts, perhaps again, after it has `ended`."""
        status: Manifest = {
            "name": "pytorch",
            "image": "x",
            "imageID": "x",
            "ready": True,
            "restartCount": restarts,
            "state": {"running": {"startedAt": rfc3339(BEGAN)}},
        }
        if ended:
            status["lastState"] = {"terminated": ended}
        log = self.logs.start(pod)
        await self._team.set_status(pod, {"phase": "Running", "containerStatuses": [status]})
        return log

    async def end(self, pod: str, code: int) -> None:
        """Its container ends, and so does the pod."""
        for log in self.logs.starts.get((pod, "pytorch"), []):
            log.end()
        await self._team.end(pod, code)

    async def remove(self, pod: str) -> None:
        """A pod that is being deleted is gone, with its logs; nothing happens where it is gone already."""
        self.logs.forget(pod)
        try:
            await self._team.remove(pod)
        except NotFound:
            return

    async def waits(self, pod: str, reason: str, message: str) -> None:
        waiting = {"waiting": {"reason": reason, "message": message}}
        status = {"name": "pytorch", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": waiting}
        await self._team.set_status(pod, {"phase": "Pending", "containerStatuses": [status]})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        try:
            pod, query = request.match_info["pod"], {**request.query, "container": request.match_info["container"]}
            log = self.logs.find(pod, query)
        except BadRequest as error:
            return web.Response(status=400, text=str(error))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async for piece in log.read(query):
                for start in range(0, len(piece), CHUNK):
                    await response.write(piece[start : start + CHUNK])
        except ConnectionError as error:  # who asked has gone, unless it is us
            if isinstance(error, NoAnswer) and request.transport is not None:
                request.transport.abort()
        return response


@asynccontextmanager
async def playing(team: Team, kubectl: Kubectl, folder: Path) -> AsyncIterator[PlayedKubelet]:
    """Body of a fixture: the node is in the cluster, and answers, for the length of the block."""
    kubelet = PlayedKubelet(team, f"{team.namespace}-played")
    certificate, key = folder / "kubelet.crt", folder / "kubelet.key"
    program = clusterbinaries.binaries(clusterbinaries.CONTROL_PLANE) / clusterbinaries.CONTROL_PLANE
    subprocess.run([program, "certificate", certificate, key], check=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", kubelet.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0, ssl_context=context)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": None}
    amounts = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    kubectl.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": kubelet.name},
            "status": {
                "addresses": [{"type": "InternalIP", "address": LOOPBACK}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                "conditions": [ready],
                "capacity": amounts,
                "allocatable": amounts,
            },
        }
    )
    try:
        yield kubelet
    finally:
        kubectl("delete", "node", kubelet.name, "--ignore-not-found", "--wait=false")
        for pod in await team.children(POD):
            await kubelet.remove(pod["metadata"]["name"])
        await runner.cleanup()

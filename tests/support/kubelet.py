"""A kubelet that the test steps: it does to pods what it is told, and nothing by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local.server import MemoryCluster

NODE = "node-1"


class Kubelet:
    def __init__(self, cluster: MemoryCluster, namespace: str, clock: Callable[[], float]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.clock = clock

    async def pods(self) -> list[Manifest]:
        return (await self.cluster.list(names.POD, self.namespace)).items

    async def start(self, *only: str) -> None:
        """Every pod that has no node gets one and runs; only those named, if any are."""
        for pod in await self.pods():
            name = pod["metadata"]["name"]
            if "nodeName" in pod["spec"] or (only and name not in only):
                continue
            await self.cluster.bind(self.namespace, name, NODE)
            running = {
                "name": names.CONTAINER,
                "restartCount": 0,
                "ready": True,
                "image": "i",
                "imageID": "",
                "state": {"running": {"startedAt": self._now()}},
            }
            await self._status(name, {"phase": "Running", "startTime": self._now(), "containerStatuses": [running]})

    async def end(
        self, name: str, code: int | None, *, reason: str = "", message: str = "", at: float | None = None
    ) -> None:
        """The `pytorch` container of a running pod ends, and so does the pod."""
        await self._status(
            name,
            {
                "phase": "Succeeded" if code == 0 else "Failed",
                "containerStatuses": [
                    {
                        "name": names.CONTAINER,
                        "restartCount": 0,
                        "ready": False,
                        "image": "i",
                        "imageID": "",
                        "state": _terminated(code, reason, message, self._now(at)),
                    }
                ],
            },
        )

    async def restart_in_place(
        self, name: str, count: int, *, waiting: bool = False, code: int = 1, reason: str = "Error"
    ) -> None:
        """The pod's container has ended `count` times before; `waiting`: it has ended again and is to be started."""
        ended = _terminated(code, reason, "", self._now())
        state = {"waiting": {"reason": "CrashLoopBackOff"}} if waiting else {"running": {"startedAt": self._now()}}
        status = {"name": names.CONTAINER, "restartCount": count, "ready": False, "image": "i", "imageID": ""}
        await self._status(name, {"containerStatuses": [{**status, "state": state, "lastState": ended}]})

    async def fail(self, name: str, reason: str, message: str = "") -> None:
        """The pod fails as a whole: evicted, its node gone. No container has an exit code."""
        await self._status(name, {"phase": "Failed", "reason": reason, "message": message, "containerStatuses": None})

    async def finish_deletions(self, *only: str) -> list[str]:
        """Pods that are being deleted are gone."""
        gone = []
        for pod in await self.pods():
            name = pod["metadata"]["name"]
            if "deletionTimestamp" in pod["metadata"] and (not only or name in only):
                await self.cluster.delete(names.POD, self.namespace, name, grace_period_s=0)
                gone.append(name)
        return gone

    async def _status(self, name: str, status: Manifest) -> None:
        await self.cluster.patch(names.POD, self.namespace, name, {"status": status}, subresource="status")

    def _now(self, at: float | None = None) -> str:
        return datetime.fromtimestamp(int(self.clock() if at is None else at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def report(
    rank: int, code: int, time: float, *, signal: str | None = None, oom_kills: int = 0, message: str = ""
) -> str:
    """A termination message as the node's agent writes it (docs/architecture.md)."""
    how = f"was killed by {signal}" if signal else "failed"
    return json.dumps(
        {
            "rank": rank,
            "exitCode": code,
            "signal": signal,
            "time": time,
            "cause": f"rank {rank} {how} (exit code {code})",
            "message": message,
            "traceback": "",
            "oomKills": oom_kills,
        }
    )


def _terminated(code: int | None, reason: str, message: str, at: str) -> Manifest:
    terminated: Manifest = {"reason": reason or ("Completed" if code == 0 else "Error"), "finishedAt": at}
    if code is not None:
        terminated["exitCode"] = code
    if message:
        terminated["message"] = message
    return {"terminated": terminated}

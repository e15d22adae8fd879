"""Processes and run folders for tests of launch/ and local/."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from trainserve.kube.cluster import Manifest, NotFound
from trainserve.kube.names import EVENT, LOCAL_NAMESPACE, POD
from trainserve.local.kubelet import Kubelet
from trainserve.local.server import MemoryCluster
from trainserve.machine.ports import Reserved


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Poll until `condition` holds; fail with `what` after `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    """The same for a coroutine, within 10 s."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def clean_env(**extra: str) -> dict[str, str]:
    """This process's environment without what another agent or run left in it, plus `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PET_", "TRAINSERVE_", "TORCHELASTIC_", "MASTER_", "OMP_"))
        and name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"}
    }
    return {**kept, **extra}


def agent(
    tmp_path: Path, source: str, env: Mapping[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[str]:
    """Start `python -m trainserve.launch` on a script made of `source`, in a session of its own."""
    script = tmp_path / "script.py"
    script.write_text(source)
    return subprocess.Popen(
        [sys.executable, "-m", "trainserve.launch", str(script)],
        env=clean_env(TRAINSERVE_TERMINATION_LOG=str(tmp_path / "termination-log"), **(env or {})),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def pod(name: str, *command: str, **spec: Any) -> Manifest:
    """A Pod of one container `main` that runs `command`; `container_*` are fields of it, the rest the pod's."""
    container: Manifest = {"name": "main", "image": "none", "command": list(command)}
    container |= {key.removeprefix("container_"): spec.pop(key) for key in list(spec) if key.startswith("container_")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": spec.pop("labels", {})},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


class Node:
    """A kubelet on an API server in memory, with what a test asks of both."""

    def __init__(self, cluster: MemoryCluster, kubelet: Kubelet, folder: Path) -> None:
        self.cluster = cluster
        self.kubelet = kubelet
        self.folder = folder

    async def create(self, manifest: Manifest) -> Manifest:
        return await self.cluster.create(POD, LOCAL_NAMESPACE, manifest)

    async def get(self, name: str) -> Manifest:
        return await self.cluster.get(POD, LOCAL_NAMESPACE, name)

    async def until(self, name: str, condition: Callable[[Manifest], bool], timeout_s: float = 10.0) -> Manifest:
        give_up = time.monotonic() + timeout_s
        while not condition(found := await self.get(name)):
            assert time.monotonic() < give_up, f"{name} after {timeout_s} s: {found.get('status')}"
            await asyncio.sleep(0.02)
        return found

    async def over(self, name: str, timeout_s: float = 10.0) -> Manifest:
        """The pod once it is Succeeded or Failed."""
        return await self.until(name, lambda p: p["status"].get("phase") in {"Succeeded", "Failed"}, timeout_s)

    async def started(self, name: str) -> Manifest:
        return await self.until(name, lambda p: p["status"].get("phase") == "Running")

    async def delete(self, name: str, grace_s: int | None = None) -> None:
        await self.cluster.delete(POD, LOCAL_NAMESPACE, name, grace_period_s=grace_s)

    async def gone(self, name: str, timeout_s: float = 10.0) -> None:
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                found = await self.get(name)
            except NotFound:
                return
            assert time.monotonic() < give_up, f"{name} is still there: {found}"
            await asyncio.sleep(0.02)

    async def events(self) -> list[str]:
        return [event["message"] for event in (await self.cluster.list(EVENT, LOCAL_NAMESPACE)).items]

    def log(self, name: str, container: str = "main", generation: int = 0) -> str:
        return (self.folder / f"{name}.g{generation}" / f"{container}.log").read_text()


def terminated(manifest: Manifest, container: int = 0) -> Manifest:
    state: Manifest = manifest["status"]["containerStatuses"][container]["state"]["terminated"]
    return state


@contextlib.asynccontextmanager
async def node(folder: Path, cluster: MemoryCluster | None = None, **options: Any) -> AsyncIterator[Node]:
    """A running kubelet; at the end everything it started is killed."""
    cluster = cluster or MemoryCluster()
    read_end, write_end = os.pipe()
    kubelet = Kubelet(
        cluster, folder, lifeline=read_end, clock=time.time, node="laptop", ports=Reserved(folder / "ports"), **options
    )
    task = asyncio.create_task(kubelet.run())
    try:
        yield Node(cluster, kubelet, folder)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kubelet.stop()
        os.close(write_end)
        os.close(read_end)


def job(
    name: str, command: list[str], *, nodes: int = 1, nproc: int = 1, env: Mapping[str, str] | None = None
) -> Manifest:
    """A PyTorchJob whose nodes run `command`."""
    container: Manifest = {
        "name": "pytorch",
        "image": "none",
        "command": command,
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }

    def replica(count: int) -> Manifest:
        template = {"spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}}
        return {"replicas": count, "restartPolicy": "ExitCode", "template": template}

    replicas = {"Master": replica(1)} | ({"Worker": replica(nodes - 1)} if nodes > 1 else {})
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {"nprocPerNode": str(nproc), "runPolicy": {"backoffLimit": 3}, "pytorchReplicaSpecs": replicas},
    }

"""`platform node run` as a real process: a node of the test's own, whose pods are processes of this machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from support.command import command
from support.guarded import Guarded
from support.kubectl import Kubectl
from support.kwok import OWNER, on_own_nodes
from support.real import Team
from support.runs import pod, wait_until
from trainserve.kube.cluster import Manifest, NotFound
from trainserve.kube.names import POD
from trainserve.local import process

STARTED_S = 60.0  # with a cold disk, on a machine busy with tests


class NodeProcess:
    """One process after another as the same node: `start`, then `stop` or `kill`, then `start` again.

    Only pods of `support.kwok.on_own_nodes(spec, namespace)` come to it.
    """

    def __init__(
        self,
        kubectl: Kubectl,
        folder: Path,
        name: str,
        *flags: object,
        namespace: str | None = None,
        kubeconfig: Path | None = None,
    ) -> None:
        assert kubectl.namespace, "a node takes pods of the namespace of its test"
        self.name = f"{kubectl.namespace}-{name}"
        self.root = folder / name
        self.log = folder / f"{name}.log"
        own = kubectl.namespace
        self._kubectl = kubectl
        self._words = [
            *command(
                "node",
                "run",
                "--kubeconfig",
                kubeconfig or kubectl.kubeconfig,
                "--name",
                self.name,
                "--root",
                self.root,
            ),
            *("--namespace", namespace or own, "--label", f"{OWNER}={own}", "--taint", f"{OWNER}={own}:NoSchedule"),
            "--allow-root",
            *flags,
        ]
        self.process: Guarded | None = None

    @property
    def pods(self) -> Path:
        """The folder of its pods' folders."""
        return self.root / "pods"

    def launch(self) -> None:
        """Start it without waiting."""
        assert self.process is None, "it runs already"
        self._ready_before = self.said().count(self._ready)
        self.process = Guarded(self._words, self.log)

    def wait_ready(self) -> None:
        running = self._running()
        wait_until(
            lambda: self.said().count(self._ready) > self._ready_before or not running.alive(), "Ready", STARTED_S
        )
        assert running.alive(), f"the node has ended:\n{running.tail()}"

    def start(self) -> None:
        """Returns when it is Ready."""
        self.launch()
        self.wait_ready()

    def stop(self) -> int:
        """SIGTERM; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """End it, and take it out of the cluster."""
        if self.process is not None:
            self.kill()
        process.kill_marked(self.pods)
        self._kubectl("delete", "node", self.name, "--ignore-not-found", "--wait=false")

    def log_of(self, pod: str, container: str) -> str:
        """What a container of the newest pod of this name has written."""
        found = sorted(self.pods.glob(f"*_{pod}_*/{container}.log"), key=lambda path: path.stat().st_mtime)
        return found[-1].read_text(errors="replace") if found else ""

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def _ready(self) -> str:
        return f"node {self.name} is Ready"

    def _end(self, number: signal.Signals) -> int:
        running = self._running()
        self.process = None
        return running.stop(number)

    def _running(self) -> Guarded:
        assert self.process is not None, "it does not run"
        return self.process


AddNode: TypeAlias = Callable[..., NodeProcess]


def added_nodes(kubectl: Kubectl, folder: Path) -> Iterator[AddNode]:
    """Body of a fixture: `add_node("one", "--cpu", 4)` is a node that starts; `wait_ready` says when it is there."""
    made: list[NodeProcess] = []

    def add(name: str, *flags: object, **options: Any) -> NodeProcess:
        node = NodeProcess(kubectl, folder, name, *flags, **options)
        made.append(node)
        node.launch()
        return node

    yield add
    for node in made:
        node.remove()


class Pods:
    """Pods of a shell script, and what becomes of them."""

    def __init__(self, team: Team) -> None:
        self.team = team

    async def create(self, name: str, script: str, **spec: object) -> None:
        manifest = pod(name, "sh", "-c", script, **spec)
        manifest["spec"] = on_own_nodes(manifest["spec"], self.team.namespace)
        await self.team.cluster.create(POD, self.team.namespace, manifest)

    async def get(self, name: str) -> Manifest:
        return await self.team.cluster.get(POD, self.team.namespace, name)

    async def until(self, name: str, condition: Callable[[Manifest], bool], timeout_s: float = 30) -> Manifest:
        async with asyncio.timeout(timeout_s):
            while not condition(found := await self.get(name)):
                await asyncio.sleep(0.05)
        return found

    async def phase(self, name: str, *phases: str) -> Manifest:
        return await self.until(name, lambda found: found["status"].get("phase") in phases)

    async def gone(self, name: str) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    await self.get(name)
                except NotFound:
                    return
                await asyncio.sleep(0.05)

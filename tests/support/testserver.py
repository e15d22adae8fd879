"""The API server that the cluster tests of one test run share: the one that KUBECONFIG names, or one of their own.

The process that begins the test run starts what is missing; the processes that xdist starts from it find it by an
environment variable.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.controlplane import KWOK, ControlPlane
from support.kubectl import Kubectl
from support.kwok import Kwok, add_nodes
from support.real import install
from trainserve.kube.client import connect
from trainserve.machine import locks

FOLDER = "TRAINSERVE_TEST_SERVER"  # of the test run, with server.json in it
SKIP = "SKIP_CLUSTER"
SKIPPED = f"{SKIP}={{}} is set: nothing is tested against a real API server"
PREFIX = "test-server-"  # of folders in the temporary folder
KEPT = 3
NODES = 6
CAPACITY = {"cpu": "64", "memory": "256Gi"}
NODE_PREFIX = "shared"


@dataclass(frozen=True)
class Server:
    """`audit_log` is None where the cluster is somebody else's."""

    kubeconfig: Path
    audit_log: Path | None

    @property
    def own(self) -> bool:
        return self.audit_log is not None


def skipped() -> str | None:
    """Why these tests are to be left out, or None."""
    value = os.environ.get(SKIP)
    return SKIPPED.format(value) if value and value != "0" else None


def server() -> Server:
    """The one that the test run has."""
    folder = os.environ.get(FOLDER)
    assert folder, "no API server was started for this test run: it starts where pytest is given tests/cluster"
    found: dict[str, Any] = json.loads(Path(folder, "server.json").read_text())
    return Server(Path(found["kubeconfig"]), Path(found["auditLog"]) if found["auditLog"] else None)


class OwnServer:
    """A control plane with simulated nodes and the CRD; `gang`: with Kubernetes' own gang scheduling."""

    def __init__(self, folder: Path, *, gang: bool = True) -> None:
        self.control_plane = ControlPlane(folder / "control-plane", gang=gang)
        self.server = Server(self.control_plane.kubeconfig, self.control_plane.audit_log)
        self._kwok = Kwok(self.control_plane.kubeconfig_of(KWOK), folder)

    def start(self) -> None:
        """Raises EnvironmentProblem."""
        try:
            self.control_plane.start()
            _equip(self._kwok, self.server.kubeconfig)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._kwok.stop()
        self.control_plane.stop()

    def come_back(self) -> None:
        """After `control_plane.stop_api_server`: the API server, and everything around it but what is tested, anew."""
        self.control_plane.start_api_server()
        self.control_plane.restart_controllers()
        self._kwok.stop()
        self._kwok.start()


class GivenServer:
    """The cluster that KUBECONFIG names; at the end our nodes are removed from it, and the CRD stays."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.server = Server(kubeconfig, None)
        self._kwok = Kwok(kubeconfig, folder)

    def start(self) -> None:
        """Raises EnvironmentProblem."""
        try:
            _remove_nodes(self.server.kubeconfig)
            _equip(self._kwok, self.server.kubeconfig)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        _remove_nodes(self.server.kubeconfig)
        self._kwok.stop()


class Shared:
    """The server of a test run: started here, found by all of its processes. Raises EnvironmentProblem."""

    def __init__(self) -> None:
        _remove_old_folders()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        locks.try_lock(self._lock)
        given = os.environ.get("KUBECONFIG")
        self._server = GivenServer(Path(given).absolute(), self.folder) if given else OwnServer(self.folder)
        self._server.start()
        found = self._server.server
        content = {"kubeconfig": str(found.kubeconfig), "auditLog": str(found.audit_log) if found.audit_log else None}
        (self.folder / "server.json").write_text(json.dumps(content))
        os.environ[FOLDER] = str(self.folder)

    def stop(self, *, keep: bool) -> None:
        """End it; its logs stay where `keep` is set."""
        os.environ.pop(FOLDER, None)
        self._server.stop()
        shutil.rmtree(self.folder / "control-plane/etcd" if keep else self.folder, ignore_errors=True)
        os.close(self._lock)


def _remove_old_folders() -> None:
    """Remove what failed and killed test runs have left, but the newest few: their logs may still be read."""
    found = sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"), key=lambda path: path.lstat().st_mtime)
    for folder in found[:-KEPT]:
        with contextlib.suppress(OSError):  # somebody else's, or another run removes it too
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if locks.try_lock(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _equip(kwok: Kwok, kubeconfig: Path) -> None:
    kwok.start()
    add_nodes(Kubectl(kubeconfig), NODES, CAPACITY, prefix=NODE_PREFIX)
    asyncio.run(_install(str(kubeconfig)))


def _remove_nodes(kubeconfig: Path) -> None:
    nodes = [f"{NODE_PREFIX}-{index}" for index in range(NODES)]
    Kubectl(kubeconfig)("delete", "nodes", "--ignore-not-found", *nodes)


async def _install(kubeconfig: str) -> None:
    async with connect(kubeconfig) as cluster:
        await install(cluster)

"""A cluster of one real node: control plane, node, images, and the packages that training pods mount."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support import nodeimages, nodepackages
from support.controlplane import ControlPlane
from support.kubectl import Kubectl
from support.real import connected, install
from support.realnode import RealNode


class NodeCluster:
    """Its logs lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.node = RealNode(folder)
        self.control_plane = ControlPlane(folder / "control-plane", reached=self.node.reached)
        self.kubectl = Kubectl(self.control_plane.kubeconfig)

    def start(self) -> None:
        """Returns when pods run. Raises EnvironmentProblem."""
        base = nodeimages.base()
        try:
            self.node.prepare()
            nodepackages.provide()
            self.control_plane.start()
            self.node.start(self.control_plane)
            self.node.load(nodeimages.pause(self.folder))
            self.node.load(base)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.node.stop()
        self.control_plane.stop()
        nodepackages.remove()

    def install_kind(self) -> None:
        """The CRD alone, without the operator."""
        asyncio.run(_install(str(self.control_plane.kubeconfig)))


async def _install(kubeconfig: str) -> None:
    async with connected(kubeconfig) as cluster:
        await install(cluster)

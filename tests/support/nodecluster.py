"""A cluster of one real node: control plane, node, images, and the packages that training pods mount."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support import imagestore, nodeimages, nodepackages
from support.controlplane import ControlPlane
from support.gomodules import say
from support.helm import OPERATOR_CHART, RELEASE, helm
from support.kubectl import Kubectl
from support.real import connected, install
from support.realnode import RealNode
from trainserve.errors import EnvironmentProblem
from trainserve.kube import names

ROLLED_OUT_S = 120


class RunningCluster:
    """One that somebody has started by `tests/node/by_hand.py`, or a test run: its operator and its API."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubectl = Kubectl(kubeconfig)

    def operator_log(self) -> str:
        """The end of what its pods have said."""
        words = ("logs", "-l", f"{names.LABEL_NAME}={names.OPERATOR_ACCOUNT}", "--tail=40", "--prefix")
        return self.kubectl.run(*words, f"--namespace={names.OPERATOR_NAMESPACE}").stdout

    def upgrade_operator(self, *flags: object) -> None:
        """Install or upgrade the chart; `flags` such as --set=progress=proxy. Raises EnvironmentProblem."""
        where = f"--namespace={names.OPERATOR_NAMESPACE}"
        done = helm(
            *("upgrade", "--install", RELEASE, OPERATOR_CHART, where, *flags, "--wait", f"--timeout={ROLLED_OUT_S}s"),
            kubeconfig=self.kubectl.kubeconfig,
            timeout_s=ROLLED_OUT_S + 30,
        )
        if done.returncode:
            pods = self.kubectl.run("describe", "pods", where).stdout[-3000:]
            raise EnvironmentProblem(f"the operator's chart cannot be installed:\n{done.stderr.strip()}\n{pods}")


class NodeCluster(RunningCluster):
    """One of our own, which ends with the test run. Its logs lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.node = RealNode(folder)
        self.control_plane = ControlPlane(folder / "control-plane", reached=self.node.reached)
        super().__init__(self.control_plane.kubeconfig)

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
            # Training pods get what it imports by an overlay (support/nodeteam.py).
            self.node.load(nodeimages.trainer(self.folder, nodepackages.PACKAGES / nodepackages.CODE))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.node.stop()
        self.control_plane.stop()

    def install_kind(self) -> None:
        """The CRD alone, without the operator."""
        asyncio.run(_install(str(self.control_plane.kubeconfig)))

    def install_operator(self) -> None:
        """Build the operator's image, and install its chart with its own values; returns when its pods are ready."""
        say("building the operator's image: seconds where its packages are built already")
        wanted = names.image_for(names.IMAGE_OPERATOR)
        archive = self.folder / "operator.tar"
        archive.unlink(missing_ok=True)
        with imagestore.alone():
            built = imagestore.build(names.IMAGE_OPERATOR)
            imagestore.buildah("push", "--quiet", built, f"docker-archive:{archive}:{wanted}")
        self.node.load(archive)
        archive.unlink()
        labels = {names.LABEL_POD_SECURITY: names.POD_SECURITY}
        metadata = {"name": names.OPERATOR_NAMESPACE, "labels": labels}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.upgrade_operator()


async def _install(kubeconfig: str) -> None:
    async with connected(kubeconfig) as cluster:
        await install(cluster)

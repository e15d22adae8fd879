"""A namespace on the real node where only pods of Pod Security "restricted" may run, with what a training needs there:
claims of pictures, of packages and for what it leaves, and the overlay that mounts the packages."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from support import nodepackages
from support.kubectl import Kubectl
from support.nodeconfig import NODE
from support.realnode import FOLDER
from trainserve.kube import names
from trainserve.kube.cluster import Manifest

PICTURES = "pictures"
RUNS = "runs"
_PACKAGES = {nodepackages.CODE: "/packages/code", nodepackages.SITE: "/packages/site"}
ENFORCE = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True)
class NodeTeam:
    """`pictures` and `runs` are claims; `output` is the folder behind `runs`."""

    kubectl: Kubectl
    folder: Path

    @property
    def namespace(self) -> str:
        assert self.kubectl.namespace
        return self.kubectl.namespace

    @property
    def output(self) -> Path:
        return self.folder / RUNS

    def overlay(self) -> Path:
        """A file for `platform train --overlay`."""
        path = self.folder / "overlay.json"
        path.write_text(json.dumps({"spec": mounted({"name": names.CONTAINER})}))
        return path

    def events(self) -> str:
        """Of this namespace, for a failed test's report."""
        return self.kubectl.run("get", "events", "--sort-by=.lastTimestamp").stdout


def mounted(container: Manifest) -> Manifest:
    """A pod's spec of this container, which finds the packages."""
    path = {"name": "PYTHONPATH", "value": ":".join(_PACKAGES.values())}
    mounts = [{"name": name, "mountPath": at, "readOnly": True} for name, at in _PACKAGES.items()]
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}} for name in _PACKAGES]
    full = {
        **container,
        "env": [*container.get("env", []), path],
        "volumeMounts": [*container.get("volumeMounts", []), *mounts],
    }
    return {"containers": [full], "volumes": volumes}


def restricted() -> tuple[Manifest, Manifest]:
    """The security contexts of a pod and of its container that "restricted" wants."""
    pod = {"runAsNonRoot": True, "runAsUser": names.POD_USER, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return pod, container


def make_team(kubectl: Kubectl, namespace: str, pictures: Path | None = None) -> NodeTeam:
    """`kubectl` is the administrator's. `pictures`: a folder whose files are copied behind the claim."""
    folder = FOLDER / "volumes" / namespace
    folder.mkdir(parents=True)
    if pictures is None:
        (folder / PICTURES).mkdir()
    else:
        shutil.copytree(pictures, folder / PICTURES)
    (folder / RUNS).mkdir()
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {ENFORCE: "restricted"}}}
    )
    kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={namespace}", "--timeout=30s")
    # A hostPath for what many mount and nobody may change: the kubelet would make a local volume the pod's group's.
    shared = {name: {"hostPath": {"path": str(nodepackages.PACKAGES / name)}} for name in _PACKAGES}
    own = {name: {"local": {"path": str(folder / name)}} for name in (PICTURES, RUNS)}
    manifests: list[Manifest] = []
    for name, source in {**shared, **own}.items():
        modes = ["ReadWriteOnce"] if name == RUNS else ["ReadOnlyMany"]
        manifests += _claim(namespace, name, modes, source)
    kubectl.apply(*manifests)
    return NodeTeam(Kubectl(kubectl.kubeconfig, namespace), folder)


def remove_team(team: NodeTeam, *, wait: bool = True) -> None:
    everywhere = Kubectl(team.kubectl.kubeconfig)
    everywhere("delete", "namespace", team.namespace, f"--wait={str(wait).lower()}", "--timeout=120s", timeout_s=150)
    everywhere("delete", "persistentvolumes", "-l", f"namespace={team.namespace}", "--wait=false")
    shutil.rmtree(team.folder, ignore_errors=True)


def _claim(namespace: str, name: str, modes: list[str], source: Manifest) -> list[Manifest]:
    volume = f"{namespace}-{name}"
    size = {"storage": "10Gi"}
    where = {"matchExpressions": [{"key": names.LABEL_HOSTNAME, "operator": "In", "values": [NODE]}]}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume, "labels": {"namespace": namespace}},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "storageClassName": "",
                "claimRef": {"namespace": namespace, "name": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [where]}},
                **source,
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "accessModes": modes,
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": size},
            },
        },
    ]

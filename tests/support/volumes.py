"""Claims of a test's namespace, bound to folders of this machine."""

from __future__ import annotations

from pathlib import Path

from support.kubectl import Kubectl
from trainserve.kube.cluster import Manifest


def claim_of(
    kubectl: Kubectl, name: str, folder: Path, *, server: str | None = None, mode: str = "ReadWriteOnce"
) -> None:
    """A bound claim whose volume is `folder`; with `server` one of a network file system.

    The volume is no part of the namespace: it stays, Released, until the cluster ends.
    """
    size = {"storage": "1Gi"}
    source: Manifest = {"hostPath": {"path": str(folder)}}
    if server is not None:
        source = {"nfs": {"server": server, "path": "/"}}
    common: Manifest = {"accessModes": [mode], "storageClassName": ""}
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{kubectl.namespace}-{name}"},
            "spec": {
                **common,
                **source,
                "capacity": size,
                "claimRef": {"namespace": kubectl.namespace, "name": name},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": kubectl.namespace},
            "spec": {**common, "resources": {"requests": size}, "volumeName": f"{kubectl.namespace}-{name}"},
        },
    )
    kubectl("wait", "--for=jsonpath={.status.phase}=Bound", f"pvc/{name}", "--timeout=30s")

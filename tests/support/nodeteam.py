"""A namespace on the real node where only pods of Pod Security "restricted" may run, with what a training needs there:
claims of pictures, of packages and for what it leaves, and the overlay that mounts the packages."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import nodepackages
from support.command import command, environment
from support.kubectl import Kubectl
from support.nodeconfig import NODE
from support.nodeimages import BASE_IMAGE
from support.real import state_of
from support.realnode import FOLDER
from trainserve.kube import names, security
from trainserve.kube.cluster import Manifest

PICTURES = "pictures"
RUNS = "runs"
WITHIN_S = 240.0  # on a machine that is busy with other tests
_PACKAGES = {nodepackages.CODE: "/packages/code", nodepackages.SITE: "/packages/site"}


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

    def overlay(self, **requests: str) -> Path:
        """A file for `platform train --overlay`; `requests` of each pod, such as cpu="400m"."""
        path = self.folder / "overlay.json"
        resources = {"resources": {"requests": requests}} if requests else {}
        path.write_text(json.dumps({"spec": mounted({"name": names.CONTAINER, **resources})}))
        return path

    def platform(self, *words: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command as somebody with this team's kubeconfig, to its end."""
        return subprocess.run(
            command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=self.environment(),
        )

    def environment(self) -> dict[str, str]:
        """Of the command: this cluster, and a home of its own."""
        return {**environment(self.folder / "home"), "KUBECONFIG": str(self.kubectl.kubeconfig)}

    def said(self, *words: object, timeout_s: float = 300) -> str:
        """What the command prints; another exit code than 0 fails the test in its words."""
        done = self.platform(*words, timeout_s=timeout_s)
        assert done.returncode == 0, f"platform {' '.join(map(str, words))}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def train(self, name: str, *flags: object) -> list[object]:
        """The words of `platform train` for a run on this cluster, from the claim of pictures to that of runs."""
        place = ("--backend", "kubernetes", "--namespace", self.namespace)
        claims = ("--data", f"pvc://{PICTURES}", "--output", f"pvc://{RUNS}")
        return ["train", *place, *claims, "--name", name, "--overlay", self.overlay(), *flags]

    def job(self, name: str) -> Manifest:
        found: Manifest = self.kubectl.json("get", "pytorchjob", name)
        return found

    def state(self, name: str) -> str:
        """The last of its conditions; "" before it has one."""
        return state_of(self.job(name))

    def until(self, name: str, *states: str, timeout_s: float = WITHIN_S) -> Manifest:
        """The job once its last condition is one of these."""
        give_up = time.monotonic() + timeout_s
        while state_of(job := self.job(name)) not in states:
            assert time.monotonic() < give_up, (
                f"{name}: not {' or '.join(states)} in {timeout_s:.0f} s: {job['status']}"
            )
            time.sleep(0.5)
        return job

    def described(self) -> str:
        """What there is and what happened, for a failed test's report."""
        asked = (
            ("get", "pytorchjobs,pods,podgroups", "-o", "wide"),
            ("describe", "pytorchjobs"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "-l", names.LABEL_JOB_NAME, "--tail=15", "--prefix", "--all-containers"),
        )
        return "\n".join(f"$ kubectl {' '.join(words)}\n{self.kubectl.run(*words).stdout}" for words in asked)


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


def template(script: str, *, packages: bool = False, **container: Any) -> Manifest:
    """A restricted pod template whose container runs a Python script; `packages`: it may import ours."""
    full = {
        "name": names.CONTAINER,
        "image": BASE_IMAGE,
        "command": ["python", "-u", "-c", script],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": security.of_container(),
        **container,
    }
    spec = mounted(full) if packages else {"containers": [full], "volumes": []}
    spec["volumes"] = [*spec["volumes"], {"name": "tmp", "emptyDir": {}}]
    found = spec["containers"][0]
    found["volumeMounts"] = [*found.get("volumeMounts", []), {"name": "tmp", "mountPath": "/tmp"}]
    return {"spec": {**spec, "securityContext": security.of_pod(), "automountServiceAccountToken": False}}


def scripted(name: str, master: Manifest, worker: Manifest | None = None, workers: int = 1) -> Manifest:
    """A PyTorchJob of such templates."""
    replicas = {names.REPLICA_MASTER: {"replicas": 1, "restartPolicy": "ExitCode", "template": master}}
    if worker is not None:
        replicas[names.REPLICA_WORKER] = {"replicas": workers, "restartPolicy": "ExitCode", "template": worker}
    return {
        "apiVersion": names.PYTORCHJOB.api_version,
        "kind": names.PYTORCHJOB.kind,
        "metadata": {"name": name},
        "spec": {"pytorchReplicaSpecs": replicas},
    }


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
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {names.LABEL_POD_SECURITY: names.POD_SECURITY}},
        }
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

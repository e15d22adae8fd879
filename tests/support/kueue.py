"""Kueue, the real one, as a process beside a control plane of the tests' own: its webhooks are called on loopback."""

from __future__ import annotations

import base64
import json
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from support import gomodules
from support.controlplane import ControlPlane
from support.guarded import Guarded
from support.kubectl import Kubectl
from trainserve.errors import EnvironmentProblem
from trainserve.machine.ports import LOOPBACK, Reserved

MODULE = "sigs.k8s.io/kueue"
VERSION = "v0.17.0"
FRAMEWORKS = ["batch/job", "kubeflow.org/pytorchjob", "pod"]
READY_S = 60.0
# What runs in a cluster; here the process stands beside it, and nothing aggregates APIs.
_LEFT_OUT = {"Deployment", "APIService", "Service"}


class Kueue:
    """Installed into the control plane and started; `stop` ends the process and leaves the objects."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane = plane
        self._folder = folder
        self._ports = Reserved()
        self._process: Guarded | None = None

    def start(self) -> None:
        """Returns when its webhooks answer. Raises EnvironmentProblem where it cannot be built or started."""
        program = gomodules.program(MODULE, VERSION, "kueue")
        kubectl = Kubectl(self._plane.kubeconfig)
        manifests = self._manifests(kubectl)
        # Namespaces and kinds first, webhooks last: nothing is called before it listens.
        webhooks = [each for each in manifests if "Webhook" in each["kind"]]
        others = [each for each in manifests if "Webhook" not in each["kind"]]
        _apply(kubectl, others)
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        certificates = self._folder / "kueue-certificates"
        certificates.mkdir()
        for name in ("tls.crt", "tls.key"):
            shutil.copy(self._plane.folder / name, certificates / name)
        config = self._folder / "kueue.json"
        config.write_text(json.dumps(self._config(certificates)))
        words = [program, f"--config={config}", f"--kubeconfig={self._plane.kubeconfig}"]
        words += ["--feature-gates=VisibilityOnDemand=false"]
        self._process = Guarded([*_with_etc(self._etc(certificates)), *words], self._folder / "kueue.log")
        self._await_ready()
        _apply(kubectl, webhooks)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._ports.release_all()

    def _await_ready(self) -> None:
        assert self._process is not None
        give_up = time.monotonic() + READY_S
        url = f"http://{LOOPBACK}:{self._ports.port('health')}/readyz"
        while not _answers(url):
            if not self._process.alive() or time.monotonic() > give_up:
                raise EnvironmentProblem(f"Kueue does not start:\n{self._process.tail()}")
            time.sleep(0.1)

    def _etc(self, certificates: Path) -> Path:
        """What it sees as /etc: it reads certificates for its metrics from there, and no setting says otherwise."""
        etc = self._folder / "etc"
        shutil.copytree(certificates, etc / "kueue/metrics/certs")
        for name in ("hosts", "resolv.conf"):
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), etc / name)
        return etc

    def _config(self, certificates: Path) -> dict[str, Any]:
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"{LOOPBACK}:{self._ports.port('health')}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": LOOPBACK, "port": self._ports.port("webhook"), "certDir": str(certificates)},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "integrations": {"frameworks": FRAMEWORKS},
        }

    def _manifests(self, kubectl: Kubectl) -> list[dict[str, Any]]:
        rendered = kubectl("kustomize", gomodules.files_of(MODULE, VERSION) / "config/default")
        found = [each for each in yaml.safe_load_all(rendered) if each["kind"] not in _LEFT_OUT]
        for each in found:
            for client in _webhook_clients(each):
                path = client.pop("service").get("path", "")
                client["url"] = f"https://{LOOPBACK}:{self._ports.port('webhook')}{path}"
                client["caBundle"] = base64.b64encode((self._plane.folder / "tls.crt").read_bytes()).decode()
        return found


def _with_etc(folder: Path) -> list[object]:
    """Words before a command: it runs in a mount namespace of its own, which needs no privilege."""
    script = 'mount --bind "$0" /etc && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, folder]


def _webhook_clients(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Whatever the API server is told to call by the name of a Service."""
    clients = [webhook["clientConfig"] for webhook in manifest.get("webhooks") or []]
    conversion = (manifest.get("spec") or {}).get("conversion") or {} if manifest["kind"].startswith("Custom") else {}
    if "webhook" in conversion:
        clients.append(conversion["webhook"]["clientConfig"])
    return [client for client in clients if "service" in client]


def _apply(kubectl: Kubectl, manifests: list[dict[str, Any]]) -> None:
    content = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=content, timeout_s=120)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

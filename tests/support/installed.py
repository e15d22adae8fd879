"""An operator as it was installed: its Deployment's pods are simulated, so its own command runs here in their place.

The command, its flags, the account and its roles are those of the cluster; only what a pod has and a process has not
(its account's files, its address) is given by further flags.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

from support.command import command
from support.controlplane import write_kubeconfig
from support.guarded import Guarded
from support.kubectl import Kubectl
from support.runs import wait_until
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.machine.ports import LOOPBACK, Reserved

STARTED_S = 60.0


def as_account(kubectl: Kubectl, folder: Path, account: str, namespace: str) -> Path:
    """A kubeconfig of a ServiceAccount."""
    token = kubectl("create", "token", account, f"--namespace={namespace}").strip()
    seen = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    server = seen["clusters"][0]["cluster"]
    path = folder / f"{account}.kubeconfig"
    write_kubeconfig(path, server["server"], base64.b64decode(server["certificate-authority-data"]), account, token)
    return path


def words_of(container: Manifest) -> list[str]:
    """The `platform` command that a container runs, as an argument list of this machine."""
    program, *rest = [*container["command"], *container.get("args", ())]
    assert program == "platform", container
    return command(*rest)


class InstalledOperator:
    """The one of the Deployment in `namespace`; a context manager. `url` is where its /readyz is."""

    def __init__(self, kubectl: Kubectl, folder: Path, namespace: str) -> None:
        deployment: dict[str, Any] = kubectl.json(
            "get", f"deployment/{names.OPERATOR_ACCOUNT}", f"--namespace={namespace}"
        )
        pod = deployment["spec"]["template"]["spec"]
        self._ports = Reserved()
        address = f"{LOOPBACK}:{self._ports.port('metrics')}"
        self.url = f"http://{address}"
        self.log = folder / "operator.log"
        own = ("--kubeconfig", as_account(kubectl, folder, pod["serviceAccountName"], namespace))
        own += ("--metrics-address", address)
        if "--leader-elect" in pod["containers"][0]["args"]:
            own += ("--leader-elect-namespace", namespace)
        self._words = [*words_of(pod["containers"][0]), *own]
        self._process: Guarded | None = None

    def __enter__(self) -> InstalledOperator:
        self._process = process = Guarded(self._words, self.log)
        wait_until(lambda: not process.alive() or self.ready(), "the operator is ready", STARTED_S)
        assert process.alive(), f"the operator has ended:\n{process.tail()}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop()
        self._ports.release_all()

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

"""`platform operator run` as a real process, for one namespace, under the account and the Role that it is installed
with: whatever it does beyond that Role fails."""

from __future__ import annotations

import base64
import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from support.command import command
from support.controlplane import write_kubeconfig
from support.guarded import Guarded
from support.kubectl import Kubectl
from support.runs import wait_until
from trainserve.kube import names, rbac
from trainserve.machine.ports import LOOPBACK, Reserved

STARTED_S = 60.0


class Operator:
    """One controller after another on the same jobs: `start`, then `stop` or `kill`, then `start` again.

    `url` is where /metrics, /healthz and /readyz are. `flags` of `platform operator run` go before what is usual here.
    """

    def __init__(self, kubectl: Kubectl, folder: Path, *flags: object) -> None:
        assert kubectl.namespace, "an operator works in the namespace of its test"
        self.kubeconfig = account(kubectl, folder)
        self.log = folder / "operator.log"
        self._ports = Reserved()
        address = f"{LOOPBACK}:{self._ports.port('metrics')}"
        self.url = f"http://{address}"
        usual = ["--kubeconfig", self.kubeconfig, "--namespace", kubectl.namespace, "--metrics-address", address]
        self._words = command("operator", "run", "--no-leader-elect", *usual, *flags)
        self._process: Guarded | None = None

    def start(self) -> None:
        """Returns when its caches are filled, so that it works."""
        assert self._process is None, "it runs already"
        self._process = process = Guarded(self._words, self.log)
        wait_until(lambda: not process.alive() or self.get("/readyz") != "", "the operator is ready", STARTED_S)
        assert process.alive(), f"the operator has ended with {self._end(signal.SIGKILL)}:\n{process.tail()}"

    def stop(self) -> int:
        """SIGTERM; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; nothing happens where it does not run."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        assert self._process is not None, "it does not run"
        self._process.send(number)

    def get(self, path: str) -> str:
        """What it answers to a GET; "" where it does not answer, or not with 200."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
                body: bytes = answer.read()
        except OSError:
            return ""
        return body.decode()

    def close(self) -> None:
        """End it and give its port back."""
        self.kill()
        self._ports.release_all()

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "it does not run"
        process, self._process = self._process, None
        return process.stop(number)


def operating(kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    """Body of a fixture: an operator at work in the test's namespace, under its own account and Role."""
    found = Operator(kubectl, folder)
    try:
        found.start()
        yield found
    finally:
        found.close()


def account(kubectl: Kubectl, folder: Path) -> Path:
    """A kubeconfig of the operator's account, which is made in the test's namespace with its Role."""
    assert kubectl.namespace
    wanted = rbac.manifests(kubectl.namespace, [kubectl.namespace])
    kubectl.apply(*(manifest for manifest in wanted if "namespace" in manifest["metadata"]))
    token = kubectl("create", "token", names.OPERATOR_ACCOUNT).strip()
    seen = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    server = seen["clusters"][0]["cluster"]
    path = folder / "operator.kubeconfig"
    authority = base64.b64decode(server["certificate-authority-data"])
    write_kubeconfig(path, server["server"], authority, names.OPERATOR_ACCOUNT, token)
    return path

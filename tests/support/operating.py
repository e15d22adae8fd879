"""`platform operator run` as a real process, for one namespace, under the account and the Role that it is installed
with: whatever it does beyond that Role fails."""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path

from support.command import command
from support.controlplane import write_kubeconfig
from support.guarded import Guarded
from support.kubectl import Kubectl
from support.runs import wait_until
from trainserve.kube import names, rbac

STARTED_S = 30.0


class Operator:
    """One controller after another on the same jobs: `start`, then `stop` or `kill`, then `start` again."""

    def __init__(self, kubectl: Kubectl, folder: Path, *flags: object) -> None:
        assert kubectl.namespace, "an operator works in the namespace of its test"
        self.kubeconfig = account(kubectl, folder)
        self.log = folder / "operator.log"
        self._words = [
            *command("operator", "run", "--kubeconfig", self.kubeconfig, "--namespace", kubectl.namespace, *_QUIET),
            *flags,
        ]
        self.process: Guarded | None = None

    def start(self) -> None:
        """Returns when it works."""
        assert self.process is None, "it runs already"
        before = self._said().count(_WORKING)
        self.process = Guarded(self._words, self.log)
        wait_until(
            lambda: self._said().count(_WORKING) > before or not self._running().alive(),
            "the operator works",
            STARTED_S,
        )
        assert self._running().alive(), f"the operator has ended:\n{self._running().tail()}"

    def stop(self) -> int:
        """SIGTERM; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process = self._running()
        self.process = None
        return process.stop(number)

    def _running(self) -> Guarded:
        assert self.process is not None, "it does not run"
        return self.process

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


_WORKING = "working on PyTorchJobs of"
_QUIET: list[object] = []


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

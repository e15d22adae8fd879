"""kubectl as a user runs it: argument lists, a kubeconfig, a namespace."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from support import clusterbinaries
from trainserve.kube.cluster import Manifest


class Kubectl:
    """`kubectl("get", "pods")` returns what it prints; an exit code other than 0 fails the test in kubectl's words."""

    def __init__(self, kubeconfig: Path, namespace: str | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def __call__(self, *words: object, stdin: str | None = None, timeout_s: float = 60) -> str:
        done = self.run(*words, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, words))}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def run(self, *words: object, stdin: str | None = None, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """The same without looking at the exit code."""
        program = clusterbinaries.binaries("kubectl") / "kubectl"
        namespace = [f"--namespace={self.namespace}"] if self.namespace else []
        return subprocess.run(
            [program, f"--kubeconfig={self.kubeconfig}", *namespace, *map(str, words)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            # Its own caches; without a home it would write below /.
            env={"PATH": os.environ["PATH"], "HOME": str(self.kubeconfig.parent)},
        )

    def json(self, *words: object) -> Any:
        """What it prints with `-o json`."""
        return json.loads(self(*words, "-o", "json"))

    def apply(self, *manifests: Manifest) -> str:
        """`kubectl apply -f -` of these objects."""
        return self("apply", "-f", "-", stdin=as_text(*manifests))

    def create(self, *manifests: Manifest) -> str:
        """`kubectl create -f -`: unlike `apply`, it sends the status of an object too, which nodes keep."""
        return self("create", "-f", "-", stdin=as_text(*manifests))


def as_text(*manifests: Manifest) -> str:
    """Objects as one JSON text for `kubectl apply -f -`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})

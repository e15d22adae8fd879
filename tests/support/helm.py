"""helm as a user runs it: argument lists, a kubeconfig."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support import clusterbinaries


class Helm:
    """`helm("install", "trainserve", CHART)` returns what it prints; another exit code than 0 fails the test."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def __call__(self, *words: object, timeout_s: float = 120) -> str:
        done = subprocess.run(
            [clusterbinaries.binaries("helm") / "helm", f"--kubeconfig={self.kubeconfig}", *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={"PATH": os.environ["PATH"], "HOME": str(self.kubeconfig.parent)},
        )
        assert done.returncode == 0, f"helm {' '.join(map(str, words))}: {done.returncode}\n{done.stderr}"
        return done.stdout

"""Kubeflow's Python SDK, as published: it wants another client of Kubernetes than ours, so it has a venv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from support.clusterbinaries import ROOT
from support.gomodules import kept, lock_of

SDK = ("kubeflow-training==1.9.4", "kubernetes<36")


def python() -> Path:
    """The interpreter of an environment with the SDK, made once and kept in the user's cache."""
    cache = kept()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / f"sdk-{'-'.join(SDK).replace('<', '_')}-py{sys.version_info.major}.{sys.version_info.minor}"
    lock = lock_of(cache / "sdk.lock")
    try:
        if not wanted.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=".sdk-") as scratch:
                made = Path(scratch, "venv")
                uv = shutil.which("uv") or str(ROOT / ".cache/uv/bin/uv")
                interpreter = ["--python", sys.executable]
                subprocess.run([uv, "venv", "--quiet", "--relocatable", *interpreter, made], check=True)
                subprocess.run(
                    [uv, "pip", "install", "--quiet", "--python", made / "bin/python", *SDK, "pyyaml"], check=True
                )
                made.replace(wanted)
    finally:
        os.close(lock)
    return wanted / "bin/python"

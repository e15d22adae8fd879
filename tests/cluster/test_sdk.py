"""Kubeflow's Python SDK, as published, against our controller: it wants another client than ours, so it has a venv."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from support.clusterbinaries import ROOT
from support.gomodules import kept, lock_of
from support.kubectl import Kubectl
from support.operating import Operator

SDK = ("kubeflow-training==1.9.4", "kubernetes<36")
SESSION = Path(__file__).parent / "sdk/session.py"


@pytest.fixture(scope="session")
def sdk_python() -> Path:
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
                python = ["--python", sys.executable]
                subprocess.run([uv, "venv", "--quiet", "--relocatable", *python, made], check=True)
                subprocess.run(
                    [uv, "pip", "install", "--quiet", "--python", made / "bin/python", *SDK, "pyyaml"], check=True
                )
                made.replace(wanted)
    finally:
        os.close(lock)
    return wanted / "bin/python"


def test_the_sdk_creates_watches_updates_and_deletes_jobs(
    sdk_python: Path, kubectl: Kubectl, operator: Operator, namespace: str
) -> None:
    done = subprocess.run(
        [sdk_python, SESSION, kubectl.kubeconfig, namespace],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={"PATH": os.environ["PATH"], "HOME": str(kubectl.kubeconfig.parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        said = json.loads(line)
        answers[said["call"]] = said["answer"]
    assert answers == {
        "wait Running": [["Created", "True"], ["Running", "True"]],
        "is_job_running": True,
        "is_job_created": True,
        "get_job_pod_names": ["from-yaml-master-0", "from-yaml-worker-0", "from-yaml-worker-1"],
        "get_job_pod_names master": ["from-yaml-master-0"],
        "get_job_pods worker 1": ["from-yaml-worker-1"],
        "wait Succeeded": [["Created", "True"], ["Running", "False"], ["Succeeded", "True"]],
        "is_job_succeeded": True,
        "completion_time": True,
        "pods of from-function": ["from-function-master-0", "from-function-worker-0", "from-function-worker-1"],
        "pods of from-image": ["from-image-master-0"],
        "list_jobs": ["from-function", "from-image", "from-yaml"],
        "conditions after update": [["Created", "True"], ["Running", "False"], ["Suspended", "True"]],
        "pods after suspend": [],
        "left after delete": [],
        "get_job of a deleted one": "RuntimeError",
    }

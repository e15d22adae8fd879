"""Kubeflow's Python SDK, as published, against our controller: it wants another client than ours, so it has a venv."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support import sdk
from support.kubectl import Kubectl
from support.operating import Operator

SESSION = Path(__file__).parent / "sdk/session.py"


@pytest.fixture(scope="session")
def sdk_python() -> Path:
    return sdk.python()


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

"""Kubeflow's SDK, unchanged: create a PyTorchJob from a file, wait for it, read its log. Nothing of ours is installed.

sdk_session.py KUBECONFIG NAMESPACE FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from kubeflow.training import TrainingClient
from kubeflow.training.utils.utils import FakeResponse

WITHIN_S = 1800


def main(kubeconfig: str, namespace: str, file: str) -> None:
    client = TrainingClient(config_file=kubeconfig, namespace=namespace)
    manifest = yaml.safe_load(Path(file).read_text())
    name = manifest["metadata"]["name"]
    client.create_job(client.api_client.deserialize(FakeResponse(manifest), "KubeflowOrgV1PyTorchJob"))
    client.wait_for_job_conditions(name, timeout=WITHIN_S, wait_timeout=WITHIN_S)
    logs, _ = client.get_job_logs(name)
    print(json.dumps({"succeeded": client.is_job_succeeded(name), "log": "\n".join(map(str, logs.values()))}))


if __name__ == "__main__":
    main(*sys.argv[1:])

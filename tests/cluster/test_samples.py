"""Each of manifests/samples at a real API server, in a namespace where only pods of Pod Security "restricted" run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import gomodules, kueue
from support.command import command, environment
from support.kubectl import Kubectl
from support.testserver import Server
from trainserve.kube import names

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted(path.name for path in (ROOT / "manifests/samples").iterdir() if path.name[0].isdigit())
NAMESPACE = "team"  # of the samples


def _objects(sample: str, file: str, namespace: str) -> list[dict[str, Any]]:
    """The objects of a file, moved to the test's namespace."""
    found = list(yaml.safe_load_all((ROOT / "manifests/samples" / sample / file).read_text(encoding="utf-8")))
    for each in found:
        if each["metadata"].get("namespace") == NAMESPACE:
            each["metadata"]["namespace"] = namespace
        if each["kind"] == "Namespace":
            assert each["metadata"]["name"] == NAMESPACE
            each["metadata"]["name"] = namespace
    return found


@pytest.fixture(scope="session")
def kueue_kinds(server: Server) -> None:
    """Kueue's kinds, without Kueue."""
    folder = gomodules.files_of(kueue.MODULE, kueue.VERSION) / "config/components/crd/bases"
    kubectl = Kubectl(server.kubeconfig)
    kubectl("apply", "--server-side", "-f", folder, timeout_s=120)
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def _train(sample: str, namespace: str) -> list[str]:
    """The README's `platform train`, in the test's namespace."""
    sys.path.insert(0, str(ROOT / "manifests/samples"))
    try:
        from generate import command_of  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    words: list[str] = command_of(ROOT / "manifests/samples" / sample)
    if "--namespace" in words:
        words[words.index("--namespace") + 1] = namespace
    else:
        words += ["--namespace", namespace]
    return words[1:]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_server_takes_the_objects_the_command_and_the_plain_job(
    sample: str, kubectl: Kubectl, server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    namespace = str(kubectl.namespace)
    objects = _objects(sample, "cluster.yaml", namespace)
    if any(each["apiVersion"].startswith("kueue") for each in objects):
        request.getfixturevalue("kueue_kinds")
    everywhere = Kubectl(server.kubeconfig)
    everywhere("apply", "--dry-run=server", "-f", "-", stdin=_list(objects))
    # What is of the namespace goes with it; the rest would stay.
    kept = [each for each in objects if each["kind"] == "Namespace" or each["metadata"].get("namespace") == namespace]
    everywhere("apply", "-f", "-", stdin=_list(kept))
    labels = kubectl.json("get", "namespace", namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"

    (job,) = _objects(sample, "pytorchjob.yaml", namespace)
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(job))
    for kind, replica in job["spec"]["pytorchReplicaSpecs"].items():
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": kind.lower(), "namespace": namespace},
            "spec": replica["template"]["spec"],
        }
        kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))

    words = _train(sample, namespace)
    env = {**environment(tmp_path / "home"), "KUBECONFIG": str(server.kubeconfig)}
    done = subprocess.run(
        command(*words, "--dry-run=server", "-o", "json"),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    (stored,) = json.loads(done.stdout)
    for kind, replica in job["spec"]["pytorchReplicaSpecs"].items():
        sent = stored["spec"]["pytorchReplicaSpecs"][kind]["template"]["spec"]
        ours = replica["template"]["spec"]
        for each in (sent, ours):  # which holds the namespace of the sample, or of the test
            (spec,) = [env for env in each["containers"][0]["env"] if env["name"] == names.ENV_SPEC]
            spec["value"] = spec["value"].replace(f'"{namespace}"', f'"{NAMESPACE}"')
        assert sent == ours


def _list(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})

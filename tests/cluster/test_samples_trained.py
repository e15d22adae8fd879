"""Samples trained for real: the operator's process, this machine as the node, real data, claims and a bucket."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import s3server
from support.command import command, environment
from support.kubectl import Kubectl
from support.kwok import OWNER
from support.nodeprocess import AddNode, added_nodes
from support.nodetraining import digits_folder
from support.operating import Operator
from support.testserver import Server
from support.volumes import claim_of

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples"
Trained = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def add_node(kubectl: Kubectl, tmp_path: Path) -> Iterator[AddNode]:
    yield from added_nodes(kubectl, tmp_path)


@pytest.fixture
def trained(
    kubectl: Kubectl,
    server: Server,
    operator: Operator,
    add_node: AddNode,
    tmp_path: Path,
) -> Trained:
    """`platform train -f SAMPLE/classifier.yaml`, smaller and on the test's own node; it follows the run to its end."""
    add_node("one", "--cpu", 8, "--memory", "16Gi").wait_ready()

    def train(sample: str, *words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        place = ("--backend", "kubernetes", "--namespace", kubectl.namespace)
        own = ("--node-selector", f"{OWNER}={kubectl.namespace}", "--toleration", OWNER)
        small = ("--epochs", 1, "--warmup-epochs", 0, "--batch-size", 36, "--workers", 0, "--cpu", 1, "--memory", "2Gi")
        return subprocess.run(
            command("train", *place, "-f", SAMPLES / sample / "classifier.yaml", *own, *small, *words),
            env={**environment(tmp_path / "home"), "KUBECONFIG": str(server.kubeconfig), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=480,
            stdin=subprocess.DEVNULL,
        )

    return train


def _has_what_a_run_leaves(output: Path, name: str) -> None:
    there = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert {f"{name}.mar", "events.jsonl", "bundle/model.json", "bundle/weights.safetensors"} <= there


def test_the_same_file_as_on_a_laptop_from_claim_to_claim(trained: Trained, kubectl: Kubectl, tmp_path: Path) -> None:
    claim_of(kubectl, "pictures", digits_folder(tmp_path).parent)
    (tmp_path / "runs").mkdir()
    claim_of(kubectl, "runs", tmp_path / "runs")
    done = trained("01-digits", "--data", "pvc://pictures/digits", "--output", "pvc://runs", "--nodes", 2)
    assert done.returncode == 0, done.stderr
    _has_what_a_run_leaves(tmp_path / "runs/digits", "digits")
    job = kubectl.json("get", "pytorchjob", "digits")
    assert job["status"]["conditions"][-1]["type"] == "Succeeded"
    assert job["status"]["progress"]["epoch"] == 1


def test_from_bucket_to_bucket_without_a_volume(trained: Trained, kubectl: Kubectl, tmp_path: Path) -> None:
    (secret,) = [
        each
        for each in yaml.safe_load_all((SAMPLES / "03-bucket/cluster.yaml").read_text())
        if each["kind"] == "Secret"
    ]
    with s3server.serving(tmp_path / "s3") as s3:
        env: dict[str, Any] = {name: s3.env[name] for name in secret["stringData"]}
        secret["metadata"]["namespace"] = kubectl.namespace
        kubectl.apply({**secret, "stringData": env})
        for name in ("pictures", "runs"):
            s3.bucket(name)
        folder = digits_folder(tmp_path)
        pushed = subprocess.run(
            command("data", "push", folder, "s3://pictures/digits", "-o", "name"),
            env={**environment(tmp_path / "home"), **s3.env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert pushed.returncode == 0, pushed.stderr
        done = trained("03-bucket", "--data", pushed.stdout.strip(), "--nodes", 1)
        assert done.returncode == 0, done.stderr
        _has_what_a_run_leaves(s3.folder / "runs/digits/digits", "digits")

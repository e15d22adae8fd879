"""What `platform train` says before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from support import pictures
from support.here import Here
from trainserve.cli.train import train_command
from trainserve.client import train
from trainserve.client.follow import Outcome
from trainserve.observe.summary import summarize


@pytest.mark.parametrize(("words", "times"), [([], 0), (["--detach"], 1)])
def test_what_was_ignored_is_said_once(
    words: list[str], times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IMG-01: by the run's own events, or here where nobody follows these."""
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(train, "go", lambda run, *_, **__: Outcome(summarize("x", "Succeeded", {}, []), run.path, 0))
    pictures.write_classes(tmp_path / "data", {"a": 40, "b": 40, ".hidden": 1})
    done = CliRunner().invoke(train_command, ["--data", str(tmp_path / "data"), *words])
    assert done.exception is None
    assert done.stderr.count("ignored 1 hidden or system folder (.hidden)") == times


@pytest.fixture(autouse=True)
def _own_home(home: Path) -> None:
    """Nothing of whoever runs the tests."""


def _dry(here: Here, *words: object) -> Any:
    return yaml.safe_load(here("train", *words, "--dry-run").out)


def test_the_current_context_says_where_and_what_a_cluster_needs(here: Here) -> None:
    here("context", "set", "lab", "--namespace", "team", "--output", "pvc://runs", "--image", "trainer:1", "--use")
    job = _dry(here, "--data", "pvc://pictures/flowers", "--nodes", 3, "--batch-size", 66)
    assert (job["kind"], job["metadata"]["namespace"], job["metadata"]["name"]) == ("PyTorchJob", "team", "flowers")
    assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 2
    assert here("train", "--data", "x", "--backend", "local", "--dry-run", "-o", "name").out.startswith(
        "classifier/x\n"
    )
    here("context", "use", "local")
    assert here("train", "--data", "x", "--dry-run", "-o", "name").out == "classifier/x\npytorchjob/x\n"


def test_a_file_says_all_that_flags_say(here: Here, tmp_path: Path) -> None:
    (tmp_path / "overlay.yaml").write_text("spec: {schedulerName: mine}\n")
    flags = [
        "--data", "s3://pictures/flowers.tar", "--output", "gs://runs", "--nodes", "2:4", "--batch-size", 48,
        "--gpus", 2, "--gpu-resource", "amd.com/gpu", "--cpu", 8, "--memory", "64Gi", "--shared-memory", "8Gi",
        "--node-selector", "a=b", "--toleration", "gpu:NoSchedule", "--priority-class", "high",
        "--runtime-class", "nvidia", "--service-account", "me", "--pull-secret", "registry",
        "--env", "NCCL_DEBUG=INFO", "--env-from", "bucket", "--queue", "team-queue", "--gang", "together",
        "--host-network", "--image", "x:1", "--overlay", tmp_path / "overlay.yaml",
    ]  # fmt: skip
    (tmp_path / "spec.yaml").write_text("""\
metadata: {name: flowers}
spec:
  data: {path: "s3://pictures/flowers.tar"}
  train: {output: "gs://runs", nodes: 2:4, batchSize: 48}
  pod:
    {gpus: 2, gpuResource: amd.com/gpu, cpu: 8, memory: 64Gi, sharedMemory: 8Gi, nodeSelector: {a: b}, image: x:1,
     tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}], priorityClass: high, runtimeClass: nvidia,
     serviceAccount: me, pullSecrets: [registry], env: {NCCL_DEBUG: INFO}, envFrom: [bucket], queue: team-queue,
     gang: together, hostNetwork: true, overlay: {spec: {schedulerName: mine}}}
""")
    place = ("--backend", "kubernetes", "--namespace", "team")
    job = _dry(here, *place, *flags)
    assert job == _dry(here, *place, "-f", tmp_path / "spec.yaml")
    assert job["spec"]["elasticPolicy"]["minReplicas"] == 2
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "x", "--output", "json"], "the format is -o json"),
        (["--data", "x", "--namespace", "team"], "add --backend kubernetes"),
        (["--data", "x", "--dry-run=server"], "on this machine there is no server to ask"),
        (["--data", "x", "--nodes", "2:4", "--batch-size", "48"], "needs a cluster"),
        (["--data", "pvc://x"], "is seen by pods of a cluster only"),
        (["--resume", "x", "--backend", "kubernetes", "--gpus", "2"], "cannot be mixed with --backend, --gpus"),
        (["--backend", "kubernetes", "--data", "pvc://x"], "spec.train.output: is required on a cluster"),
        (
            ["--backend", "kubernetes", "--data", "pvc://x", "--output", "pvc://y", "--overlay", "nix.yaml"],
            "no such file",
        ),
        (["--backend", "kubernetes", "--data", "pvc://x", "--output", "pvc://y", "--name", "Bad"], "metadata.name"),
        (["--backend", "kubernetes", "--data", "pvc://x", "--toleration", "a:Never"], "tolerations.0.effect"),
        (["--backend", "kubernets"], "did you mean kubernetes"),
    ],
)
def test_what_does_not_fit_where_it_is_to_run(words: list[str], says: str, here: Here) -> None:
    done = here("train", *words)
    assert done.code == 2
    assert says in done.err


def test_what_has_no_effect_on_a_laptop_is_said(here: Here) -> None:
    done = here("train", "--data", "x", "--gpus", 2, "--queue", "q", "--output", "pvc://x", "--dry-run", "-o", "name")
    assert done.code == 0
    assert done.err.splitlines() == [
        "spec.pod.gpus has no effect on this machine, but for 2 processes a node",
        "spec.pod.queue has no effect on this machine",
        "spec.train.output has no effect on this machine",
    ]

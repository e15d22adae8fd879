"""`platform train --backend kubernetes` against a real API server: what is sent, and what is refused before it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command import command, environment
from support.golden import GOLDEN
from support.kubectl import Kubectl
from support.testserver import Server
from trainserve.kube import names

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(server: Server, namespace: str, tmp_path: Path) -> Typed:
    """`platform train --backend kubernetes --namespace NS --detach ...`, with a home of its own."""
    env = {**environment(tmp_path / "home"), "KUBECONFIG": str(server.kubeconfig)}

    def run(*words: object, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        place = ("--backend", "kubernetes", "--namespace", namespace, "--detach")
        mine = env if kubeconfig is None else {**env, "KUBECONFIG": str(kubeconfig)}
        return subprocess.run(
            command("train", *place, *words),
            capture_output=True,
            text=True,
            check=False,
            env=mine,
            timeout=60,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
        )

    return run


@pytest.fixture
def claims(kubectl: Kubectl) -> None:
    """`pictures`, which many read, `runs`, which one node mounts, and `shared`, which many write."""
    for name, mode in (("pictures", "ReadOnlyMany"), ("runs", "ReadWriteOnce"), ("shared", "ReadWriteMany")):
        spec = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}}
        kubectl.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})


PLACES = ("--data", "pvc://pictures/flowers", "--output", "pvc://runs")


@pytest.mark.usefixtures("claims")
def test_the_job_that_is_created_is_the_one_that_a_dry_run_prints(typed: Typed, kubectl: Kubectl) -> None:
    words = (*PLACES, "--nodes", 4, "--image", "registry.example/trainer:1")
    (printed,) = yaml.safe_load_all(typed(*words, "--dry-run").stdout)
    assert kubectl("get", "pytorchjobs", "-o", "name") == ""
    done = typed(*words)
    assert (done.returncode, done.stdout) == (0, f"k8s://{kubectl.namespace}/flowers\n"), done.stderr
    stored = kubectl.json("get", "pytorchjob", "flowers")
    assert stored["metadata"]["annotations"] == printed["metadata"]["annotations"]
    assert stored["metadata"]["labels"] == printed["metadata"]["labels"]
    for kind, count in (("Master", 1), ("Worker", 3)):
        assert stored["spec"]["pytorchReplicaSpecs"][kind] == printed["spec"]["pytorchReplicaSpecs"][kind]
        assert stored["spec"]["pytorchReplicaSpecs"][kind]["replicas"] == count


@pytest.mark.usefixtures("claims")
def test_a_name_that_was_made_is_numbered_and_one_that_was_given_is_refused(typed: Typed, kubectl: Kubectl) -> None:
    assert [typed(*PLACES, "-o", "name").stdout.strip().rpartition("/")[2] for _ in range(2)] == [
        "flowers",
        "flowers-2",
    ]
    again = typed(*PLACES, "--name", "flowers")
    assert again.returncode == 2
    assert "named 'flowers' exists already" in again.stderr
    assert "--name" in again.stderr
    env = kubectl.json("get", "pytorchjob", "flowers-2")["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    output = next(each for each in env["containers"][0]["env"] if each["name"] == names.ENV_OUTPUT)
    assert output["value"] == "/output/flowers-2"


@pytest.mark.usefixtures("claims")
def test_a_dry_run_at_the_server_says_what_it_would_store_and_stores_nothing(typed: Typed, kubectl: Kubectl) -> None:
    done = typed(*PLACES, "--dry-run=server", "-o", "json")
    assert done.returncode == 0, done.stderr
    (job,) = json.loads(done.stdout)
    assert job["spec"]["runPolicy"]["suspend"] is False  # a default of the CRD
    assert "managedFields" not in job["metadata"]
    assert "nothing was created" in done.stderr
    assert kubectl("get", "pytorchjobs", "-o", "name") == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data", "pvc://nix", "--output", "pvc://runs"), "spec.data.path: there is no claim 'nix' in namespace"),
        (("--data", "pvc://pictures", "--output", "pvc://nix"), "spec.train.output: there is no claim 'nix'"),
        (
            ("--data", "pvc://runs", "--output", "pvc://pictures"),
            "spec.train.output: claim pictures cannot be written to",
        ),
        (
            ("--data", "pvc://pictures", "--output", "pvc://runs", "--nodes", "1:2"),
            "any of the 2 pods of an elastic run may have to write to it: use a ReadWriteMany claim",
        ),
        ((*PLACES, "--priority-class", "nix"), "no PriorityClass with name nix was found"),
        ((*PLACES, "--service-account", "nix"), 'serviceaccount "nix" not found'),
        ((*PLACES, "--set", "pod.affinity={nodeAffinity: {nix: 1}}"), "nodeAffinity.nix"),
        ((*PLACES, "--set", "pod.overlay={spec: {containers: [{name: pytorch, imge: x}]}}"), "imge"),
        ((*PLACES, "--set", "pod.overlay={spec: {activeDeadlineSeconds: -1}}"), "activeDeadlineSeconds"),
        ((*PLACES, "--set", "pod.tolerations=[{operator: Equal}]"), "tolerations"),
    ],
)
@pytest.mark.usefixtures("claims")
def test_what_would_keep_the_pods_from_being_is_told_before_there_is_a_job(
    words: tuple[object, ...], says: str, typed: Typed, kubectl: Kubectl
) -> None:
    done = typed(*words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert kubectl("get", "pytorchjobs", "-o", "name") == ""


@pytest.mark.usefixtures("claims")
def test_what_may_be_a_mistake_is_said_and_goes_on(typed: Typed) -> None:
    done = typed("--data", "pvc://runs", "--output", "pvc://shared", "--nodes", 2)
    assert done.returncode == 0
    assert "claim runs is ReadWriteOnce: all 2 pods have to fit on the one node that has it" in done.stderr


@pytest.mark.parametrize("case", ["cluster-claims", "cluster-bucket-gpus", "cluster-elastic"])
def test_pods_are_restricted_and_the_server_takes_each_golden_job(case: str, kubectl: Kubectl) -> None:
    """In a namespace that enforces Pod Security "restricted"; a path of the nodes is not allowed there."""
    kubectl("label", "namespace", str(kubectl.namespace), "pod-security.kubernetes.io/enforce=restricted")
    job = yaml.safe_load((GOLDEN / case / "out.yaml").read_text())
    job["metadata"]["namespace"] = kubectl.namespace
    kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(job))
    for kind, replica in job["spec"]["pytorchReplicaSpecs"].items():
        pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": kind.lower()}}
        pod["spec"] = replica["template"]["spec"]
        tried = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
        wrong = [each["name"] for each in pod["spec"]["volumes"] if "hostPath" in each]
        if wrong:
            assert (
                f'restricted volume types (volume "{wrong[0]}" uses restricted volume type "hostPath")' in tried.stderr
            )
            assert tried.stderr.count("(") == 2, tried.stderr  # and nothing else
        else:
            assert tried.returncode == 0, tried.stderr


def test_a_quota_is_waited_for_and_a_missing_namespace_is_not(typed: Typed, kubectl: Kubectl, claims: None) -> None:
    kubectl("create", "quota", "none", "--hard=pods=0")
    done = typed(*PLACES)
    assert done.returncode == 0
    assert "the job will wait for room in the namespace's quota" in done.stderr
    nowhere = typed(*PLACES, "--namespace", "no-such-namespace")
    assert nowhere.returncode == 3
    assert "there is no namespace 'no-such-namespace'" in nowhere.stderr

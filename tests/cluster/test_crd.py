"""The kind as people meet it: kubectl explain, get, scale; roles; jobs that are odd."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.badjobs import ODD
from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team
from support.scenario import pytorchjob
from trainserve.kube import names, rbac
from trainserve.kube.cluster import Manifest

BASE = Path(__file__).parents[2] / "manifests/base"


def test_the_files_are_what_the_server_has(kubectl: Kubectl) -> None:
    said = kubectl("apply", "--dry-run=server", "-f", BASE / "crds/kubeflow.org_pytorchjobs.yaml")
    assert "pytorchjobs.kubeflow.org" in said
    for folder in ("crds", "rbac", "rbac/namespaced", "rbac/progress-proxy"):
        assert kubectl("kustomize", BASE / folder)


SAID = {
    "": "a Master and Workers that start and stop together",
    ".spec.runPolicy": "Restarts before the job fails. Default: no limit.",
    ".spec.runPolicy.cleanPodPolicy": "Pods deleted when the job finishes. Default None",
    ".spec.pytorchReplicaSpecs.restartPolicy": "Default OnFailure.",
    ".spec.elasticPolicy.minReplicas": "Fewest nodes.",
    ".status.progress": "Optimizer steps done",
}


def test_explain(kubectl: Kubectl) -> None:
    for field, words in SAID.items():
        shown = " ".join(kubectl("explain", f"pytorchjob{field}").split())
        assert words in shown, field
        assert "<no description>" not in shown, field


async def test_columns_and_scale(kubectl: Kubectl, operator: Operator, team: Team) -> None:
    await team.create(pytorchjob(workers=3))
    await team.until(lambda job: nodes(job) == "4/4", "four nodes run")
    head, row = kubectl("get", "pytorchjobs").splitlines()
    assert head.split() == ["NAME", "STATE", "NODES", "PROGRESS", "ETA", "RESTARTS", "AGE"]
    assert row.split()[:3] == ["flowers", "Running", "4/4"]
    scale = json.loads(kubectl("get", "--raw", f"{path_of(team)}/flowers/scale"))
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 3

    kubectl("scale", "pytorchjob/flowers", "--replicas=5")
    await team.until(lambda job: nodes(job) == "6/6", "six nodes run")
    refused = kubectl.run("scale", "pytorchjob/flowers", "--replicas=1000000000")
    assert refused.returncode != 0
    assert "spec.pytorchReplicaSpecs.Worker.replicas" in refused.stderr


async def test_progress_and_eta_are_words(kubectl: Kubectl, team: Team) -> None:
    await team.create(pytorchjob(workers=3))  # no controller: the status is ours
    progress = {"epoch": 3, "epochs": 10, "step": 275, "steps": 1000, "etaSeconds": 190}
    words = {"nodes": "3/4", "progressSummary": "epoch 3/10, 27.5%", "eta": "3m10s", "restarts": 2}
    running = {"type": "Running", "status": "True", "reason": "PyTorchJobRunning", "message": "m"}
    status = json.dumps({"status": {"conditions": [running], "progress": progress, **words}})
    kubectl("patch", "pytorchjob/flowers", "--subresource=status", "--type=merge", f"--patch={status}")
    row = kubectl("get", "pytorchjobs").splitlines()[1]
    assert " ".join(row.split()[:7]) == "flowers Running 3/4 epoch 3/10, 27.5% 3m10s"
    assert row.split()[7] == "2"


async def test_odd_jobs_get_their_pods_or_fail_in_the_servers_words(operator: Operator, team: Team) -> None:
    odd = [name for name in ODD if "'" not in name or any(word in name for word in ("x00", "xxx", "(VAR)"))]
    for number, name in enumerate(odd):
        await team.create({**ODD[name], "metadata": {**ODD[name]["metadata"], "name": f"odd-{number}"}})
    for number, name in enumerate(odd):
        found = await team.until(settled, f"{name} goes on or fails", f"odd-{number}")
        last = found["status"]["conditions"][-1]
        assert last["type"] != names.FAILED or "may not be more than 262144 bytes" in last["message"], name
    assert operator.stop() == 0


def nodes(job: Manifest) -> str | None:
    return (job.get("status") or {}).get("nodes")


def settled(job: Manifest) -> bool:
    found = (job.get("status") or {}).get("conditions") or [{}]
    return found[-1].get("type") in {names.RUNNING, names.FAILED}


def path_of(team: Team) -> str:
    return f"/apis/{names.PYTORCHJOB.api_version}/namespaces/{team.namespace}/{names.PYTORCHJOB.plural}"


@pytest.fixture
def people(kubectl: Kubectl) -> Iterator[Kubectl]:
    """jane may view, and joe may edit what is in the namespace; the roles are those that we add to."""
    kubectl.apply(*rbac.people())
    for name, role in (("jane", "view"), ("joe", "edit")):
        kubectl("create", "rolebinding", name, f"--clusterrole={role}", f"--user={name}")
    yield kubectl
    for role in rbac.people():
        kubectl("delete", "clusterrole", role["metadata"]["name"])


def test_view_and_edit_hold_for_our_kind(people: Kubectl) -> None:
    give_up = time.monotonic() + 30
    while not may(people, "jane", "list", "pytorchjobs"):  # a controller of Kubernetes' adds the rules up
        assert time.monotonic() < give_up
        time.sleep(0.2)
    asked = {
        (user, verb, resource): may(people, user, verb, resource)
        for user in ("jane", "joe")
        for verb, resource in (
            ("create", "pytorchjobs"),
            ("delete", "pytorchjobs"),
            ("patch", "pytorchjobs/scale"),
            ("get", "pytorchjobs/status"),
            ("patch", "pytorchjobs/status"),
        )
    }
    assert {call for call, allowed in asked.items() if allowed} == {
        ("jane", "get", "pytorchjobs/status"),
        ("joe", "get", "pytorchjobs/status"),
        ("joe", "create", "pytorchjobs"),
        ("joe", "delete", "pytorchjobs"),
        ("joe", "patch", "pytorchjobs/scale"),
    }


def may(kubectl: Kubectl, user: str, verb: str, resource: str) -> bool:
    plural, _, subresource = resource.partition("/")
    words = ["auth", "can-i", verb, f"{plural}.kubeflow.org", f"--as={user}"]
    return kubectl.run(*words, *([f"--subresource={subresource}"] if subresource else [])).stdout.strip() == "yes"

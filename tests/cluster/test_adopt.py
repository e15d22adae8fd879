"""A cluster that Kubeflow's operator made jobs in is taken over: kind, webhook and Deployment, a job with its pods."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import platform
from support.kubectl import Kubectl
from support.operating import Operator
from support.runs import wait_until
from support.scenario import pytorchjob
from support.testserver import OwnServer, Server
from support.upstream import REPLICAS, condition, kubeflows_crd, pod, service, status, webhooks
from trainserve.errors import EXIT_ENVIRONMENT
from trainserve.kube import names
from trainserve.kube.crd import CRD_NAME, pytorchjob_crd

BASE = Path(__file__).parents[2] / "manifests/base"


@pytest.fixture
def server(own_server: OwnServer) -> Server:
    return own_server.server


@pytest.fixture
def kubeflow(kubectl: Kubectl) -> Iterator[Kubectl]:
    """Kubeflow's kind, and its operator as a Deployment; the webhook comes with the test, since it bars the way."""
    kubectl("delete", "crd", CRD_NAME)
    kubectl.apply(kubeflows_crd())
    kubectl("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=30s")
    in_kubeflow = Kubectl(kubectl.kubeconfig, "kubeflow")
    kubectl("create", "namespace", "kubeflow")
    in_kubeflow("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    in_kubeflow("create", "deployment", names.KUBEFLOW_DEPLOYMENT, "--image=localhost/training-operator:1")
    yield in_kubeflow
    kubectl("delete", "namespace", "kubeflow", "--wait=false")


def test_a_change_over(kubectl: Kubectl, kubeflow: Kubectl, tmp_path: Path) -> None:
    pods = a_running_job(kubectl)
    kubectl.apply(webhooks("tfjob", "pytorchjob"))
    refused = kubectl.run("annotate", "pytorchjob/flowers", "a=b")
    assert "failed calling webhook" in refused.stderr  # so it stands in the way

    # Looking changes nothing.
    before = kubectl.json("get", "crd", CRD_NAME)["metadata"]["resourceVersion"]
    looked = adopt(kubectl)
    assert looked.returncode == 0, looked.stderr
    assert "1 Running\n  after  stay; pods that run go on" in looked.stdout
    assert "must be stopped first" in looked.stdout
    assert kubectl.json("get", "crd", CRD_NAME)["metadata"]["resourceVersion"] == before

    # Beside it nobody works, and nothing is changed.
    beside = platform("operator", "run", "--kubeconfig", kubectl.kubeconfig, "--metrics-address", "0", timeout_s=60)
    assert beside.returncode == EXIT_ENVIRONMENT
    assert "Kubeflow's Training Operator works here: Deployment kubeflow/training-operator" in beside.stderr
    early = adopt(kubectl, "--yes")
    assert early.returncode == EXIT_ENVIRONMENT
    assert kubectl.json("get", "crd", CRD_NAME)["metadata"]["resourceVersion"] == before

    # Without it, the change-over.
    kubeflow("scale", "deployment", names.KUBEFLOW_DEPLOYMENT, "--replicas", "0")
    wait_until(
        lambda: not kubeflow.json("get", "deployment", names.KUBEFLOW_DEPLOYMENT)["status"].get("replicas"),
        "its pod is gone",
        60,
    )
    done = adopt(kubectl, "--yes")
    assert done.returncode == 0, done.stderr
    crd = kubectl.json("get", "crd", CRD_NAME)
    assert crd["spec"]["versions"][0]["schema"] == pytorchjob_crd()["spec"]["versions"][0]["schema"]
    assert names.ANNOTATION_CONTROLLER_GEN not in crd["metadata"].get("annotations", {})
    left = kubectl.json("get", "validatingwebhookconfiguration", names.KUBEFLOW_WEBHOOKS)["webhooks"]
    assert [each["name"] for each in left] == ["validator.tfjob.training-operator.kubeflow.org"]
    assert "nothing to adopt" in adopt(kubectl).stderr
    kubectl("apply", "-k", BASE / "crds")  # from now on its updates come so

    # The job goes on, with its pods.
    operator = Operator(kubectl, tmp_path)
    try:
        operator.start()
        wait_until(lambda: nodes(kubectl) == "3/3", "the job is taken over", 60)
        assert uids(kubectl) == pods
    finally:
        operator.close()


def adopt(kubectl: Kubectl, *flags: str) -> subprocess.CompletedProcess[str]:
    return platform("operator", "adopt", "--kubeconfig", kubectl.kubeconfig, *flags, timeout_s=60)


def a_running_job(kubectl: Kubectl) -> dict[str, str]:
    """A job as Kubeflow's operator has left it, with its pods. Returns these by name, with their uids."""
    sent = pytorchjob(workers=2)
    kubectl.apply({**sent, "metadata": {"name": "flowers"}})
    job = kubectl.json("get", "pytorchjob", "flowers")
    for kind, index, rank in REPLICAS:
        kubectl.apply(service(job, kind, index), pod(job, kind, index, rank, "Never"))
    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pods", "--all", "--timeout=60s")
    before = json.dumps({"status": status(condition("Created"), condition("Running"))})
    kubectl("patch", "pytorchjob/flowers", "--subresource=status", "--type=merge", f"--patch={before}")
    return uids(kubectl)


def uids(kubectl: Kubectl) -> dict[str, str]:
    found = kubectl.json("get", "pods")["items"]
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


def nodes(kubectl: Kubectl) -> str | None:
    job = kubectl.json("get", "pytorchjob", "flowers")
    found: str | None = (job.get("status") or {}).get("nodes")
    return found

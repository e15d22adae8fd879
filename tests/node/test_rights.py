"""Somebody with nothing but Kubernetes' own role edit in one namespace: what works, and what does not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.controlplane import write_kubeconfig
from support.kubectl import Kubectl
from support.nodedigits import SHORT, checkpointed, succeeded
from support.nodeteam import NodeTeam, scripted, template
from support.runs import wait_until
from trainserve.errors import EXIT_ENVIRONMENT
from trainserve.kube import names

USER = "ann"
WAITS = "import time; time.sleep(600)"


@pytest.fixture
def ann(make: Callable[..., NodeTeam], few_digits: Path) -> NodeTeam:
    """The team's namespace as this user has it."""
    team = make(few_digits)
    team.kubectl("create", "serviceaccount", USER)
    team.kubectl("create", "rolebinding", USER, "--clusterrole=edit", f"--serviceaccount={team.namespace}:{USER}")
    server = team.kubectl.json("config", "view", "--raw")["clusters"][0]["cluster"]
    path = team.folder / "ann.kubeconfig"
    authority = base64.b64decode(server["certificate-authority-data"])
    token = team.kubectl("create", "token", USER).strip()
    write_kubeconfig(path, server["server"], authority, USER, token)
    return replace(team, kubectl=Kubectl(path, team.namespace))


def test_the_role_edit_suffices_to_train_follow_and_cancel(ann: NodeTeam) -> None:
    ann.said(*ann.train("few", *SHORT), "--detach")
    run = f"k8s://{ann.namespace}/few"
    wait_until(lambda: checkpointed(ann, "few") > 0, "a checkpoint", 600)
    assert run in ann.said("list", "--namespace", ann.namespace, "-o", "name").splitlines()
    assert "rank 0 of 3" in ann.said("logs", run)
    ann.said("cancel", run)
    assert ann.state("few") == names.SUSPENDED
    assert ann.kubectl.json("get", "pods")["items"] == []
    ann.said("resume", run, "--detach")
    succeeded(ann, "few")


def test_another_namespace_is_out_of_reach_in_words(ann: NodeTeam, make: Callable[..., NodeTeam]) -> None:
    other = make()
    words = [each if each != ann.namespace else other.namespace for each in ann.train("few", *SHORT)]
    refused = ann.platform(*words, "--detach")
    assert refused.returncode == EXIT_ENVIRONMENT, refused.stderr
    for word in ("create", "pytorchjobs", other.namespace):
        assert word in refused.stderr, refused.stderr
    seen = ann.platform("status", f"k8s://{other.namespace}/few")
    assert seen.returncode == EXIT_ENVIRONMENT, seen.stderr
    assert "get" in seen.stderr, seen.stderr
    assert other.namespace in seen.stderr, seen.stderr


def test_the_operator_makes_no_pod_that_the_user_could_not(ann: NodeTeam, make: Callable[..., NodeTeam]) -> None:
    """It makes pods with rights of its own: the namespace's rules hold for those as well, and they stay in it."""
    other = make()
    mounting = template(WAITS)
    mounting["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    ann.kubectl.apply(scripted("mounting", mounting))
    rooted = template(WAITS)
    rooted["spec"]["securityContext"] = {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    ann.kubectl.apply(scripted("rooted", rooted))
    for name in ("mounting", "rooted"):
        job = ann.until(name, names.FAILED, names.PENDING)
        assert "violates PodSecurity" in str(job["status"]["conditions"]), job["status"]
    assert ann.kubectl.json("get", "pods")["items"] == []
    elsewhere = {**template(WAITS), "metadata": {"namespace": other.namespace, "name": "elsewhere"}}
    tried = ann.kubectl.run("apply", "-f", "-", stdin=json.dumps(scripted("elsewhere", elsewhere)))
    if tried.returncode == 0:
        ann.until("elsewhere", names.RUNNING, names.PENDING, names.FAILED)
    assert other.kubectl.json("get", "pods")["items"] == []

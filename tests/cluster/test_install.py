"""Installing for real: helm install, upgrade, test, uninstall, and kubectl apply -k, on a control plane of their own.

Pods are simulated; the installed command runs beside them, under the installed account (support/installed.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.helm import OPERATOR_CHART, RELEASE, ROOT, helm, rendered
from support.installed import InstalledOperator, as_account, words_of
from support.kubectl import Kubectl, as_text
from support.runs import wait_until
from support.scenario import pytorchjob
from support.testserver import OwnServer, Server
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.crd import CRD_NAME

SYSTEM = names.OPERATOR_NAMESPACE
TEAM = "team"
USER = "--as=alice"  # with the role edit in TEAM, and nothing else
OVERLAY = ROOT / "manifests/overlays/default"
DEPLOYMENT = f"deployment/{names.OPERATOR_ACCOUNT}"
HERE = f"--namespace={SYSTEM}"
EXAMPLES = sorted((OPERATOR_CHART / "ci").glob("*-values.yaml"))


@pytest.fixture
def server(own_server: OwnServer) -> Server:
    return own_server.server


@pytest.fixture
def admin(server: Server) -> Iterator[Kubectl]:
    """kubectl as administrator of a cluster without the kind; a namespace for restricted pods, and one of a team."""
    kubectl = Kubectl(server.kubeconfig)
    kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")
    kubectl("label", "nodes", "--all", "--overwrite", "kubernetes.io/os=linux")
    for namespace in (SYSTEM, TEAM):
        kubectl("create", "namespace", namespace)
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={namespace}", "--timeout=30s")
    kubectl("create", "rolebinding", "alice", "--clusterrole=edit", "--user=alice", f"--namespace={TEAM}")
    yield kubectl
    helm("uninstall", RELEASE, HERE, "--ignore-not-found", kubeconfig=server.kubeconfig)
    kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")
    kubectl("delete", "namespace", SYSTEM, TEAM, "--ignore-not-found")
    kubectl("delete", "clusterrole,clusterrolebinding", f"--selector={names.LABEL_PART_OF}={names.PART_OF}")


Helm = Callable[..., str]


@pytest.fixture
def helmed(server: Server, admin: Kubectl) -> Helm:
    """`helmed("install", RELEASE, OPERATOR_CHART)` in SYSTEM: what it prints, or the test's failure."""

    def run(verb: str, *words: object, namespace: str = SYSTEM) -> str:
        wait = ("--wait", "--timeout=60s") if verb in {"install", "upgrade"} else ()
        done = helm(verb, *words, f"--namespace={namespace}", *wait, kubeconfig=server.kubeconfig)
        assert done.returncode == 0, f"helm {verb}: {done.stderr}"
        return done.stdout

    return run


def restricted_job(name: str = "flowers") -> Manifest:
    """Two pods that a restricted namespace takes."""
    job = pytorchjob(name, workers=1)
    job["metadata"].pop("namespace", None)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        spec = replica["template"]["spec"]
        spec["securityContext"] = {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        for container in spec["containers"]:
            container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return job


def job_state(kubectl: Kubectl) -> str:
    found = kubectl.json("get", "pytorchjob/flowers", f"--namespace={TEAM}").get("status") or {}
    return str((found.get("conditions") or [{"type": ""}])[-1]["type"])


def begin_job(kubectl: Kubectl) -> None:
    """A user of the team starts it; the roles of people are aggregated within seconds."""
    text = as_text(restricted_job())
    words = ("create", "-f", "-", USER, f"--namespace={TEAM}")
    wait_until(lambda: kubectl.run(*words, stdin=text).returncode == 0, "alice may create the job", 20)
    wait_until(lambda: job_state(kubectl) == "Running", "the job runs", 120)


def uids(kubectl: Kubectl) -> dict[str, str]:
    """Of the team's job, its pods and services, and of the kind."""
    found = kubectl.json("get", "pytorchjobs,pods,services", f"--namespace={TEAM}")["items"]
    found.append(kubectl.json("get", "crd", CRD_NAME))
    return {f"{each['kind']} {each['metadata']['name']}": each["metadata"]["uid"] for each in found}


def changed_chart(folder: Path) -> Path:
    """A later version of the chart, whose kind has another text in it."""
    later = folder / "platform-operator"
    shutil.copytree(OPERATOR_CHART, later)
    chart = yaml.safe_load((later / "Chart.yaml").read_text())
    (later / "Chart.yaml").write_text(yaml.safe_dump({**chart, "version": "0.2.0", "appVersion": "0.2.0"}))
    crd = later / f"files/{names.PYTORCHJOB.group}_{names.PYTORCHJOB.plural}.yaml"
    text = crd.read_text()
    assert "Restarts before the job fails." in text
    crd.write_text(text.replace("Restarts before the job fails.", "Restarts, and then the job fails."))
    return later


def test_jobs_and_kind_outlive_upgrade_and_uninstall(admin: Kubectl, helmed: Helm, tmp_path: Path) -> None:
    said = helmed("install", RELEASE, OPERATOR_CHART)
    assert f"helm test {RELEASE}" in said
    deployment = admin.json("get", DEPLOYMENT, HERE)
    assert deployment["status"]["readyReplicas"] == 2
    with InstalledOperator(admin, tmp_path, SYSTEM):
        begin_job(admin)
        before = uids(admin)
        assert len(before) == 6  # job, two pods, two services, kind

        helmed("upgrade", RELEASE, changed_chart(tmp_path), "--set=workers=9")
        upgraded = admin.json("get", DEPLOYMENT, HERE)
        assert upgraded["metadata"]["uid"] == deployment["metadata"]["uid"]
        (container,) = upgraded["spec"]["template"]["spec"]["containers"]
        assert container["image"].endswith(":0.2.0")
        assert "--workers=9" in container["args"]
        assert "Restarts, and then" in admin("explain", "pytorchjob.spec.runPolicy")
        assert uids(admin) == before
        assert job_state(admin) == "Running"

        helmed("uninstall", RELEASE)
        assert (
            admin.json("get", "deployments,services,roles,serviceaccounts", HERE, "-l", "app.kubernetes.io/part-of")[
                "items"
            ]
            == []
        )
        assert uids(admin) == before

    helmed("install", RELEASE, OPERATOR_CHART)  # takes the kind back
    assert uids(admin) == before
    with InstalledOperator(admin, tmp_path, SYSTEM):
        assert job_state(admin) == "Running"
        admin("delete", "pytorchjob/flowers", USER, f"--namespace={TEAM}")
        wait_until(lambda: len(uids(admin)) == 1, "pods and services are gone", 120)


def test_turning_the_kind_off_keeps_it_and_keep_false_does_not(admin: Kubectl, helmed: Helm) -> None:
    helmed("install", RELEASE, OPERATOR_CHART)
    admin("create", "-f", "-", f"--namespace={TEAM}", stdin=as_text(restricted_job()))
    before = uids(admin)
    alone = "replicas=1,leaderElection.enabled=false"  # and from a rolling update to one after the other
    helmed("upgrade", RELEASE, OPERATOR_CHART, f"--set=crds.enabled=false,{alone}")
    assert admin.json("get", DEPLOYMENT, HERE)["spec"]["strategy"] == {"type": "Recreate"}
    assert uids(admin) == before
    helmed("upgrade", RELEASE, OPERATOR_CHART, "--set=crds.enabled=true,crds.keep=false")
    assert uids(admin) == before
    helmed("uninstall", RELEASE)
    gone = admin.run("get", "crd", CRD_NAME)
    assert "NotFound" in gone.stderr


def test_a_second_operator_for_the_same_jobs_is_refused(server: Server, admin: Kubectl, helmed: Helm) -> None:
    helmed("install", RELEASE, OPERATOR_CHART)
    second = helm("install", "another", OPERATOR_CHART, f"--namespace={TEAM}", kubeconfig=server.kubeconfig)
    assert second.returncode != 0
    assert "cannot be imported into the current release" in second.stderr
    again = helm("install", "another", OPERATOR_CHART, HERE, kubeconfig=server.kubeconfig)
    assert again.returncode != 0
    one_of_a_team = "--set=watchNamespaces={team},crds.enabled=false,rbac.people=false"
    helmed("install", "of-a-team", OPERATOR_CHART, one_of_a_team, namespace=TEAM)
    helmed("uninstall", "of-a-team", namespace=TEAM)


def test_one_for_some_namespaces_works_there_and_may_nothing_elsewhere(
    admin: Kubectl, helmed: Helm, tmp_path: Path
) -> None:
    helmed("install", RELEASE, OPERATOR_CHART, "--set=watchNamespaces={team}")
    account = f"--as=system:serviceaccount:{SYSTEM}:{names.OPERATOR_ACCOUNT}"

    def may(verb: str, resource: str, *where: str) -> bool:
        return admin.run("auth", "can-i", verb, resource, account, *where).returncode == 0

    assert may("create", "pods", f"--namespace={TEAM}")
    assert may("patch", "pytorchjobs.kubeflow.org", "--subresource=status", f"--namespace={TEAM}")
    assert not may("get", "pods", "--subresource=proxy", f"--namespace={TEAM}")
    assert not may("list", "pytorchjobs.kubeflow.org", "--namespace=default")
    assert not may("list", "nodes")
    assert not may("get", "secrets", f"--namespace={TEAM}")
    with InstalledOperator(admin, tmp_path, SYSTEM):
        begin_job(admin)


def test_kubectl_apply_over_a_release_changes_nothing(admin: Kubectl, server: Server, helmed: Helm) -> None:
    helmed("install", RELEASE, OPERATOR_CHART)
    before = admin.json("get", DEPLOYMENT, HERE)["spec"]
    pods = uids_of_pods(admin)
    admin("apply", "-k", OVERLAY)
    admin("apply", "--server-side", "-k", OVERLAY)  # without --force-conflicts: every value is the same
    assert admin.json("get", DEPLOYMENT, HERE)["spec"] == before
    assert uids_of_pods(admin) == pods

    # From then on two own the fields: a change says so, and takes them over where that is wanted.
    words = ("upgrade", RELEASE, OPERATOR_CHART, HERE, "--set=workers=9")
    refused = helm(*words, kubeconfig=server.kubeconfig)
    assert 'conflict with "kubectl"' in refused.stderr
    helmed("upgrade", RELEASE, OPERATOR_CHART, "--set=workers=9", "--force-conflicts")
    assert "--workers=9" in str(admin.json("get", DEPLOYMENT, HERE)["spec"])


def uids_of_pods(kubectl: Kubectl) -> set[str]:
    return {each["metadata"]["uid"] for each in kubectl.json("get", "pods", HERE)["items"]}


def test_kubectl_alone_and_then_helm(admin: Kubectl, helmed: Helm, tmp_path: Path) -> None:
    admin("delete", "namespace", SYSTEM)
    admin("apply", "-k", OVERLAY)
    admin("rollout", "status", DEPLOYMENT, HERE, "--timeout=60s")
    namespace = admin.json("get", "namespace", SYSTEM)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    with InstalledOperator(admin, tmp_path, SYSTEM):
        begin_job(admin)
        before = uids(admin)
        helmed("install", RELEASE, OPERATOR_CHART, "--take-ownership")
        assert uids(admin) == before
        assert admin.json("get", DEPLOYMENT, HERE)["status"]["readyReplicas"] == 2
    said = admin("apply", "-k", OVERLAY)
    assert "created" not in said


def operators(kubectl: Kubectl) -> list[Manifest]:
    """The operators' pods."""
    found: list[Manifest] = kubectl.json("get", "pods", HERE, "-l", f"{names.LABEL_NAME}={names.OPERATOR_ACCOUNT}")[
        "items"
    ]
    return found


def test_k8s_02_a_drain_takes_one_at_a_time_and_also_the_last(admin: Kubectl, helmed: Helm) -> None:
    helmed("install", RELEASE, OPERATOR_CHART)
    pods = operators(admin)
    assert len({each["spec"]["nodeName"] for each in pods}) == 2  # spread
    budget = admin.json("get", f"poddisruptionbudget/{names.OPERATOR_ACCOUNT}", HERE)
    assert budget["status"]["disruptionsAllowed"] == 1
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    for node in nodes:
        admin("drain", node, "--timeout=60s")
    admin("rollout", "status", DEPLOYMENT, HERE, "--timeout=60s")
    admin("uncordon", *nodes)

    helmed("upgrade", RELEASE, OPERATOR_CHART, "--set=replicas=1")
    wait_until(lambda: len(operators(admin)) == 1, "one operator is left", 120)
    (last,) = operators(admin)
    admin("drain", last["spec"]["nodeName"], "--timeout=60s")
    admin("uncordon", last["spec"]["nodeName"])


class HelmTest:
    """`helm test` while its simulated pod's command runs here."""

    def __init__(self, kubectl: Kubectl, server: Server, folder: Path) -> None:
        self._kubectl = kubectl
        self._server = server
        self._folder = folder

    def __call__(self, url: str) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
        """What the pod's command gave with the operator at `url`, and what helm made of it."""
        with ThreadPoolExecutor(1) as one:
            test = one.submit(helm, "test", RELEASE, HERE, "--timeout=60s", kubeconfig=self._server.kubeconfig)
            wait_until(lambda: self._phase() == "Running", "the pod of helm test runs", 120)
            ran = self._run(url)
            phase = "Failed" if ran.returncode else "Succeeded"
            patch = json.dumps({"status": {"phase": phase}})
            name = f"pod/{names.OPERATOR_ACCOUNT}-test"
            self._kubectl("patch", name, HERE, "--subresource=status", "--type=merge", "-p", patch)
            return ran, test.result()

    def _phase(self) -> str:
        return self._kubectl.run(
            "get", f"pod/{names.OPERATOR_ACCOUNT}-test", HERE, "-o=jsonpath={.status.phase}"
        ).stdout

    def _run(self, url: str) -> subprocess.CompletedProcess[str]:
        pod: dict[str, Any] = self._kubectl.json("get", f"pod/{names.OPERATOR_ACCOUNT}-test", HERE)["spec"]
        (container,) = pod["containers"]
        assert f"--url=http://{names.OPERATOR_ACCOUNT}.{SYSTEM}.svc:8080" in container["args"]
        account = as_account(self._kubectl, self._folder, pod["serviceAccountName"], SYSTEM)
        words = [*words_of(container), "--url", url, "--kubeconfig", account]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def test_helm_test(admin: Kubectl, server: Server, helmed: Helm, tmp_path: Path) -> None:
    helmed("install", RELEASE, OPERATOR_CHART)
    pod = HelmTest(admin, server, tmp_path)
    with InstalledOperator(admin, tmp_path, SYSTEM) as operator:
        ran, test = pod(operator.url)
        assert ran.returncode == 0, ran.stderr
        assert f"takes PyTorchJobs in namespace {SYSTEM}" in ran.stdout
        assert test.returncode == 0, test.stderr
        url = operator.url
    ran, test = pod(url)  # it is gone
    assert ran.returncode == 3
    assert "/readyz does not answer" in ran.stderr
    assert test.returncode != 0
    left = admin.json("get", "serviceaccounts,roles,rolebindings,pytorchjobs", HERE)["items"]
    assert [each["metadata"]["name"] for each in left if "-test" in each["metadata"]["name"]] == []


def test_the_api_server_takes_every_rendering(admin: Kubectl) -> None:
    """Strictly, and with no warning of Pod Security; kinds of Prometheus' operator are not served here."""
    admin("label", "namespace", SYSTEM, "pod-security.kubernetes.io/warn=restricted")
    admin("create", "serviceaccount", f"{names.OPERATOR_ACCOUNT}-test", HERE)  # of the pod that is tried out
    admin("create", "namespace", "team-a")
    admin("create", "namespace", "team-b")
    for path in EXAMPLES:
        manifests = rendered(yaml.safe_load(path.read_text()))
        known = [each for each in manifests if not each["apiVersion"].startswith("monitoring.coreos.com")]
        assert "Pod" in {each["kind"] for each in known}
        done = admin.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=as_text(*known))
        refused = [line for line in done.stderr.splitlines() if "AlreadyExists" not in line]
        assert refused == [], path.name
    admin("delete", "namespace", "team-a", "team-b", "--wait=false")

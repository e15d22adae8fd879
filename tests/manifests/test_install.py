"""`kubectl apply -k manifests/overlays/default` and the chart install the same; both are what the types say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.helm import OPERATOR_CHART, ROOT, by_key, kustomized, named, rendered
from support.schemas import problems, unsafe
from trainserve.cli import manifests
from trainserve.kube import names, rbac
from trainserve.kube.cluster import Manifest
from trainserve.kube.crd import CRD_NAME, pytorchjob_crd

pytestmark = pytest.mark.slow  # each starts helm
MANIFESTS = ROOT / "manifests"
# What Helm alone sets, of releases and of its own rules.
OF_HELM = ("app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")
KEEP = "helm.sh/resource-policy"
NAMESPACE = ("Namespace", "", names.OPERATOR_NAMESPACE)
Key = tuple[str, str, str]


def without_helm(chart: list[Manifest]) -> dict[Key, Manifest]:
    """Without labels and annotations that only Helm sets, and without its tests."""
    found: dict[Key, Manifest] = {}
    for key, manifest in by_key(json.loads(json.dumps(chart))).items():
        metadata = manifest["metadata"]
        annotations = metadata.get("annotations") or {}
        if "helm.sh/hook" in annotations:
            continue
        metadata["labels"] = {name: value for name, value in metadata["labels"].items() if name not in OF_HELM}
        if annotations.pop(KEEP, None) and not annotations:
            del metadata["annotations"]
        found[key] = manifest
    return found


def same(chart: list[Manifest], kustomize: list[Manifest]) -> None:
    """Object by object, so that what differs is shown; the namespace is made by `helm install --create-namespace`."""
    ours, theirs = without_helm(chart), by_key(kustomize)
    theirs.pop(NAMESPACE)
    assert sorted(ours) == sorted(theirs)
    for key, manifest in ours.items():
        assert manifest == theirs[key], key


def overlay(folder: Path, *components: str, **more: Any) -> list[Manifest]:
    """Overlay default with components, in a folder of the test."""
    near = folder.resolve()
    up = "/".join([".."] * (len(near.parts) - 1))
    found = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{up}{MANIFESTS}/overlays/default"],
        "components": [f"{up}{MANIFESTS}/components/{each}" for each in components],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(found))
    return kustomized(folder)


def test_the_default_overlay_is_the_chart_with_its_defaults() -> None:
    same(rendered(), kustomized(MANIFESTS / "overlays/default"))


def test_components_are_the_charts_switches(tmp_path: Path) -> None:
    switches = {part: {"enabled": True} for part in ("networkPolicy", "serviceMonitor", "podMonitor")}
    switches |= {part: {"enabled": True} for part in ("prometheusRule", "dashboards")}
    same(rendered(switches), overlay(tmp_path, "network-policy", "prometheus"))


def test_a_digest_a_namespace_and_a_number_of_ones_own(tmp_path: Path) -> None:
    digest = f"sha256:{'a' * 64}"
    found = overlay(
        tmp_path,
        namespace="elsewhere",
        images=[{"name": "ghcr.io/trainserve/operator", "digest": digest}],
        replicas=[{"name": names.OPERATOR_ACCOUNT, "count": 3}],
    )
    deployment = named(found, "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"ghcr.io/trainserve/operator@{digest}"
    assert deployment["spec"]["replicas"] == 3
    subjects = {each["subjects"][0]["namespace"] for each in found if each["kind"].endswith("Binding")}
    assert subjects == {"elsewhere"}


def test_the_overlay_for_one_machine() -> None:
    found = by_key(kustomized(MANIFESTS / "overlays/dev"))
    whole = by_key(kustomized(MANIFESTS / "overlays/default"))
    assert sorted(found) == sorted(whole)
    differing = [key for key in found if found[key] != whole[key]]
    assert differing == [("Deployment", names.OPERATOR_NAMESPACE, names.OPERATOR_ACCOUNT)]
    deployment = found[differing[0]]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["replicas"] == 1
    assert container["image"] == "localhost/trainserve/operator:dev"
    assert container["imagePullPolicy"] == "Never"
    assert {"--log-format=text", "--log-level=debug"} <= set(container["args"])
    assert not {"--log-format=json", "--log-level=info"} & set(container["args"])


@pytest.mark.parametrize("name", ["base", "overlays/default", "overlays/dev", "base/rbac/namespaced", "base/crds"])
def test_k8s_06_every_field_is_known_and_every_pod_restricted(name: str) -> None:
    found = kustomized(MANIFESTS / name)
    assert [problem for each in found for problem in problems(each)] == []
    pods = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment"]
    assert [problem for pod in pods for problem in unsafe(pod)] == []


def test_the_namespace_takes_restricted_pods_only() -> None:
    namespace = by_key(kustomized(MANIFESTS / "overlays/default"))[NAMESPACE]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_image_follows_the_version() -> None:
    deployment = named(kustomized(MANIFESTS / "overlays/default"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    wanted = names.image_for(names.IMAGE_OPERATOR)
    assert container["image"] == wanted, f"manifests/base/operator/deployment.yaml: the image must be {wanted}"


def roles(manifests: list[Manifest]) -> dict[Key, Manifest]:
    kinds = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"}
    return {key: each for key, each in without_helm(manifests).items() if key[0] in kinds}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, rbac.manifests()),
        ({"progress": "proxy"}, [*rbac.manifests(), *rbac.progress_proxy()]),
        ({"watchNamespaces": ["a", "b"]}, rbac.manifests(job_namespaces=["a", "b"])),
        ({"rbac": {"people": False}}, [each for each in rbac.manifests() if each not in rbac.people()]),
    ],
)
def test_the_chart_gives_what_the_table_of_calls_says(values: dict[str, Any], wanted: list[Manifest]) -> None:
    assert roles(rendered(values)) == by_key(wanted)


def test_a_chart_for_some_namespaces_gives_nothing_of_the_cluster() -> None:
    """But roles of people, which give nothing by themselves."""
    found = rendered({"watchNamespaces": ["a"], "progress": "proxy"})
    assert {key[2] for key in roles(found) if key[0].startswith("Cluster")} == {"trainserve-edit", "trainserve-view"}
    proxy = [key for key in roles(found) if "proxy" in key[2]]
    assert {key[1] for key in proxy} == {"a"}
    rules = named(found, "Role", f"{names.OPERATOR_ACCOUNT}-progress-proxy")["rules"]
    assert rules == [grant.rule() for grant in rbac.PROGRESS_PROXY]


def test_without_an_election_there_is_no_right_to_leases() -> None:
    values = {"replicas": 1, "leaderElection": {"enabled": False}}
    leases = [each for each in roles(rendered(values)).values() if "coordination.k8s.io" in json.dumps(each)]
    assert [each["kind"] for each in leases] == ["ClusterRole"]  # looking for Kubeflow's
    assert leases[0]["rules"] == named(rendered(), "ClusterRole")["rules"]


def test_the_kind_is_the_one_of_the_types() -> None:
    crd = named(rendered(), names.CRD.kind, CRD_NAME)
    assert without_helm([crd]) == by_key([pytorchjob_crd()])


def test_what_the_chart_reads_is_what_is_generated() -> None:
    wanted = manifests.chart_files()
    assert {path: (OPERATOR_CHART / path).read_text() for path in wanted} == wanted, "run `make generate`"


def test_readmes_and_components_are_what_is_generated() -> None:
    spec = importlib.util.spec_from_file_location("helm_generate", ROOT / "helm/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = generate  # dataclasses look their module up
    spec.loader.exec_module(generate)
    for path, text in generate.files().items():
        assert path.read_text() == text, f"{path}: run `make generate`"
    component = MANIFESTS / "components/prometheus"
    assert {path.name for path in component.iterdir()} == {*generate.component(), "monitors.yaml"}

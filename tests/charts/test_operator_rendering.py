"""What the operator's chart renders: whole objects, valid, safe, and the same whatever does not concern them."""

from __future__ import annotations

import copy
import itertools
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.golden import check_golden
from support.helm import OPERATOR_CHART, helm, named, rendered
from support.schemas import problems, unsafe
from trainserve import __version__
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.crd import CRD_NAME

pytestmark = pytest.mark.slow  # each starts helm
CRD = "CustomResourceDefinition"
EXAMPLES = {path.stem.removesuffix("-values"): path for path in sorted((OPERATOR_CHART / "ci").glob("*-values.yaml"))}
CASES: dict[str, dict[str, Any]] = {"default": {}} | {
    name: yaml.safe_load(path.read_text()) for name, path in EXAMPLES.items()
}
# Every switch, and what else changes which objects there are or how pods are made.
SWITCHES: dict[str, tuple[Any, ...]] = {
    "crds.enabled": (True, False),
    "crds.keep": (True, False),
    "rbac.create": (True, False),
    "rbac.people": (True, False),
    "serviceAccount.create": (True, False),
    "podDisruptionBudget.enabled": (True, False),
    "networkPolicy.enabled": (True, False),
    "networkPolicy.egress.enabled": (True, False),
    "networkPolicy.metricsFrom": ([], [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]),
    "metrics.service.enabled": (True, False),
    "serviceMonitor.enabled": (False, True),
    "podMonitor.enabled": (False, True),
    "prometheusRule.enabled": (False, True),
    "dashboards.enabled": (False, True),
    "leaderElection.enabled": (True, False),
    "watchNamespaces": ([], ["team-a", "team-b"]),
    "progress": ("pod-ip", "proxy", "none"),
    "topologySpreadConstraints": (None, []),
    "commonLabels": ({}, {"team": "ml"}),
    "extraArgs": ([], ["--workers=3"]),
}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"crds.keep": True} as the tree that Helm takes; None is left out."""
    found: dict[str, Any] = {}
    for path, value in flat.items():
        if value is None:
            continue
        *above, last = path.split(".")
        at = found
        for part in above:
            at = at.setdefault(part, {})
        at[last] = value
    return found


def pairwise(switches: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Few choices of all switches such that any two values of any two switches come together in one of them."""
    every = [[(path, choice) for choice in range(len(values))] for path, values in switches.items()]
    left = {
        frozenset(pair) for one, other in itertools.combinations(every, 2) for pair in itertools.product(one, other)
    }
    while left:
        chosen = dict(min(left, key=sorted))
        for choices in every:
            path = choices[0][0]
            if path not in chosen:
                gains = [sum(frozenset({choice, other}) in left for other in chosen.items()) for choice in choices]
                chosen[path] = gains.index(max(gains))
        left = {pair for pair in left if not pair <= chosen.items()}
        yield {path: values[chosen[path]] for path, values in switches.items()}


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """The specs of all pods that come of these objects."""
    found = [each["spec"] for each in manifests if each["kind"] == "Pod"]
    return found + [each["spec"]["template"]["spec"] for each in manifests if each["kind"] == "Deployment"]


def wrong(manifests: list[Manifest]) -> list[str]:
    found = [problem for each in manifests for problem in problems(each)]
    return found + [problem for spec in pods(manifests) for problem in unsafe(spec)]


@pytest.mark.parametrize("case", CASES)
def test_the_whole_of_what_is_rendered(case: str, update_golden: bool) -> None:
    """But what is generated: other tests compare that with its source."""
    manifests = [each for each in rendered(CASES[case]) if each["kind"] != CRD]
    for manifest in manifests:
        if manifest["kind"] in {"Role", "ClusterRole"} and not manifest["metadata"]["name"].endswith("-test"):
            manifest["rules"] = "of files/rules.yaml"
        elif manifest["kind"] == "PrometheusRule":
            manifest["spec"]["groups"] = "of rules/"
        elif manifest["kind"] == "ConfigMap":
            manifest["data"] = dict.fromkeys(manifest["data"], "of dashboards/")
    check_golden(f"chart-operator-{case}", manifests, update=update_golden)


@pytest.mark.parametrize("case", CASES)
def test_k8s_06_every_field_is_known_and_every_pod_restricted(case: str) -> None:
    assert wrong(rendered(CASES[case])) == []


@pytest.mark.parametrize("case", CASES)
def test_helm_lint_says_nothing(case: str) -> None:
    words = [f"--values={EXAMPLES[case]}"] if case in EXAMPLES else []
    done = helm("lint", "--strict", OPERATOR_CHART, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def test_k8s_06_any_two_switches_together_are_valid() -> None:
    seen = 0
    for chosen in pairwise(SWITCHES):
        values = nested(chosen)
        if not chosen["leaderElection.enabled"]:
            values["replicas"] = 1
        if not chosen["metrics.service.enabled"]:
            values["serviceMonitor"]["enabled"] = False  # refused together
        assert wrong(rendered(values)) == [], values
        seen += 1
    assert 5 < seen < 60


def test_a_drain_needs_no_flag() -> None:
    """kubectl drain and autoscalers leave pods with local storage where they are."""
    spec = named(rendered(), "Deployment")["spec"]["template"]["spec"]
    assert not [volume for volume in spec.get("volumes", []) if {"emptyDir", "hostPath"} & set(volume)]


def test_an_unknown_field_is_told() -> None:
    """Refused is what the schemas are there for: a strategy inside the pod, a misspelt key, a kind of no schema."""
    deployment = named(rendered(), "Deployment")
    misplaced = copy.deepcopy(deployment)
    misplaced["spec"]["template"]["spec"]["strategy"] = misplaced["spec"].pop("strategy")
    assert any("strategy" in problem for problem in problems(misplaced))
    misspelt = copy.deepcopy(deployment)
    misspelt["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    assert any("readynessProbe" in problem for problem in problems(misspelt))
    assert problems({**deployment, "apiVersion": "apps/v1beta1"})


def test_what_is_not_restricted_is_told() -> None:
    spec = named(rendered(), "Deployment")["spec"]["template"]["spec"]
    assert unsafe(spec) == []
    for change in (
        {"securityContext": {}},
        {"hostNetwork": True},
        {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {"containers": [{**spec["containers"][0], "securityContext": {}}]},
    ):
        assert unsafe({**spec, **change}), change


def selectors(manifests: list[Manifest]) -> dict[str, Any]:
    """Everything that selects the operators, by object."""
    found = {}
    for manifest in manifests:
        spec = manifest.get("spec") or {}
        at = {"Deployment": "selector", "Service": "selector", "PodDisruptionBudget": "selector"}
        at |= {"NetworkPolicy": "podSelector", "ServiceMonitor": "selector", "PodMonitor": "selector"}
        if manifest["kind"] in at:
            found[f"{manifest['kind']} {manifest['metadata']['name']}"] = spec[at[manifest["kind"]]]
    return found


def test_k8s_03_no_version_label_or_release_changes_a_selector(tmp_path: Path) -> None:
    values = {"networkPolicy": {"enabled": True}, "serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}
    before = rendered(values)
    later = tmp_path / "platform-operator"
    shutil.copytree(OPERATOR_CHART, later)
    chart = yaml.safe_load((later / "Chart.yaml").read_text())
    (later / "Chart.yaml").write_text(yaml.safe_dump({**chart, "version": "9.8.7+b1", "appVersion": "7.6.5+cu124"}))
    more = {"image": {"tag": "3.2.1"}, "commonLabels": {"version": "x"}, "podLabels": {"build": "17"}}
    after = rendered({**values, **more}, chart=later, release="another")
    assert selectors(after) == selectors(before)
    assert len(selectors(before)) == 6
    assert "9.8.7" not in str(selectors(after))
    labels = named(after, "Deployment")["metadata"]["labels"]
    assert labels["helm.sh/chart"] == "platform-operator-9.8.7_b1"
    assert labels["app.kubernetes.io/version"] == "7.6.5-cu124"
    selected = named(after, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert selectors(after)["Deployment trainserve-operator"]["matchLabels"].items() <= selected.items()
    tests = named(after, "Pod", "trainserve-operator-test")["metadata"]["labels"]
    assert not selectors(after)["Service trainserve-operator"].items() <= tests.items()


def test_what_is_packaged_renders_the_same(tmp_path: Path) -> None:
    done = helm("package", OPERATOR_CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    assert rendered(CASES["monitoring"], chart=archive) == rendered(CASES["monitoring"])
    with tarfile.open(archive) as package:
        inside = {name.split("/", 1)[1] for name in package.getnames()}
    assert "README.md" in inside
    assert not [name for name in inside if name.startswith(("ci/", ".", "README.md.in"))]


def test_k8s_04_pods_are_rolled_by_what_concerns_them_only() -> None:
    def template(values: dict[str, Any]) -> Any:
        return named(rendered(values), "Deployment")["spec"]["template"]

    assert template({"workers": 9}) != template({})
    assert template({"metrics": {"service": {"annotations": {"a": "b"}}}, "replicas": 3}) == template({})


def test_the_image_follows_the_version() -> None:
    chart = yaml.safe_load((OPERATOR_CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__, "Chart.yaml: appVersion is not the version of platform/trainserve"
    (container,) = named(rendered(), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == names.image_for(names.IMAGE_OPERATOR)


def test_the_kind_is_there_and_kept_by_choice() -> None:
    kept = {"helm.sh/resource-policy": "keep"}
    assert named(rendered(), CRD, CRD_NAME)["metadata"]["annotations"] == kept
    assert "annotations" not in named(rendered({"crds": {"keep": False}}), CRD, CRD_NAME)["metadata"]
    assert CRD not in {each["kind"] for each in rendered({"crds": {"enabled": False}})}

"""The values of the operator's chart: all of them used, described and checked; what cannot be is refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from support.helm import OPERATOR_CHART, RELEASE, helm, named, objects, refused, rendered, template
from support.schemas import problems
from trainserve.cli.operator import run_command
from trainserve.kube import names

pytestmark = pytest.mark.slow  # each starts helm
SCHEMA = json.loads((OPERATOR_CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((OPERATOR_CHART / "values.yaml").read_text())
# Another value for each, and what must be set for it to have an effect.
PEER = {"podSelector": {"matchLabels": {"a": "b"}}}
POLICY = {"networkPolicy": {"enabled": True}}
EGRESS = {"networkPolicy": {"enabled": True, "egress": {"enabled": True}}}
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "image.repository": ("registry.example.com/operator", {}),
    "image.tag": ("1.2.3", {}),
    "image.digest": (f"sha256:{'0' * 64}", {}),
    "image.pullPolicy": ("Always", {}),
    "image.pullSecrets": (["registry"], {}),
    "replicas": (3, {}),
    "leaderElection.enabled": (False, {"replicas": 1}),
    "leaderElection.leaseDuration": ("16s", {}),
    "leaderElection.renewDeadline": ("11s", {}),
    "leaderElection.retryPeriod": ("3s", {}),
    "watchNamespaces": (["team"], {}),
    "workers": (9, {}),
    "resync": ("1h30m", {}),
    "progress": ("none", {}),
    "gang": ("volcano", {}),
    "log.format": ("text", {}),
    "log.level": ("debug", {}),
    "resources": ({"limits": {"cpu": 1}}, {}),
    "crds.enabled": (False, {}),
    "crds.keep": (False, {}),
    "rbac.create": (False, {}),
    "rbac.people": (False, {}),
    "serviceAccount.create": (False, {}),
    "serviceAccount.name": ("another", {}),
    "serviceAccount.annotations": ({"a": "b"}, {}),
    "podDisruptionBudget.enabled": (False, {}),
    "podDisruptionBudget.maxUnavailable": (2, {}),
    "metrics.host": ("::", {}),
    "metrics.port": (9090, {}),
    "metrics.service.enabled": (False, {}),
    "metrics.service.annotations": ({"a": "b"}, {}),
    "networkPolicy.enabled": (True, {}),
    "networkPolicy.metricsFrom": ([PEER], POLICY),
    "networkPolicy.egress.enabled": (True, POLICY),
    "networkPolicy.egress.apiServerPorts": ([6444], EGRESS),
    "networkPolicy.egress.progressPorts": ([1234], EGRESS),
    "serviceMonitor.enabled": (True, {}),
    "serviceMonitor.labels": ({"a": "b"}, {"serviceMonitor": {"enabled": True}}),
    "serviceMonitor.interval": ("5s", {"serviceMonitor": {"enabled": True}}),
    "serviceMonitor.scrapeTimeout": ("5s", {"serviceMonitor": {"enabled": True}}),
    "podMonitor.enabled": (True, {}),
    "podMonitor.labels": ({"a": "b"}, {"podMonitor": {"enabled": True}}),
    "podMonitor.interval": ("5s", {"podMonitor": {"enabled": True}}),
    "podMonitor.scrapeTimeout": ("5s", {"podMonitor": {"enabled": True}}),
    "prometheusRule.enabled": (True, {}),
    "prometheusRule.labels": ({"a": "b"}, {"prometheusRule": {"enabled": True}}),
    "dashboards.enabled": (True, {}),
    "dashboards.labels": ({"a": "b"}, {"dashboards": {"enabled": True}}),
    "dashboards.annotations": ({"a": "b"}, {"dashboards": {"enabled": True}}),
    "nodeSelector": ({"a": "b"}, {}),
    "tolerations": ([{"operator": "Exists"}], {}),
    "affinity": ({"nodeAffinity": {}}, {}),
    "topologySpreadConstraints": ([], {}),
    "priorityClassName": ("high", {}),
    "extraEnv": ([{"name": "A", "value": "b"}], {}),
    "extraArgs": (["--workers=3"], {}),
    "extraVolumes": ([{"name": "a", "emptyDir": {}}], {}),
    "extraVolumeMounts": ([{"name": "a", "mountPath": "/a"}], {}),
    "commonLabels": ({"a": "b"}, {}),
    "podLabels": ({"a": "b"}, {}),
    "podAnnotations": ({"a": "b"}, {}),
}
TEXTS = [  # maps whose values must be text
    *("commonLabels", "dashboards.annotations", "dashboards.labels", "metrics.service.annotations", "nodeSelector"),
    *("podAnnotations", "podLabels", "podMonitor.labels", "prometheusRule.labels", "serviceAccount.annotations"),
    "serviceMonitor.labels",
]


def merged(path: str, value: Any, base: dict[str, Any]) -> dict[str, Any]:
    """`base` with the value at a path in dots."""
    found: dict[str, Any] = json.loads(json.dumps(base))
    *above, last = path.split(".")
    at = found
    for part in above:
        at = at.setdefault(part, {})
    at[last] = value
    return found


def leaves(schema: dict[str, Any], defaults: Any, path: str = "") -> Iterator[str]:
    """Paths of the schema, down to where a default is no map, or a map of any keys."""
    for name, inner in schema["properties"].items():
        if path == "" and name == "global":
            continue
        below = f"{path}.{name}".lstrip(".")
        if "properties" in inner and below not in OTHERS:
            yield from leaves(inner, defaults[name], below)
        else:
            yield below


def default_paths(value: Any, path: str = "") -> Iterator[str]:
    for name, inner in value.items():
        below = f"{path}.{name}".lstrip(".")
        if isinstance(inner, dict) and below not in OTHERS:
            yield from default_paths(inner, below)
        else:
            yield below


def test_schema_defaults_and_this_file_have_the_same_values() -> None:
    assert sorted(leaves(SCHEMA, DEFAULTS)) == sorted(default_paths(DEFAULTS)) == sorted(OTHERS)


@pytest.mark.parametrize("path", OTHERS)
def test_every_value_is_used(path: str) -> None:
    value, needed = OTHERS[path]
    assert rendered(merged(path, value, needed)) != rendered(needed), f"{path} changes nothing"


def test_every_value_is_described() -> None:
    readme = (OPERATOR_CHART / "README.md").read_text()
    rows = {line.split("`")[1]: line for line in readme.splitlines() if line.startswith("| `")}
    assert sorted(rows) == sorted(OTHERS)
    assert [path for path, row in rows.items() if row.split("|")[-2].strip() == ""] == []


def maps(schema: Any, path: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object in the schema."""
    if isinstance(schema, list):
        for inner in schema:
            yield from maps(inner, path)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for name, inner in schema.items():
            yield from maps(inner, f"{path}.{name}")


def test_the_schema_is_closed() -> None:
    """But for maps of any keys, and for parts of the Kubernetes API, which the API server looks at."""
    kubernetes = {"$.definitions.kubernetesObject", "$.definitions.named", "$.properties.global"}
    kubernetes |= {"$.properties.extraVolumeMounts.items"}
    opened = {path for path, schema in maps(SCHEMA) if "additionalProperties" not in schema}
    assert opened == kubernetes
    assert [path for path, schema in maps(SCHEMA) if "properties" in schema and path not in opened] == [
        path for path, schema in maps(SCHEMA) if schema.get("additionalProperties") is False
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"image": {"tga": "1"}}, "additional properties 'tga' not allowed"),
        ({"networkPolicy": {"egress": {"enable": True}}}, "additional properties 'enable' not allowed"),
        ({"gang": "vulcano"}, "value must be one of 'auto', 'kubernetes', 'volcano'"),
        ({"workers": 0}, "at '/workers': minimum: got 0, want 1"),
        ({"crds": {"keep": "false"}}, "at '/crds/keep': got string, want boolean"),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "at '/podDisruptionBudget/maxUnavailable': minimum"),
        ({"resync": "soon"}, "at '/resync'"),
        ({"image": {"digest": "sha256:123"}}, "at '/image/digest'"),
        ({"watchNamespaces": ["Team"]}, "at '/watchNamespaces/0'"),
        ({"leaderElection": {"enabled": False}}, "replicas 2 with leaderElection.enabled false"),
        ({"leaderElection": {"renewDeadline": "20s"}}, "leaseDuration (15 s) must be longer than renewDeadline (20 s)"),
        ({"leaderElection": {"retryPeriod": "10s"}}, "that longer than retryPeriod (10 s)"),
        (
            {"serviceMonitor": {"enabled": True}, "metrics": {"service": {"enabled": False}}},
            "serviceMonitor.enabled needs metrics.service.enabled",
        ),
        ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "commonLabels.app.kubernetes.io/name: the chart sets"),
        ({"podLabels": {"helm.sh/chart": "x"}}, "podLabels.helm.sh/chart: the chart sets"),
        ({"podLabels": {"a": "x"}, "commonLabels": {"a": "y"}}, "podLabels.a: commonLabels has it already"),
    ],
)
def test_k8s_06_what_cannot_be_is_refused_in_words(values: dict[str, Any], says: str) -> None:
    assert says in refused(values)


@pytest.mark.parametrize("tag", ["58467965", "00215e6", "6.10", "1.0", "0x10", "1_000", "on", "2026-11-25", "v1.2.3"])
def test_k8s_05_a_tag_is_rendered_letter_by_letter_or_refused(tag: str, tmp_path: Path) -> None:
    """Unquoted in a file, quoted in a file, by --set and by --set-string."""
    bare, quoted = tmp_path / "bare.yaml", tmp_path / "quoted.yaml"
    bare.write_text(f"image:\n  tag: {tag}\n")
    quoted.write_text(f'image:\n  tag: "{tag}"\n')
    for words, must in (
        ([f"--values={bare}"], False),
        ([f"--values={quoted}"], True),
        ([f"--set=image.tag={tag}"], False),
        ([f"--set-string=image.tag={tag}"], True),
    ):
        done = helm("template", RELEASE, OPERATOR_CHART, *words, "--show-only=templates/operator/deployment.yaml")
        if done.returncode:
            assert not must, (words, done.stderr)
            assert "image.tag: YAML reads" in done.stderr
            assert "quote it" in done.stderr
        else:
            (container,) = yaml.safe_load(done.stdout)["spec"]["template"]["spec"]["containers"]
            assert container["image"] == f"ghcr.io/trainserve/operator:{tag}", words


@pytest.mark.parametrize("path", TEXTS)
def test_k8s_05_so_is_every_other_text(path: str) -> None:
    said = refused(merged(path, {"a": 6.10}, {}))
    assert f"{path}.a: YAML reads 6.1 as a number" in said
    assert "quote it" in said


def test_k8s_05_and_texts_in_lists() -> None:
    assert "extraEnv: A: YAML reads true as a bool" in refused({"extraEnv": [{"name": "A", "value": True}]})
    assert "extraArgs[1]: YAML reads 3 as a number" in refused({"extraArgs": ["--workers", 3]})


@pytest.mark.parametrize("path", OTHERS)
def test_null_is_nothing_or_refused(path: str) -> None:
    """Helm takes a value that is null away, also its default."""
    done = template(merged(path, None, OTHERS[path][1]))
    if done.returncode:
        assert f"missing property '{path.rpartition('.')[2]}'" in done.stderr
    else:
        deployment = named(objects(done.stdout), "Deployment")
        assert "null" not in json.dumps(deployment)
        assert problems(deployment) == []


def flags(values: dict[str, Any]) -> list[str]:
    (container,) = named(rendered(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["platform", "operator", "run"]
    found: list[str] = container["args"]
    return found


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"watchNamespaces": ["a", "b"], "progress": "proxy", "gang": "scheduler-plugins"},
        {"replicas": 1, "leaderElection": {"enabled": False}, "log": {"format": "text", "level": "error"}},
        {"metrics": {"host": "::", "port": 9090}, "resync": "1h30m", "workers": 256},
    ],
)
def test_the_command_takes_the_flags(values: dict[str, Any]) -> None:
    with run_command.make_context("run", flags(values)) as context:
        given = context.params
    assert given["workers"] == values.get("workers", 8)
    assert given["namespace"] == tuple(values.get("watchNamespaces", ()))
    assert given["leader_elect"] == values.get("leaderElection", {}).get("enabled", True)
    assert given["metrics_address"] == ("[::]:9090" if "metrics" in values else "0.0.0.0:8080")


def test_every_flag_of_the_command_has_a_value() -> None:
    """But those that only make sense outside a pod."""
    outside = {"kubeconfig", "context", "leader_elect_namespace", "help"}
    chart = flags({"watchNamespaces": ["a"]}) + flags({"replicas": 1, "leaderElection": {"enabled": False}})
    used = {word.split("=")[0] for word in chart}
    options = [option for option in run_command.params if isinstance(option, click.Option)]
    without = {option.name for option in options if not used & {*option.opts, *option.secondary_opts}}
    assert without <= outside, "give the flag a value in helm/platform-operator/values.yaml"


def test_the_choices_of_the_schema_are_those_of_the_command() -> None:
    choices = {
        option.name: list(option.type.choices) for option in run_command.params if isinstance(option.type, click.Choice)
    }
    properties = SCHEMA["properties"]
    assert properties["gang"]["enum"] == choices["gang"]
    assert properties["progress"]["enum"] == choices["progress"]
    log = properties["log"]["properties"]
    assert sorted(log["format"]["enum"]) == sorted(choices["log_format"])
    assert log["level"]["enum"] == choices["log_level"]


def test_what_is_named_elsewhere_is_named_alike() -> None:
    values = merged("podMonitor.enabled", True, EGRESS)
    monitor = named(rendered(values), "PodMonitor", "trainserve-training")["spec"]
    ours = {names.LABEL_OPERATOR_NAME: names.OPERATOR_NAME}
    assert monitor["selector"]["matchLabels"] == ours
    assert monitor["jobLabel"] == names.LABEL_JOB_NAME
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == (names.PROGRESS_PORT_NAME, names.METRICS_PATH)
    *_, progress = named(rendered(values), "NetworkPolicy")["spec"]["egress"]
    assert progress["ports"] == [{"port": names.PROGRESS_PORT, "protocol": "TCP"}]
    assert progress["to"][0]["podSelector"]["matchLabels"] == ours
    (container,) = named(rendered(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(f"{names.IMAGES}/{names.IMAGE_OPERATOR}:")
    with_jobs = named(
        rendered({"watchNamespaces": ["a"], "podMonitor": {"enabled": True}}), "PodMonitor", "trainserve-training"
    )
    assert with_jobs["spec"]["namespaceSelector"] == {"matchNames": ["a"]}


def notes(values: dict[str, Any], tmp_path: Path) -> str:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    words = ("--namespace=somewhere", f"--values={file}", "--dry-run=client")
    done = helm("install", "mine", OPERATOR_CHART, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:")[1]


def test_the_notes_name_release_and_namespace_and_what_is_dangerous(tmp_path: Path) -> None:
    usual = notes({}, tmp_path)
    assert "helm test mine --namespace somewhere" in usual
    assert "all namespaces" in usual
    assert "WARNING" not in usual
    assert "deletes the kind" in notes({"crds": {"keep": False}}, tmp_path)
    assert "nobody works" in notes({"replicas": 0}, tmp_path)
    assert "must be there already" in notes({"crds": {"enabled": False}}, tmp_path)
    assert "needs the roles" in notes({"rbac": {"create": False}}, tmp_path)
    assert "team-a, team-b" in notes({"watchNamespaces": ["team-a", "team-b"]}, tmp_path)
    assert "every port of every pod of the cluster" in notes({"progress": "proxy"}, tmp_path)

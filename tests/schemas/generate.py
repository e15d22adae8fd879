"""The schemas that charts and manifests are validated against, made anew:
`PYTHONPATH=tests .venv/bin/python tests/schemas/generate.py`.

Kubernetes' kinds come from the OpenAPI documents of the API server that the tests build and start; those of Prometheus'
operator from the definitions in its Go module. Descriptions are left out, and fields that nobody knows are refused.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from support.clusterbinaries import KUBERNETES
from support.controlplane import ControlPlane
from support.gomodules import files_of
from support.kubectl import Kubectl

FOLDER = Path(__file__).parent
MONITORING = ("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
GROUPS = {
    "api/v1": ("ConfigMap", "Namespace", "Pod", "Service", "ServiceAccount"),
    "apis/apps/v1": ("Deployment",),
    "apis/apiextensions.k8s.io/v1": ("CustomResourceDefinition",),
    "apis/networking.k8s.io/v1": ("NetworkPolicy",),
    "apis/policy/v1": ("PodDisruptionBudget",),
    "apis/rbac.authorization.k8s.io/v1": ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
}
KEPT = (
    *("type", "format", "enum", "required", "items", "properties", "additionalProperties", "pattern"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "oneOf", "anyOf", "allOf", "not", "$ref"),
)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without prose and defaults; an object that lists its fields has no others."""
    found: dict[str, Any] = {}
    for key in KEPT:
        value = schema.get(key)
        if value is None:
            continue
        if key == "properties":
            found[key] = {name: strict(inner) for name, inner in value.items()}
        elif key in {"oneOf", "anyOf", "allOf"}:
            found[key] = [strict(inner) for inner in value]
        elif isinstance(value, dict):
            found[key] = strict(value)
        else:
            found[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        found.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
        found.pop("type", None)
    if list(found) == ["allOf"] and len(found["allOf"]) == 1:
        return dict(found["allOf"][0])
    if "$ref" in found:
        return {"$ref": f"#/definitions/{found['$ref'].rpartition('/')[2]}"}
    if "properties" in found and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def references(schema: Any) -> set[str]:
    """Names of the definitions that a schema refers to."""
    if isinstance(schema, list):
        return set().union(*map(references, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*map(references, schema.values()))


def kubernetes(kubectl: Kubectl) -> dict[str, Any]:
    """{"kinds": {"apps/v1 Deployment": name of its definition}, "definitions": {...}}."""
    kinds: dict[str, str] = {}
    known: dict[str, Any] = {}
    for path, wanted in GROUPS.items():
        document = json.loads(kubectl("get", "--raw", f"/openapi/v3/{path}"))
        for name, schema in document["components"]["schemas"].items():
            known[name] = schema
            for each in schema.get("x-kubernetes-group-version-kind", ()):
                group = f"{each['group']}/{each['version']}" if each["group"] else each["version"]
                if each["kind"] in wanted and group == path.split("/", 1)[1]:
                    kinds[f"{group} {each['kind']}"] = name
    definitions: dict[str, Any] = {}
    missing = set(kinds.values())
    while missing:
        definitions |= {name: strict(known[name]) for name in missing}
        missing = references(definitions) - set(definitions)
    return {
        "version": KUBERNETES,
        "kinds": dict(sorted(kinds.items())),
        "definitions": dict(sorted(definitions.items())),
    }


def monitoring() -> dict[str, Any]:
    """The same for the kinds of Prometheus' operator."""
    folder = files_of(*MONITORING) / "example/prometheus-operator-crd"
    kinds: dict[str, str] = {}
    definitions: dict[str, Any] = {}
    for plural in ("servicemonitors", "podmonitors", "prometheusrules"):
        crd = yaml.safe_load((folder / f"monitoring.coreos.com_{plural}.yaml").read_text())
        (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
        kind = crd["spec"]["names"]["kind"]
        kinds[f"monitoring.coreos.com/v1 {kind}"] = kind
        definitions[kind] = strict(version["schema"]["openAPIV3Schema"])
        definitions[kind]["properties"]["metadata"] = {"type": "object"}
    return {"version": " ".join(MONITORING), "kinds": kinds, "definitions": definitions}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        control_plane = ControlPlane(Path(scratch))
        control_plane.start()
        try:
            _write("kubernetes.json", kubernetes(Kubectl(control_plane.kubeconfig)))
        finally:
            control_plane.stop()
    _write("monitoring.json", monitoring())


def _write(name: str, found: dict[str, Any]) -> None:
    """A line a definition: small, and a diff says which has changed."""
    lines = [f" {json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in found["definitions"].items()]
    head = {key: value for key, value in found.items() if key != "definitions"}
    text = json.dumps(head, indent=1)[:-2] + ',\n "definitions": {\n' + ",\n".join(lines) + "\n }\n}\n"
    json.loads(text)
    (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The kind as it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainserve.cli import manifests
from trainserve.kube.crd import pytorchjob_crd
from trainserve.spec import pytorchjob

BASE = Path(__file__).parents[2] / "manifests/base"
LARGEST_ANNOTATION = 262144  # what `kubectl apply` keeps a copy of the object in


def version() -> dict[str, Any]:
    found: dict[str, Any] = pytorchjob_crd()["spec"]["versions"][0]
    return found


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in (schema.get("properties") or {}).items():
        yield f"{path}.{name}".lstrip("."), value
        yield from fields(value, f"{path}.{name}")
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from fields(inner, f"{path}[]")


SCHEMA = dict(fields(version()["schema"]["openAPIV3Schema"]))


def test_the_files_are_what_is_generated() -> None:
    on_disk = {path.relative_to(BASE).as_posix(): path.read_text(encoding="utf-8") for path in BASE.rglob("*.yaml")}
    generated = manifests.files()
    assert {name: on_disk.get(name) for name in generated} == generated, "run `make generate`"


def test_plain_kubectl_apply_can_install_it() -> None:
    assert len(json.dumps(pytorchjob_crd())) < LARGEST_ANNOTATION / 4


def test_the_yaml_is_the_object() -> None:
    assert yaml.safe_load(manifests.files()[f"crds/{manifests.CRD_FILE}"]) == pytorchjob_crd()


def test_every_field_that_is_typed_is_described() -> None:
    without = {path for path, field in SCHEMA.items() if not field.get("description")}
    assert without == {"metadata", "metadata.name"}  # Kubernetes describes these


@pytest.mark.parametrize(
    ("field", "default"),
    [
        ("spec.pytorchReplicaSpecs[].replicas", 1),
        ("spec.pytorchReplicaSpecs[].restartPolicy", "OnFailure"),
        ("spec.runPolicy.cleanPodPolicy", "None"),
        ("spec.runPolicy.suspend", False),
    ],
)
def test_ctl_06_the_text_of_a_default_says_the_default(field: str, default: Any) -> None:
    assert SCHEMA[field]["default"] == default
    assert f"Default {str(default).lower() if default is False else default}" in SCHEMA[field]["description"]


def test_ctl_06_defaults_are_those_of_the_types() -> None:
    job = {"spec": {"pytorchReplicaSpecs": {"Master": {}}}}
    filled = pytorchjob.crd_defaults(job)["spec"]
    assert filled["runPolicy"] == {"cleanPodPolicy": "None", "suspend": False}
    assert filled["pytorchReplicaSpecs"]["Master"] == {"replicas": 1, "restartPolicy": "OnFailure"}


def test_columns() -> None:
    shown = [column["name"] for column in version()["additionalPrinterColumns"]]
    assert shown == ["State", "Nodes", "Progress", "ETA", "Restarts", "Age"]
    paths = [column["jsonPath"] for column in version()["additionalPrinterColumns"]]
    plain = [path.removeprefix(".") for path in paths if "[" not in path and ".metadata" not in path]
    assert set(plain) <= SCHEMA.keys()


def test_every_rule_says_what_is_wrong() -> None:
    whole = json.dumps(version())
    assert whole.count('"rule"') == whole.count('"message"') - len(
        [path for path in SCHEMA if path.endswith("message")]
    )

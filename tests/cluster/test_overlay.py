"""A strategic merge patch of a pod template: what we make of it is what an API server makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.overlays import PATCHES, template
from trainserve.kube.strategicmerge import MERGE_KEYS, MERGED_VALUES, PatchError, merged


def _deployment(pod_template: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": "x"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "overlaid"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod_template},
    }


def _template(answer: str) -> Any:
    found = json.loads(answer)["spec"]["template"]
    found["metadata"].pop("creationTimestamp", None)
    return found


def test_ours_is_what_the_api_server_makes(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps(_deployment(template())))
    stored = _template(kubectl("get", "deployment", "overlaid", "-o", "json"))
    for name, patch in PATCHES.items():
        words = ("patch", "deployment", "overlaid", "--type=strategic", "--dry-run=server", "-o", "json")
        theirs = _template(kubectl(*words, "-p", json.dumps({"spec": {"template": patch}})))
        document = _deployment(merged(stored, patch)) | {"metadata": {"name": "ours"}}  # for the server's defaults
        ours = _template(kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(document)))
        assert ours == theirs, name


def test_the_keys_of_lists_are_those_of_the_servers_own_schema(kubectl: Kubectl) -> None:
    definitions = json.loads(kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    keys: dict[tuple[str, ...], str] = {}
    values: set[tuple[str, ...]] = set()

    def walk(schema: dict[str, Any], path: tuple[str, ...]) -> None:
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        for name, inner in schema.get("properties", {}).items():
            here = (*path, name)
            if len(here) > 8:
                continue
            if "merge" in inner.get("x-kubernetes-patch-strategy", ""):
                if "x-kubernetes-patch-merge-key" in inner:
                    keys[here] = inner["x-kubernetes-patch-merge-key"]
                else:
                    values.add(here)
            walk(inner.get("items", inner) if inner.get("type") == "array" else inner, here)

    walk({"$ref": "/io.k8s.api.core.v1.PodTemplateSpec"}, ())
    assert keys == MERGE_KEYS
    assert values == MERGED_VALUES


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"containers": [{"image": "x"}]}},
        {"spec": {"containers": [{"name": "pytorch", "$patch": "merge"}]}},
        {"spec": {"nodeSelector": {"$patch": "nix"}}},
        {"spec": {"containers": ["x"]}},
    ],
)
def test_what_we_refuse_the_server_refuses_too(kubectl: Kubectl, patch: dict[str, Any]) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps(_deployment(template())))
    body = json.dumps({"spec": {"template": patch}})
    refused = kubectl.run("patch", "deployment", "overlaid", "--type=strategic", "--dry-run=server", "-p", body)
    assert refused.returncode != 0
    with pytest.raises(PatchError):
        merged(template(), patch)

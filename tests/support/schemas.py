"""Kubernetes objects against the schemas of tests/schemas: an unknown field, a wrong type, a missing one are told."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, FormatChecker

from trainserve.kube.cluster import Manifest

FOLDER = Path(__file__).resolve().parent.parent / "schemas"


@cache
def validators() -> dict[str, Draft7Validator]:
    """`apps/v1 Deployment` -> what validates it."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for kind, name in document["kinds"].items():
            schema = {"$ref": f"#/definitions/{name}", "definitions": document["definitions"]}
            found[kind] = Draft7Validator(schema, format_checker=FormatChecker())
    return found


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with an object, a sentence each; a kind that there is no schema of is wrong, too."""
    kind = f"{manifest['apiVersion']} {manifest['kind']}"
    validator = validators().get(kind)
    named = f"{manifest['kind']} {manifest['metadata']['name']}"
    if validator is None:
        return [f"{named}: there is no schema of {kind} in tests/schemas"]
    return [f"{named}: {error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def unsafe(pod: Manifest) -> list[str]:
    """What Pod Security "restricted" says no to in a pod's spec
    (https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted).
    """
    found = []
    whole: dict[str, Any] = pod.get("securityContext") or {}
    found += [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [
        f"volume {volume['name']}" for volume in pod.get("volumes") or [] if not allowed >= set(volume) - {"name"}
    ]
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        own: dict[str, Any] = container.get("securityContext") or {}
        wanted = {
            "runAsNonRoot": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True,
            "seccompProfile": (own.get("seccompProfile") or whole.get("seccompProfile") or {}).get("type")
            in {"RuntimeDefault", "Localhost"},
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": (own.get("capabilities") or {}).get("drop") == ["ALL"]
            and set((own.get("capabilities") or {}).get("add") or []) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "runAsUser": own.get("runAsUser", whole.get("runAsUser")) != 0,
            "hostPort": not any(port.get("hostPort") for port in container.get("ports") or []),
            # Not of the standard, but of ours.
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
        }
        found += [f"container {container['name']}: {rule}" for rule, held in wanted.items() if not held]
    return found

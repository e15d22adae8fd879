"""Defaults and rules of pods: those a controller can trip over."""

from __future__ import annotations

from typing import Any

from trainserve.kube.cluster import Manifest
from trainserve.local import metadata

_POD_DEFAULTS = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
}
_CONTAINER_DEFAULTS = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "resources": {},
}
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def default_pod(pod: Manifest) -> Manifest:
    """The pod with the API server's constants filled in."""
    spec = pod.get("spec", {})
    spec = {**_POD_DEFAULTS, **spec}
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [_default_container(container) for container in spec[field]]
    return {**pod, "spec": spec}


def _default_container(container: Manifest) -> Manifest:
    container = {**_CONTAINER_DEFAULTS, "imagePullPolicy": _pull_policy(container.get("image", "")), **container}
    if "ports" in container:
        container["ports"] = [{"protocol": "TCP", **port} for port in container["ports"]]
    return container


def _pull_policy(image: str) -> str:
    if "@" in image:
        return "IfNotPresent"
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return "Always" if not colon or tag == "latest" else "IfNotPresent"


def pod_problems(pod: Manifest) -> list[str]:
    """What is not allowed in one pod, each as `path: sentence`."""
    spec = pod["spec"]
    found: list[str] = []
    if not spec.get("containers"):
        found.append("spec.containers: Required value")
    if spec["restartPolicy"] not in _RESTART_POLICIES:
        found.append(_not_supported("spec.restartPolicy", spec["restartPolicy"], _RESTART_POLICIES))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        found.append(f"spec.activeDeadlineSeconds: Invalid value: {deadline}: must be between 1 and 2147483647")
    volumes = {volume.get("name") for volume in spec.get("volumes", [])}
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field, [])):
            found += _container_problems(container, f"spec.{field}[{index}]", names, volumes)
    return found


def _container_problems(container: Manifest, at: str, names: set[str], volumes: set[Any]) -> list[str]:
    found: list[str] = []
    name = container.get("name", "")
    if not name:
        found.append(f"{at}.name: Required value")
    elif wrong := metadata.dns_1123_label(name):
        found.append(f'{at}.name: Invalid value: "{name}": {wrong}')
    elif name in names:
        found.append(f'{at}.name: Duplicate value: "{name}"')
    names.add(name)
    if not container.get("image"):
        found.append(f"{at}.image: Required value")
    if container["imagePullPolicy"] not in _PULL_POLICIES:
        found.append(_not_supported(f"{at}.imagePullPolicy", container["imagePullPolicy"], _PULL_POLICIES))
    for index, variable in enumerate(container.get("env", [])):
        if not variable.get("name"):
            found.append(f"{at}.env[{index}].name: Required value")
        if variable.get("value") and variable.get("valueFrom"):
            found.append(f"{at}.env[{index}].valueFrom: Invalid value: may not be specified when `value` is not empty")
    for index, port in enumerate(container.get("ports", [])):
        number = port.get("containerPort", 0)
        if not 1 <= number <= 65535:
            found.append(f"{at}.ports[{index}].containerPort: Invalid value: {number}: must be between 1 and 65535")
    for index, mount in enumerate(container.get("volumeMounts", [])):
        if mount.get("name") not in volumes:
            found.append(f'{at}.volumeMounts[{index}].name: Not found: "{mount.get("name")}"')
    return found


def pod_update_problems(old: Manifest, new: Manifest) -> list[str]:
    """Of a pod's spec only images, a lower activeDeadlineSeconds and more tolerations may change."""
    found: list[str] = []
    before, after = old["spec"].get("activeDeadlineSeconds"), new["spec"].get("activeDeadlineSeconds")
    if before is not None and (after is None or after > before):
        found.append(
            f"spec.activeDeadlineSeconds: Invalid value: {after}: must be less than or equal to previous value {before}"
        )
    tolerations = new["spec"].get("tolerations", [])
    if any(toleration not in tolerations for toleration in old["spec"].get("tolerations", [])):
        found.append(
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
        )
    changed = sorted(
        field
        for field in {*_immutable(old), *_immutable(new)}
        if _immutable(old).get(field) != _immutable(new).get(field)
    )
    if changed:
        found.append(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`, "
            "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to "
            f"existing tolerations); changed: {', '.join(changed)}"
        )
    return found


def _immutable(pod: Manifest) -> Manifest:
    spec = {key: value for key, value in pod["spec"].items() if key not in ("activeDeadlineSeconds", "tolerations")}
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [{**container, "image": ""} for container in spec[field]]
    return spec


def _not_supported(path: str, value: Any, allowed: tuple[str, ...]) -> str:
    return f'{path}: Unsupported value: "{value}": supported values: {", ".join(allowed)}'

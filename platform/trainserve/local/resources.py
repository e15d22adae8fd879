"""The kinds that the server in memory has, and what is particular to each: fields, defaults, rules.

Another kind is one more `Resource` in the mapping that is given to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainserve.kube.cluster import Manifest
from trainserve.kube.names import EVENT, LEASE, POD, PYTORCHJOB, SERVICE, Kind
from trainserve.local import metadata, schema
from trainserve.local.pod_rules import default_pod, pod_problems, pod_update_problems
from trainserve.spec import pytorchjob

GRACE_PERIOD_S = 30


def _unchanged(manifest: Manifest) -> Manifest:
    return manifest


def _no_problems(_: Manifest) -> list[str]:
    return []


def _no_update_problems(_: Manifest, __: Manifest) -> list[str]:
    return []


def _no_grace(_: Manifest) -> int:
    return 0


@dataclass(frozen=True)
class Resource:
    """One kind. The functions change nothing they are given; complaints are `path: sentence`."""

    kind: Kind
    fields: schema.Node
    name_problem: Callable[[str], str | None] = metadata.dns_1123_subdomain
    has_status: bool = False  # a status subresource: only a patch of it changes status
    has_generation: bool = False
    initial_status: Mapping[str, Any] | None = None
    default: Callable[[Manifest], Manifest] = _unchanged
    unknown_fields: Callable[[Manifest], list[str]] = _no_problems  # beyond `fields`: paths
    problems: Callable[[Manifest], list[str]] = _no_problems
    update_problems: Callable[[Manifest, Manifest], list[str]] = _no_update_problems
    grace_s: Callable[[Manifest], int] = _no_grace  # default grace period on delete; 0: goes at once
    expires_s: float | None = None


def pod_grace_s(pod: Manifest) -> int:
    """A pod that no node has, or that has ended, goes at once; another when its kubelet has stopped it."""
    spec = pod["spec"]
    if not spec.get("nodeName") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds", GRACE_PERIOD_S))


def _default_service(service: Manifest) -> Manifest:
    spec = {"type": "ClusterIP", "sessionAffinity": "None", **service.get("spec", {})}
    if "ports" in spec:
        spec["ports"] = [{"protocol": "TCP", "targetPort": port.get("port"), **port} for port in spec["ports"]]
    return {**service, "spec": spec}


def _service_problems(service: Manifest) -> list[str]:
    spec = service["spec"]
    ports = spec.get("ports", [])
    found = []
    if not ports and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        found.append("spec.ports: Required value")
    seen: set[Any] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        number = port.get("port", 0)
        if not 1 <= number <= 65535:
            found.append(f"{at}.port: Invalid value: {number}: must be between 1 and 65535, inclusive")
        if len(ports) > 1 and not port.get("name"):
            found.append(f"{at}.name: Required value")
        for value, field in ((port.get("name"), "name"), ((port["protocol"], number), "port")):
            if value is not None and (field, value) in seen:
                found.append(f"{at}.{field}: Duplicate value: {value!r}")
            seen.add((field, value))
    found += [
        f'spec.selector: Invalid value: "{value}": {wrong}'
        for value in spec.get("selector", {}).values()
        if (wrong := metadata.label_value(value))
    ]
    return found


def _service_update_problems(old: Manifest, new: Manifest) -> list[str]:
    if old["spec"].get("clusterIP") not in (None, new["spec"].get("clusterIP")):
        return [f"spec.clusterIP: Invalid value: {new['spec'].get('clusterIP')!r}: may not change once set"]
    return []


def _event_problems(event: Manifest) -> list[str]:
    involved = event.get("involvedObject", {})
    if involved.get("namespace", event["metadata"]["namespace"]) != event["metadata"]["namespace"]:
        return [f"involvedObject.namespace: Invalid value: {involved['namespace']!r}: does not match event.namespace"]
    return []


def _lease_problems(lease: Manifest) -> list[str]:
    spec = lease.get("spec", {})
    wrong = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        wrong.append(
            f"spec.leaseDurationSeconds: Invalid value: {spec['leaseDurationSeconds']}: must be greater than 0"
        )
    if spec.get("leaseTransitions", 0) < 0:
        wrong.append(
            f"spec.leaseTransitions: Invalid value: {spec['leaseTransitions']}: must be greater than or equal to 0"
        )
    return wrong


def _job_unknown_fields(job: Manifest) -> list[str]:
    try:
        pytorchjob.parse(job)
    except pytorchjob.InvalidJob as error:
        return [problem.path for problem in error.problems if problem.unknown]
    return []


def _job_problems(job: Manifest) -> list[str]:
    try:
        pytorchjob.validate(job)
    except pytorchjob.InvalidJob as error:
        return [str(problem) for problem in error.problems]
    return []


def _job_update_problems(old: Manifest, new: Manifest) -> list[str]:
    try:
        pytorchjob.validate_update(old, new)
    except pytorchjob.InvalidJob as error:
        return [str(problem) for problem in error.problems]
    return []


RESOURCES: Mapping[Kind, Resource] = {
    resource.kind: resource
    for resource in (
        Resource(
            POD,
            schema.POD,
            has_status=True,
            has_generation=True,
            initial_status={"phase": "Pending"},
            default=default_pod,
            problems=pod_problems,
            update_problems=pod_update_problems,
            grace_s=pod_grace_s,
        ),
        Resource(
            SERVICE,
            schema.SERVICE,
            name_problem=metadata.dns_1035_label,
            has_status=True,
            initial_status={"loadBalancer": {}},
            default=_default_service,
            problems=_service_problems,
            update_problems=_service_update_problems,
        ),
        Resource(LEASE, schema.LEASE, problems=_lease_problems),
        Resource(EVENT, schema.EVENT, problems=_event_problems, expires_s=3600.0),
        Resource(
            PYTORCHJOB,
            schema.CUSTOM_RESOURCE,
            has_status=True,
            has_generation=True,
            default=pytorchjob.crd_defaults,
            unknown_fields=_job_unknown_fields,
            problems=_job_problems,
            update_problems=_job_update_problems,
        ),
    )
}

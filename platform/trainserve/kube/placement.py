"""What of `spec.pod` says where pods run and what they get there, as fields of a pod. Pure."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.spec.pod import PodSpec

CONFIG_MAP = "configmap/"
SECRET = "secret/"  # noqa: S105  a kind of object


def pod_fields(pod: PodSpec) -> Manifest:
    """Fields of the PodSpec; only those that are asked for."""
    tolerations = [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in pod.tolerations or ()]
    fields: Manifest = {
        "nodeSelector": dict(pod.node_selector or {}),
        "tolerations": tolerations,
        "affinity": dict(pod.affinity or {}),
        "priorityClassName": pod.priority_class,
        "runtimeClassName": pod.runtime_class,
        "serviceAccountName": pod.service_account,
        "imagePullSecrets": [{"name": name} for name in pod.pull_secrets or ()],
        "resourceClaims": [
            {"name": claim_name(template), "resourceClaimTemplateName": template}
            for template in pod.resource_claim_templates or ()
        ],
    }
    if pod.host_network:
        fields |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}  # else no pod finds the Master's name
    return {name: value for name, value in fields.items() if value}


def resources(pod: PodSpec) -> Manifest:
    """`resources` of the container: limits that are requests too, so that what a pod counts on is its own."""
    amounts: Manifest = {}
    if pod.cpu is not None:
        amounts["cpu"] = str(pod.cpu)
    if pod.memory is not None:
        amounts["memory"] = str(pod.memory)
    if pod.gpus is not None:
        amounts[pod.gpu_resource or names.RESOURCE_GPU] = str(pod.gpus)
    found: Manifest = {"limits": amounts, "requests": dict(amounts)} if amounts else {}
    if pod.resource_claim_templates:
        found["claims"] = [{"name": claim_name(template)} for template in pod.resource_claim_templates]
    return found


def env_from(pod: PodSpec) -> list[Manifest]:
    """Secrets and ConfigMaps whose keys become environment."""
    return [
        {"configMapRef": {"name": name.removeprefix(CONFIG_MAP)}}
        if name.startswith(CONFIG_MAP)
        else {"secretRef": {"name": name.removeprefix(SECRET)}}
        for name in pod.env_from or ()
    ]


def claim_name(template: str) -> str:
    """Of a claim within the pod, which is a DNS label: no dots, at most 63 letters."""
    return template.replace(".", "-")[:63].rstrip("-")

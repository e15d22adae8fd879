"""`spec.pod`: what the pods of a run ask of a cluster. On a laptop most of it has no effect, which is said there."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from trainserve.spec.base import Spec

_QUANTITY = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?")
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_QUALIFIED = re.compile(rf"({_SUBDOMAIN}/)?{_LABEL_NAME}")
_LABEL_VALUE = re.compile(rf"({_LABEL_NAME})?")
_OBJECT = re.compile(_SUBDOMAIN)
_ENV_FROM = re.compile(rf"((secret|configmap)/)?{_SUBDOMAIN}")
# Kubernetes takes every printable letter but "="; what a shell cannot name is a mistake.
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")

QUANTITY_WORDS = 'an amount above 0, such as 2, "500m" or "64Gi"'
OBJECT_WORDS = "a name of small letters, digits, - and ."


def _quantity(value: str | int | float) -> str:
    text = str(value)
    if not _QUANTITY.fullmatch(text) or not re.search(r"[1-9]", re.split(r"[eE]", text)[0]):
        raise ValueError(f"{value!r} is not allowed; allowed: {QUANTITY_WORDS}")
    return text


def _named(value: str) -> str:
    if not _OBJECT.fullmatch(value):
        raise ValueError(f"{value!r} is not allowed; allowed: {OBJECT_WORDS}")
    return value


def _resource(value: str) -> str:
    if not _QUALIFIED.fullmatch(value) or "/" not in value:
        raise ValueError(f"{value!r} is not allowed; allowed: the name of a device, such as nvidia.com/mig-1g.5gb")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, word in value.items():
        if not _QUALIFIED.fullmatch(key):
            raise ValueError(f"{key!r} is no name of a label")
        if not _LABEL_VALUE.fullmatch(word):
            raise ValueError(f"{key}: {word!r} is no value of a label")
    return value


def _env(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a variable")
    return value


def _env_from(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not _ENV_FROM.fullmatch(name):
            raise ValueError(f"{name!r} is not allowed; allowed: a Secret's name, or configmap/NAME")
    return value


def _names(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        _named(name)
    if len(set(value)) < len(value):
        raise ValueError("a name stands twice")
    return value


Quantity = Annotated[str | int | float, AfterValidator(_quantity)]
ObjectName = Annotated[str, AfterValidator(_named)]


class Toleration(Spec):
    """A taint that the pods do not mind, as in Kubernetes."""

    key: str | None = Field(None, description="Of the taint. Default: of every taint.")
    operator: Literal["Exists", "Equal", "Lt", "Gt"] | None = Field(None, description="Default Equal.")
    value: str | None = Field(None, description="Of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Default: every.")
    toleration_seconds: int | None = Field(None, description="How long a NoExecute is borne, in s.")


class PodSpec(Spec):
    """What the pods of a run ask of a cluster."""

    image: str | None = Field(
        None,
        min_length=1,
        pattern=r"^\S+$",
        description="Container image of the pods. Default: the one of this version, ghcr.io/trainserve/trainer.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="When a node fetches the image. Default: as Kubernetes does, by the image's tag."
    )
    gpus: int | None = Field(
        None,
        ge=1,
        le=64,
        json_schema_extra={"unit": "devices a node"},
        description="GPUs of each node, and as many processes unless nprocPerNode says otherwise. Default: none.",
    )
    gpu_resource: Annotated[str, AfterValidator(_resource)] | None = Field(
        None,
        json_schema_extra={"allowed": "the name of a device, such as nvidia.com/mig-1g.5gb, or null"},
        description="What a GPU is called on the nodes: another vendor's, or a MIG slice. Default: nvidia.com/gpu.",
    )
    cpu: Quantity | None = Field(
        None,
        json_schema_extra={"unit": "cores a node", "allowed": f"{QUANTITY_WORDS}, or null"},
        description="Cores of each node, kept free for it and its limit. Default: what the namespace says.",
    )
    memory: Quantity | None = Field(
        None,
        json_schema_extra={"unit": "bytes a node", "allowed": f"{QUANTITY_WORDS}, or null"},
        description="Memory of each node, kept free for it and its limit; /dev/shm counts in it. Default: what the "
        "namespace says.",
    )
    shared_memory: Quantity | None = Field(
        None,
        json_schema_extra={"unit": "bytes a node", "allowed": f"{QUANTITY_WORDS}, or null"},
        description="Size of /dev/shm, through which loader processes hand over pictures. Default: as large as memory.",
    )
    resource_claim_templates: Annotated[tuple[str, ...], AfterValidator(_names)] | None = Field(
        None,
        json_schema_extra={"allowed": "a list of names, or null"},
        description="ResourceClaimTemplates (dynamic resource allocation): each pod gets a claim of each.",
    )
    node_selector: Annotated[dict[str, str], AfterValidator(_labels)] | None = Field(
        None,
        json_schema_extra={"allowed": "a mapping of labels, or null"},
        description="Labels that a node must have.",
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        None,
        json_schema_extra={"allowed": "a list of tolerations, or null"},
        description="Taints of nodes that the pods do not mind; as a flag KEY[=VALUE][:EFFECT].",
    )
    affinity: dict[str, Any] | None = Field(
        None,
        json_schema_extra={"allowed": "a mapping of fields, or null"},
        description="Kubernetes' affinity, as it stands in a pod; as a flag a YAML file.",
    )
    priority_class: ObjectName | None = Field(
        None, json_schema_extra={"allowed": f"{OBJECT_WORDS}, or null"}, description="PriorityClass of the pods."
    )
    runtime_class: ObjectName | None = Field(
        None,
        json_schema_extra={"allowed": f"{OBJECT_WORDS}, or null"},
        description="RuntimeClass of the pods, such as nvidia.",
    )
    service_account: ObjectName | None = Field(
        None,
        json_schema_extra={"allowed": f"{OBJECT_WORDS}, or null"},
        description="ServiceAccount of the pods, for what clouds give to it; no token is mounted. Default: default.",
    )
    pull_secrets: Annotated[tuple[str, ...], AfterValidator(_names)] | None = Field(
        None,
        json_schema_extra={"allowed": "a list of names, or null"},
        description="Secrets that the image's registry wants.",
    )
    env: Annotated[dict[str, str], AfterValidator(_env)] | None = Field(
        None,
        json_schema_extra={"allowed": "a mapping of texts, or null"},
        description="Environment of the pods, such as NCCL_DEBUG: INFO. Secrets belong into envFrom.",
    )
    env_from: Annotated[tuple[str, ...], AfterValidator(_env_from)] | None = Field(
        None,
        json_schema_extra={"allowed": "a list of names, or null"},
        description="Secrets (NAME) and ConfigMaps (configmap/NAME) whose keys become environment: credentials of "
        "buckets.",
    )
    host_network: bool = Field(
        False,
        description="The network of the nodes instead of the pods' own: two pods of one job never share a node then.",
    )
    overlay: dict[str, Any] | None = Field(
        None,
        json_schema_extra={"allowed": "a mapping of fields, or null"},
        description="Whatever else the pods need: a strategic merge patch of their template, as kubectl patch takes; "
        "as a flag a YAML file.",
    )
    queue: ObjectName | None = Field(
        None,
        json_schema_extra={"allowed": f"{OBJECT_WORDS}, or null"},
        description="LocalQueue of Kueue that admits the run. Default: none.",
    )
    gang: Literal["auto", "together", "apart"] = Field(
        "auto",
        description="Whether pods are placed together or not at all (of an elastic run the fewest). auto: where the "
        "cluster can; apart: each pod by itself.",
    )

"""`spec.pod`: what the pods of a run ask of a cluster. On a laptop most of it has no effect, which is said there."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

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

_HOST = r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/"
_PART = r"[a-z0-9]+([._-]+[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"({_HOST})?{_PART}(/{_PART})*(:[A-Za-z0-9_][-A-Za-z0-9_.]{{0,127}})?(@[a-z0-9+._-]+:[0-9a-fA-F]{{32,}})?"
)
_LONGEST_ENV = 131_070  # bytes with its name: Linux' MAX_ARG_STRLEN, less "=" and the zero byte
_LONGEST_IMAGE = 1024  # no registry takes more

IMAGE_WORDS = "[HOST[:PORT]/]NAME[:TAG][@DIGEST], such as registry.example/team/trainer:1.0"
QUANTITY_WORDS = 'an amount above 0, such as 2, "500m" or "64Gi"'
OBJECT_WORDS = "a name of small letters, digits, - and ."


def _quantity(value: str | int | float) -> str:
    text = str(value)
    if not _QUANTITY.fullmatch(text) or not re.search(r"[1-9]", re.split(r"[eE]", text)[0]):
        raise ValueError(f"{value!r} is not allowed; allowed: {QUANTITY_WORDS}")
    return text


def is_qualified(word: str) -> bool:
    """Whether labels, annotations and taints may be called so."""
    return _QUALIFIED.fullmatch(word) is not None


def is_label_value(word: str) -> bool:
    """Whether labels and taints may have this value."""
    return _LABEL_VALUE.fullmatch(word) is not None


def checked_image(value: str) -> str:
    """The same. Raises ValueError for what a node would refuse as no image's name."""
    if len(value) > _LONGEST_IMAGE or not _IMAGE.fullmatch(value):
        scheme, found, _ = value.rpartition("@")[0].partition("://")
        shown = f"{scheme}://***@..." if found else f"{value!r:.80}"  # what stands before an @ may be a password
        raise ValueError(f"{shown} is not allowed; allowed: {IMAGE_WORDS}")
    return value


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
    for name, text in value.items():
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is no name of a variable")
        if "\0" in text:
            raise ValueError(f"{name}: a value with a zero byte is not allowed; allowed: any other text")
        size = len(text.encode())
        if len(name) + size > _LONGEST_ENV:
            raise ValueError(
                f"{name}: a value of {size:,} bytes is not allowed; allowed: {_LONGEST_ENV:,} with its name"
            )
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


def _objects_of_json(value: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Fields that are passed on as they are: every number one that an API server can read."""
    for key, inner in value.items():
        _of_json(inner, f"{where}.{key}" if where else key)
    return value


def _of_json(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not allowed; allowed: a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where}: {value!s:.40} is not allowed; allowed: an integer of at most 64 bits")
    if isinstance(value, dict):
        _objects_of_json(value, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _of_json(inner, f"{where}[{index}]")


Fields = Annotated[dict[str, Any], AfterValidator(_objects_of_json)]
Quantity = Annotated[str | int | float, AfterValidator(_quantity)]
ObjectName = Annotated[str, AfterValidator(_named)]


class Toleration(Spec):
    """A taint that the pods do not mind, as in Kubernetes."""

    key: str | None = Field(None, description="Of the taint. Default: of every taint.")
    operator: Literal["Exists", "Equal", "Lt", "Gt"] | None = Field(None, description="Default Equal.")
    value: str | None = Field(None, description="Of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Default: every.")
    toleration_seconds: int | None = Field(None, description="How long a NoExecute is borne, in s.")

    @model_validator(mode="after")
    def _says_which_taint(self) -> Toleration:
        if self.key is not None and not _QUALIFIED.fullmatch(self.key):
            raise ValueError(f"key {self.key!r} is no name of a taint; allowed: KEY or PREFIX/KEY")
        if self.value is not None and not _LABEL_VALUE.fullmatch(self.value):
            raise ValueError(f"value {self.value!r} is no value of a taint; allowed: letters, digits, -, _ and .")
        if self.operator == "Exists" and self.value:
            raise ValueError(f"value {self.value!r} has no effect with operator Exists; leave one of them out")
        if self.key is None and self.operator != "Exists":
            raise ValueError("key is required unless operator is Exists, which is every taint then")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds is for effect NoExecute only")
        return self


class PodSpec(Spec):
    """What the pods of a run ask of a cluster."""

    image: Annotated[str, AfterValidator(checked_image)] | None = Field(
        None,
        min_length=1,
        pattern=r"^\S+$",
        json_schema_extra={"allowed": f"{IMAGE_WORDS}, or null"},
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
    affinity: Fields | None = Field(
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
    overlay: Fields | None = Field(
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

"""The PyTorchJob CustomResourceDefinition, generated from the types of `spec.pytorchjob`.

A structural schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/): references inlined, no union
with null, maps with free keys as additionalProperties. A pod template is kept as it is; only what CEL rules look at is
typed. Rules that no schema can say are CEL; their messages are static: a computed one costs more than is allowed.
"""

from __future__ import annotations

from typing import Any

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.spec import pytorchjob
from trainserve.spec.pytorchjob import MAX_CONTAINERS, MAX_LABEL, MAX_REPLICAS, PyTorchJobSpec, PyTorchJobStatus

Schema = dict[str, Any]

_KEPT = (
    "description",
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
)
_INT32_MAX = 2**31 - 1
_NAME = ".metadata.name"
CRD_NAME = f"{names.PYTORCHJOB.plural}.{names.PYTORCHJOB.group}"


def pytorchjob_crd() -> Manifest:
    """The whole object, as `kubectl apply` takes it."""
    kind = names.PYTORCHJOB
    return {
        "apiVersion": names.CRD.api_version,
        "kind": names.CRD.kind,
        "metadata": {"name": CRD_NAME, "labels": {names.LABEL_PART_OF: names.PART_OF}},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
            },
            "versions": [
                {
                    "name": kind.version,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _root()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.pytorchReplicaSpecs.Worker.replicas",
                            "statusReplicasPath": ".status.replicaStatuses.Worker.active",
                            "labelSelectorPath": ".status.replicaStatuses.Worker.selector",
                        },
                    },
                }
            ],
        },
    }


def is_ours(crd: Manifest) -> bool:
    """Whether an installed definition of the kind is of this project: by its label, and by a field that ours has.

    Both, because applying Kubeflow's over ours leaves the label.
    """
    label = (crd["metadata"].get("labels") or {}).get(names.LABEL_PART_OF)
    return label == names.PART_OF and "generation" not in unknown_fields(crd)


def unknown_fields(crd: Manifest) -> set[str]:
    """Fields of a status that the controller writes, and that this definition does not know."""
    versions: list[Manifest] = crd["spec"]["versions"]
    version: Manifest = next((each for each in versions if each["name"] == names.PYTORCHJOB.version), {})
    root = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    known = ((root.get("properties") or {}).get("status") or {}).get("properties") or {}
    return set(_status()["properties"]) - set(known)


def _columns() -> list[Schema]:
    return [
        {"name": "State", "type": "string", "jsonPath": ".status.conditions[-1:].type"},
        {"name": "Nodes", "type": "string", "jsonPath": ".status.nodes", "description": "Pods that run, of all."},
        {"name": "Progress", "type": "string", "jsonPath": ".status.progressSummary"},
        {"name": "ETA", "type": "string", "jsonPath": ".status.eta", "description": "Time left to train."},
        {"name": "Restarts", "type": "integer", "jsonPath": ".status.restarts"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]


def _root() -> Schema:
    spec = _schema(PyTorchJobSpec.model_json_schema(by_alias=True))
    replica_specs = spec["properties"]["pytorchReplicaSpecs"]
    replica_specs["maxProperties"] = 2  # without it the rules' cost has no bound
    replica_specs["x-kubernetes-validations"] = _replica_rules()
    replica = replica_specs["additionalProperties"]
    replica["properties"]["template"] = _template(replica["properties"]["template"]["description"])
    replica["properties"]["replicas"]["default"] = 1
    replica["properties"]["restartPolicy"]["default"] = pytorchjob.DEFAULT_RESTART_POLICY
    policy = spec["properties"]["runPolicy"]
    policy["default"] = {}
    policy["properties"]["cleanPodPolicy"]["default"] = pytorchjob.DEFAULT_CLEAN_POD_POLICY
    policy["properties"]["suspend"]["default"] = False
    spec["properties"]["nprocPerNode"]["pattern"] = "^(auto|cpu|gpu|[1-9][0-9]{0,8})$"
    spec["x-kubernetes-validations"] = _spec_rules()
    spec["description"] = "What is to run. Templates can be changed while the job is suspended only."
    return {
        "type": "object",
        "description": "One multi-node training run of PyTorch: a Master and Workers that start and stop together.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {names.PYTORCHJOB.api_version}."},
            "kind": {"type": "string", "description": f"Always {names.PYTORCHJOB.kind}."},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},  # so that rules can name it
            "spec": spec,
            "status": _status(),
        },
        "x-kubernetes-validations": _name_rules(),
    }


def _status() -> Schema:
    status = _schema(PyTorchJobStatus.model_json_schema(by_alias=True))
    status["description"] = "What was observed; the controller writes it."
    replica_statuses = status["properties"]["replicaStatuses"]
    replica_statuses["maxProperties"] = 2
    replica_statuses["x-kubernetes-validations"] = [_replica_types()]
    return status


def _replica_types() -> Schema:
    return {
        "rule": "self.all(k, k in ['Master', 'Worker'])",
        "message": "the only replica types are Master and Worker, spelt so",
    }


def _replica_rules() -> list[Schema]:
    container = f"c.name == '{names.CONTAINER}'"
    return [
        _replica_types(),
        {"rule": "size(self) >= 1", "message": "needs Master, Worker, or both"},
        {
            "rule": "!('Master' in self) || self['Master'].replicas == 1",
            "message": "must be exactly 1",
            "fieldPath": ".Master.replicas",
        },
        {
            "rule": "!('Worker' in self) || self['Worker'].replicas >= 1",
            "message": "must be at least 1",
            "fieldPath": ".Worker.replicas",
        },
        *(
            {
                "rule": f"!('{kind}' in self) || self['{kind}'].template.spec.containers.exists(c, {container})",
                "message": f'one container must be named "{names.CONTAINER}"',
                "fieldPath": f".{kind}.template.spec.containers",
            }
            for kind in (names.REPLICA_MASTER, names.REPLICA_WORKER)
        ),
    ]  # fmt: skip


def _spec_rules() -> list[Schema]:
    specs = "self.pytorchReplicaSpecs"
    policy, before = "self.runPolicy", "oldSelf.runPolicy"
    queue = "(has({0}.schedulingPolicy) && has({0}.schedulingPolicy.queue) ? {0}.schedulingPolicy.queue : '')"
    managed = "(has({0}.managedBy) ? {0}.managedBy : '')"
    return [
        {
            "rule": f"!has(self.elasticPolicy) || 'Worker' in {specs}",
            "message": "elasticPolicy needs pytorchReplicaSpecs.Worker",
            "fieldPath": ".elasticPolicy",
        },
        {
            "rule": "!has(self.elasticPolicy) || !has(self.elasticPolicy.minReplicas) || "
            "!has(self.elasticPolicy.maxReplicas) || self.elasticPolicy.minReplicas <= self.elasticPolicy.maxReplicas",
            "message": "minReplicas is more than maxReplicas",
            "fieldPath": ".elasticPolicy",
        },
        {
            "rule": "!has(self.elasticPolicy) || !has(self.elasticPolicy.nProcPerNode) || !has(self.nprocPerNode)",
            "message": "elasticPolicy.nProcPerNode is deprecated and excludes nprocPerNode: keep the latter",
            "fieldPath": ".nprocPerNode",
        },
        {
            "rule": f"{managed.format(policy)} == {managed.format(before)}",
            "message": "managedBy cannot be changed",
            "fieldPath": ".runPolicy.managedBy",
        },
        {
            "rule": f"{queue.format(policy)} == {queue.format(before)}",
            "message": "schedulingPolicy.queue cannot be changed",
            "fieldPath": ".runPolicy.schedulingPolicy",
        },
        {
            "rule": f"{policy}.suspend || {before}.suspend || {specs}.all(k, !(k in oldSelf.pytorchReplicaSpecs) || "
            f"{specs}[k].template == oldSelf.pytorchReplicaSpecs[k].template)",
            "message": "a template cannot be changed while the job is not suspended: "
            "set runPolicy.suspend to true first",
            "fieldPath": ".pytorchReplicaSpecs",
        },
    ]  # fmt: skip


def _name_rules() -> list[Schema]:
    """The job's name is part of its pods' names, which are DNS labels: one rule for each number of digits."""
    rules = [
        {
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "message": "must be small letters, digits and -, from a letter to a letter or digit (a DNS-1035 label)",
            "fieldPath": _NAME,
        }
    ]
    workers = "('Worker' in self.spec.pytorchReplicaSpecs ? self.spec.pytorchReplicaSpecs['Worker'].replicas : 0)"
    elastic = "self.spec.elasticPolicy"
    most = f"(has({elastic}) && has({elastic}.maxReplicas) ? {elastic}.maxReplicas : 0)"
    for digits in range(1, len(str(MAX_REPLICAS)) + 1):
        longest = MAX_LABEL - len(names.replica_name("", "Worker", 0)) - (digits - 1)
        more_than = 10 ** (digits - 1)
        several = f"{workers} <= {more_than} && {most} <= {more_than} || " if digits > 1 else ""
        rules.append(
            {
                "rule": f"{several}size(self.metadata.name) <= {longest}",
                "message": f"may have at most {longest} letters with so many replicas, so that every pod's name has at "
                f"most {MAX_LABEL}",
                "fieldPath": _NAME,
            }
        )
    return rules


def _template(description: str) -> Schema:
    container = {
        "type": "object",
        "required": ["name", "image"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": MAX_LABEL, "description": "A DNS label."},
            "image": {"type": "string", "minLength": 1, "description": "Container image."},
        },
        "x-kubernetes-preserve-unknown-fields": True,
    }
    spec = {
        "type": "object",
        "description": "PodSpec, as of a Pod.",
        "required": ["containers"],
        "properties": {
            "containers": {
                "type": "array",
                "description": "The pod's containers.",
                "minItems": 1,
                "maxItems": MAX_CONTAINERS,
                "items": container,
            }
        },
        "x-kubernetes-preserve-unknown-fields": True,
    }
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {"spec": spec},
        "x-kubernetes-preserve-unknown-fields": True,
    }


def _schema(whole: Schema) -> Schema:
    """Pydantic's JSON schema as a structural one."""
    return _structural(whole, whole.get("$defs", {}))


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    described = {key: node[key] for key in ("description",) if key in node}
    if "$ref" in node:
        return {**_structural(definitions[node["$ref"].rsplit("/", 1)[1]], definitions), **described}
    if "anyOf" in node:
        kinds = [kind for kind in node["anyOf"] if kind.get("type") != "null"]
        if len(kinds) == 1:
            return {**_structural(kinds[0], definitions), **described}
        if {kind.get("type") for kind in kinds} == {"string", "integer"}:
            return {"x-kubernetes-int-or-string": True, **described}
        raise TypeError(f"no structural schema for {node}")
    found: Schema = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        found |= {"type": "string", "enum": [node["const"]]}
    if "enum" in node:
        found["type"] = "string"
    if node.get("type") == "integer":
        found["format"] = "int32" if node.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
    if node.get("type") == "array":
        found["items"] = _structural(node["items"], definitions)
    if node.get("type") == "object":
        if "properties" in node:
            found["properties"] = {name: _structural(value, definitions) for name, value in node["properties"].items()}
            if node.get("required"):
                found["required"] = node["required"]
        elif isinstance(node.get("additionalProperties"), dict):
            found["additionalProperties"] = _structural(node["additionalProperties"], definitions)
        else:
            found["x-kubernetes-preserve-unknown-fields"] = True
    return found

"""PyTorchJob, `kubeflow.org/v1`: the types of Kubeflow's Training Operator v1.9 and its rules.

Manifests stay raw dicts everywhere; `parse` gives a typed, frozen view for reading. Pod templates are raw dicts in that
view too, because whatever a pod may contain is passed on as it is. Three kinds of rule:

    crd_defaults      constants that the API server fills in when it stores a job
    default           these, and what depends on other fields or on the template: for the controller, after reading
    validate, validate_update   what may be stored; raise InvalidJob with every field path that is wrong
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from trainserve.errors import SpecError
from trainserve.kube import names

ReplicaType = Literal["Master", "Worker"]
RestartPolicy = Literal["Always", "OnFailure", "Never", "ExitCode"]
CleanPodPolicy = Literal["", "All", "Running", "None"]

DEFAULT_RESTART_POLICY: RestartPolicy = "OnFailure"
DEFAULT_CLEAN_POD_POLICY: CleanPodPolicy = "None"
DEFAULT_NPROC_PER_NODE = "auto"

MAX_LABEL = 63  # letters of a DNS label and of a label's value
MAX_CONTAINERS = 32
MAX_REPLICAS = 10_000  # twice the nodes that Kubernetes is made for (https://kubernetes.io/docs/setup/best-practices/cluster-large/)
_INT32_MAX = 2**31 - 1
_LARGEST = 10**15  # of a long number: JSON readers that know only doubles read it exactly
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NPROC = re.compile(r"auto|cpu|gpu|[1-9][0-9]{0,8}")


class Api(BaseModel):
    """Frozen, closed, camelCase outside; strict, so that "4" is no integer and 4 no string, as on an API server."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=False
    )


class ReplicaSpec(Api):
    """The pods of one replica type."""

    replicas: int = Field(1, ge=0, le=MAX_REPLICAS, description="Number of pods. Master: exactly 1. Default 1.")
    restart_policy: RestartPolicy = Field(
        DEFAULT_RESTART_POLICY,
        description="What follows a failed pod. ExitCode: 1-127 is permanent, 128 and more is retried. "
        f"Default {DEFAULT_RESTART_POLICY}.",
    )
    template: dict[str, Any] = Field(description=f"PodTemplateSpec; one container is named {names.CONTAINER}.")


class RdzvConf(Api):
    """One entry of torchrun's --rdzv-conf."""

    key: str = Field("", description="Name.")
    value: str = Field("", description="Value.")


class ElasticPolicy(Api):
    """torchrun's elastic mode: the job goes on with any number of Workers from min to max."""

    min_replicas: int | None = Field(None, ge=1, le=MAX_REPLICAS, description="Fewest nodes. Default: maxReplicas.")
    max_replicas: int | None = Field(None, ge=1, le=MAX_REPLICAS, description="Most nodes. Default: minReplicas.")
    rdzv_backend: Literal["c10d", "etcd", "etcd-v2"] | None = Field(None, description="Default c10d.")
    rdzv_port: int | None = Field(None, ge=1, le=65535, description="Default: the container's port.")
    rdzv_host: str | None = Field(None, description="Default: Worker 0.")
    rdzv_id: str | None = Field(None, description="torchrun's --rdzv-id.")
    rdzv_conf: list[RdzvConf] | None = Field(None, description="torchrun's --rdzv-conf.")
    standalone: bool | None = Field(None, description="torchrun's --standalone.")
    n_proc_per_node: int | None = Field(None, ge=1, le=_INT32_MAX, description="Deprecated: use spec.nprocPerNode.")
    max_restarts: int | None = Field(None, ge=0, le=_INT32_MAX, description="torchrun's --max-restarts.")
    metrics: list[dict[str, Any]] | None = Field(None, description="MetricSpecs (autoscaling/v2) of an autoscaler.")


class SchedulingPolicy(Api):
    """Gang scheduling."""

    min_available: int | None = Field(None, ge=0, le=_INT32_MAX, description="Pods placed together. Default: all.")
    queue: str | None = Field(None, description="Queue of the gang scheduler; cannot be changed.")
    min_resources: dict[str, str | int] | None = Field(None, description="Quantities the gang needs together.")
    priority_class: str | None = Field(None, description="Priority class of the gang.")
    schedule_timeout_seconds: int | None = Field(None, ge=0, le=_INT32_MAX, description="Longest wait, in s.")


class RunPolicy(Api):
    """How long a job runs, how often it is tried, what stays of it."""

    clean_pod_policy: CleanPodPolicy = Field(
        DEFAULT_CLEAN_POD_POLICY,
        description='Pods deleted when the job finishes. Default None, and "" means None, too.',
    )
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, le=_INT32_MAX, description="The job is deleted so many s after its end. Default: never."
    )
    active_deadline_seconds: int | None = Field(
        None, ge=0, le=_LARGEST, description="The job fails when active for longer, in s. Default: no limit."
    )
    backoff_limit: int | None = Field(
        None, ge=0, le=_INT32_MAX, description="Restarts before the job fails. Default: no limit."
    )
    scheduling_policy: SchedulingPolicy | None = Field(None, description="Gang scheduling.")
    suspend: bool = Field(
        False, description="true: no pods; back to false: goes on from the last checkpoint. Default false."
    )
    managed_by: Literal["", "kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue"] | None = Field(
        None, description='The controller in charge; cannot be changed. "" and the default mean this one.'
    )


class PyTorchJobSpec(Api):
    """One multi-node training run."""

    pytorch_replica_specs: dict[ReplicaType, ReplicaSpec] = Field(min_length=1, description="Master and Worker pods.")
    run_policy: RunPolicy = Field(
        default_factory=lambda: RunPolicy.model_validate({}), description="How long, how often, what stays."
    )
    elastic_policy: ElasticPolicy | None = Field(None, description="Elastic mode. Default: a fixed number of nodes.")
    nproc_per_node: str | None = Field(
        None, description='Processes a node: "auto", "cpu", "gpu" or a number as a string. Default "auto".'
    )


class Condition(Api):
    """One condition; their order is that of their last appearance, and the last one is the job's state."""

    type: Literal["Created", "Pending", "Running", "Restarting", "Succeeded", "Failed", "Suspended", "VersionSkew"] = (
        Field(description="What it is about.")
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field("", description="Why, in a word for programs.")
    message: str = Field("", description="Why, in a sentence.")
    last_update_time: str | None = Field(None, description="When any of it changed, RFC 3339.")
    last_transition_time: str | None = Field(None, description="When `status` changed, RFC 3339.")


class ReplicaStatus(Api):
    """Pods of one replica type, by phase."""

    active: int = Field(0, ge=0, description="Pods that run.")
    succeeded: int = Field(0, ge=0, description="Pods that have ended well.")
    failed: int = Field(0, ge=0, description="Pods that have failed, or run and are being deleted.")
    label_selector: dict[str, Any] | None = Field(None, description="Deprecated upstream; kept.")
    selector: str | None = Field(None, description="What an autoscaler selects the pods by.")


class Progress(Api):
    """How far training is: from rank 0's events. A pod may say anything, so every value has bounds."""

    epoch: int | None = Field(None, ge=0, le=_INT32_MAX, description="The present epoch, from 1.")
    epochs: int | None = Field(None, ge=0, le=_INT32_MAX, description="Epochs in all.")
    step: int | None = Field(None, ge=0, le=_LARGEST, description="Optimizer steps done, over all epochs.")
    steps: int | None = Field(None, ge=0, le=_LARGEST, description="Steps in all.")
    loss: float | None = Field(None, allow_inf_nan=False, description="Of the newest training step told.")
    top1: float | None = Field(None, ge=0, le=1, description="Of the newest validation.")
    images_per_second: float | None = Field(None, ge=0, le=_LARGEST, description="Of training, over the whole job.")
    eta_seconds: float | None = Field(None, ge=0, le=_LARGEST, description="Until the end of training, in s.")
    checkpoint_step: int | None = Field(None, ge=0, le=_LARGEST, description="Where a restart goes on.")
    stalled: bool | None = Field(None, description="No step for half the time after which the pod is ended for it.")


class GangEnd(Api):
    """Why one generation of the gang ended and another began."""

    generation: int = Field(ge=0, description="The one that ended.")
    time: str = Field(description="When, RFC 3339.")
    cause: str = Field("", description="In a sentence.")
    reason: str = Field("", description="In a word, such as OutOfMemory, TakenAway, Retryable, Permanent, Unplaced.")
    free: bool = Field(False, description="Not counted against backoffLimit.")
    checkpoint_step: int = Field(0, ge=0, description="Of the newest checkpoint by then: what tells progress.")


class PyTorchJobStatus(Api):
    """What was observed. The fields from `generation` on are ours."""

    conditions: list[Condition] = Field(default_factory=list, description="What holds; the last one is the state.")
    replica_statuses: dict[ReplicaType, ReplicaStatus] = Field(
        default_factory=dict, description="Pods by replica type."
    )
    start_time: str | None = Field(None, description="When it began, RFC 3339; set anew on resume.")
    completion_time: str | None = Field(None, description="When it ended, RFC 3339.")
    last_reconcile_time: str | None = Field(None, description="When this was written, RFC 3339.")
    generation: int = Field(0, ge=0, description="The gang: counts gang starts from 1; pods carry it as a label.")
    restarts: int = Field(0, ge=0, description="Gang restarts that count against backoffLimit.")
    progress: Progress | None = Field(None, description="How far training is, as the Master's rank 0 says.")
    nodes: str | None = Field(None, description="Pods that run, of all: 3/4.")
    progress_summary: str | None = Field(None, description="`progress` in words.")
    eta: str | None = Field(None, description="Time left to train, in words, while the job runs.")
    cause: str | None = Field(None, description="Why the last failure happened, in a sentence.")
    assembled: int = Field(
        0, ge=0, description="Newest generation whose pods were all there at once: one missing later was taken away."
    )
    history: list[GangEnd] = Field(default_factory=list, description="The newest restarts of the gang, oldest first.")
    pod_restarts: dict[str, int] = Field(
        default_factory=dict, description="Restarts already counted, by pod uid, of pods that are restarted one by one."
    )


class PyTorchJob(Api):
    """A job as on an API server; `metadata` is raw."""

    api_version: Literal["kubeflow.org/v1"]
    kind: Literal["PyTorchJob"]
    metadata: dict[str, Any]
    spec: PyTorchJobSpec
    status: PyTorchJobStatus | None = None

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self.metadata["namespace"])

    @property
    def uid(self) -> str:
        return str(self.metadata["uid"])


@dataclass(frozen=True)
class Problem:
    """One wrong field. `unknown` tells a misspelt field from a wrong value."""

    path: str
    message: str
    unknown: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class InvalidJob(SpecError):
    """A PyTorchJob breaks rules: all of them, each with its field path."""

    def __init__(self, problems: list[Problem], *, hint: str | None = None) -> None:
        super().__init__("; ".join(str(problem) for problem in problems), hint=hint)
        self.problems = tuple(problems)

    @property
    def path(self) -> str:
        """Field path of the first problem."""
        return self.problems[0].path


def parse(job: dict[str, Any]) -> PyTorchJob:
    """The typed view of a manifest. Raises InvalidJob for unknown fields and wrong types."""
    try:
        return PyTorchJob.model_validate(job)
    except ValidationError as error:
        raise InvalidJob([_problem(detail) for detail in error.errors(include_url=False)]) from error


def crd_defaults(job: dict[str, Any]) -> dict[str, Any]:
    """A copy with the constants filled in that the CRD's schema declares; never fails, whatever `job` looks like."""
    job = copy.deepcopy(job)
    spec = job.get("spec")
    if not isinstance(spec, dict):
        return job
    run_policy = spec.setdefault("runPolicy", {})
    if isinstance(run_policy, dict):
        run_policy.setdefault("cleanPodPolicy", DEFAULT_CLEAN_POD_POLICY)
        run_policy.setdefault("suspend", False)
    replica_specs = spec.get("pytorchReplicaSpecs")
    for replica_spec in replica_specs.values() if isinstance(replica_specs, dict) else ():
        if isinstance(replica_spec, dict):
            replica_spec.setdefault("replicas", 1)
            replica_spec.setdefault("restartPolicy", DEFAULT_RESTART_POLICY)
    return job


def default(job: dict[str, Any]) -> dict[str, Any]:
    """A copy of a valid job with every default filled in: what the controller works on. Idempotent.

    Beyond `crd_defaults`: nprocPerNode, the elastic range, the rendezvous port of the container `pytorch`.
    """
    job = crd_defaults(job)
    spec = job["spec"]
    if spec["runPolicy"]["cleanPodPolicy"] == "":
        spec["runPolicy"]["cleanPodPolicy"] = DEFAULT_CLEAN_POD_POLICY
    elastic = spec.get("elasticPolicy")
    if spec.get("nprocPerNode") is None and (elastic is None or elastic.get("nProcPerNode") is None):
        spec["nprocPerNode"] = DEFAULT_NPROC_PER_NODE
    if elastic is not None:
        elastic["minReplicas"], elastic["maxReplicas"] = _elastic_range(spec)
    for replica_spec in spec["pytorchReplicaSpecs"].values():
        for container in replica_spec["template"]["spec"]["containers"]:
            if container["name"] == names.CONTAINER:
                ports = container.setdefault("ports", [])
                if not any(port.get("name") == names.PORT_NAME for port in ports):
                    ports.append({"name": names.PORT_NAME, "containerPort": names.PORT})
    return job


def validate(job: dict[str, Any]) -> None:
    """Every rule for one job, as sent or as stored. Raises InvalidJob."""
    parsed = parse(job)
    spec, elastic = parsed.spec, parsed.spec.elastic_policy
    replicas = spec.pytorch_replica_specs
    problems = [
        problem
        for replica_type, replica_spec in replicas.items()
        for problem in _template_problems(replica_spec.template, f"spec.pytorchReplicaSpecs.{replica_type}.template")
    ]
    master, worker = replicas.get("Master"), replicas.get("Worker")
    if master is not None and master.replicas != 1:
        problems.append(
            Problem("spec.pytorchReplicaSpecs.Master.replicas", f"{master.replicas} is not allowed: must be exactly 1")
        )
    if worker is not None and worker.replicas < 1:
        problems.append(
            Problem("spec.pytorchReplicaSpecs.Worker.replicas", f"{worker.replicas} is not allowed: must be at least 1")
        )
    if spec.nproc_per_node is not None and not _NPROC.fullmatch(spec.nproc_per_node):
        problems.append(
            Problem("spec.nprocPerNode", f'"{spec.nproc_per_node}" is not one of auto, cpu, gpu or a number from 1 on')
        )
    if elastic is not None:
        if worker is None:
            problems.append(Problem("spec.elasticPolicy", "needs spec.pytorchReplicaSpecs.Worker"))
        low, high = elastic.min_replicas, elastic.max_replicas
        if low is not None and high is not None and low > high:
            problems.append(Problem("spec.elasticPolicy.minReplicas", f"{low} is more than maxReplicas {high}"))
        if elastic.n_proc_per_node is not None and spec.nproc_per_node is not None:
            problems.append(
                Problem(
                    "spec.elasticPolicy.nProcPerNode", "is deprecated and excludes spec.nprocPerNode: keep the latter"
                )
            )
    problems += _name_problems(parsed)
    if problems:
        raise InvalidJob(problems)


def validate_update(old: dict[str, Any], new: dict[str, Any]) -> None:
    """What may change in a stored job; both valid. Raises InvalidJob.

    Templates may change while the job is suspended, before or after the change: Kueue writes node selectors into them
    as it resumes a job, and takes them out as it suspends it.
    """
    before, after = parse(old).spec, parse(new).spec
    problems = []
    if (before.run_policy.managed_by or "") != (after.run_policy.managed_by or ""):
        problems.append(Problem("spec.runPolicy.managedBy", "cannot be changed"))
    queues = [policy.queue if policy else None for policy in _scheduling_policies(before, after)]
    if queues[0] != queues[1]:
        problems.append(Problem("spec.runPolicy.schedulingPolicy.queue", "cannot be changed"))
    if not before.run_policy.suspend and not after.run_policy.suspend:
        problems += [
            Problem(
                f"spec.pytorchReplicaSpecs.{replica_type}.template",
                "cannot be changed while the job is not suspended: set spec.runPolicy.suspend to true first",
            )
            for replica_type, replica_spec in after.pytorch_replica_specs.items()
            if replica_type in before.pytorch_replica_specs
            and replica_spec.template != before.pytorch_replica_specs[replica_type].template
        ]
    if problems:
        raise InvalidJob(problems)


def longest_name(replicas: dict[str, int]) -> int:
    """Letters a job's name may have, so that the names of all its pods are DNS labels. `replicas`: pods by type."""
    longest = max(len(names.replica_name("", type_, max(count, 1) - 1)) for type_, count in replicas.items())
    return MAX_LABEL - longest


def _problem(detail: Any) -> Problem:
    path = _path(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return Problem(path, "unknown field", unknown=True)
    if detail["type"] == "missing":
        return Problem(path, "is required")
    if detail["loc"][-1] == "[key]":
        return Problem(path, f'"{detail["input"]}" is no replica type: must be Master or Worker, spelt so')
    if detail["type"] == "too_short":
        return Problem(path, "needs Master, Worker, or both")
    value = detail["input"]
    shown = repr(value)
    if isinstance(value, (dict, list)):
        shown = "an object" if isinstance(value, dict) else "a list"
    return Problem(path, f"{shown} is not allowed: {_said(detail['msg'])}")


def _said(message: str) -> str:
    """Pydantic's sentence in an API server's terms."""
    return re.sub(
        r"a valid dictionary( or instance of \w+)?", "an object", message.replace("Input should be", "must be")
    )


def _path(location: tuple[str | int, ...]) -> str:
    path = ""
    for part in location:
        if part == "[key]":
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.lstrip(".")


def _template_problems(template: dict[str, Any], path: str) -> list[Problem]:
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    path = f"{path}.spec.containers"
    if not isinstance(containers, list) or not containers:
        return [Problem(path, "needs at least one container")]
    if len(containers) > MAX_CONTAINERS:
        return [Problem(path, f"{len(containers)} containers are more than {MAX_CONTAINERS}")]
    problems = []
    found: list[Any] = []
    for index, container in enumerate(containers):
        at = f"{path}[{index}]"
        if not isinstance(container, dict):
            problems.append(Problem(at, "must be an object"))
            continue
        found.append(container.get("name"))
        if not isinstance(container.get("name"), str) or not container["name"]:
            problems.append(Problem(f"{at}.name", "is required"))
        elif len(container["name"]) > MAX_LABEL:
            problems.append(Problem(f"{at}.name", f"has {len(container['name'])} letters, {MAX_LABEL} are allowed"))
        if not isinstance(container.get("image"), str) or not container["image"]:
            problems.append(Problem(f"{at}.image", "is required"))
    if names.CONTAINER not in found:
        shown = ", ".join(str(name) for name in found)
        problems.append(Problem(path, f'one container must be named "{names.CONTAINER}", found: {shown}'))
    return problems


def _name_problems(job: PyTorchJob) -> list[Problem]:
    name = job.metadata.get("name", "")
    if not isinstance(name, str) or not _DNS_1035.fullmatch(name):
        rule = "small letters, digits and -, from a letter to a letter or digit (a DNS-1035 label)"
        return [Problem("metadata.name", f'"{name}" is not allowed: must be {rule}')]
    elastic = job.spec.elastic_policy
    replicas: dict[str, int] = {type_: spec.replicas for type_, spec in job.spec.pytorch_replica_specs.items()}
    if elastic is not None and elastic.max_replicas is not None and "Worker" in replicas:
        replicas["Worker"] = max(replicas["Worker"], elastic.max_replicas)
    longest = longest_name(replicas)
    if len(name) > longest:
        counts = " and ".join(f"{count} {type_}" for type_, count in replicas.items())
        return [
            Problem(
                "metadata.name",
                f'"{name}" has {len(name)} letters; with {counts} at most {longest} are allowed, '
                f"so that every pod's name has at most {MAX_LABEL}",
            )
        ]
    return []


def _elastic_range(spec: dict[str, Any]) -> tuple[int, int]:
    elastic = spec["elasticPolicy"]
    low, high = elastic.get("minReplicas"), elastic.get("maxReplicas")
    workers = spec["pytorchReplicaSpecs"]["Worker"]["replicas"]
    if low is None and high is None:
        return workers, workers
    return (high if low is None else low), (low if high is None else high)


def _scheduling_policies(*specs: PyTorchJobSpec) -> list[SchedulingPolicy | None]:
    return [spec.run_policy.scheduling_policy for spec in specs]

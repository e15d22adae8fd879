"""PyTorchJobs that no API server may store: one table for the types, the server in memory and a real one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from support.server import job, template
from trainserve.kube.cluster import Manifest

SPECS = "spec.pytorchReplicaSpecs"


@dataclass(frozen=True)
class Bad:
    """`path`: what the refusal must name. `types`: whether spec.pytorchjob refuses it too, or the server alone."""

    job: Manifest
    path: str
    types: bool = True


def at(path: str, value: Any, *, workers: int = 1) -> Manifest:
    """A good job but for the value at `path`; `...` takes it out."""
    sent = copy.deepcopy(job("a", workers=workers))
    *way, last = path.split(".")
    inner: Any = sent
    for part in way:
        inner = inner[int(part)] if isinstance(inner, list) else inner.setdefault(part, {})
    key: Any = int(last) if isinstance(inner, list) else last
    if value is ...:
        del inner[key]
    else:
        inner[key] = value
    return sent


def named(name: Any, *, workers: int = 0) -> Manifest:
    return at("metadata.name", name, workers=workers)


MASTER, WORKER = f"{SPECS}.Master", f"{SPECS}.Worker"
CONTAINERS = f"{MASTER}.template.spec.containers"

TABLE: dict[str, Bad] = {
    # Of pytorchjob.md, "Validation".
    "no spec": Bad(at("spec", ...), "spec"),
    "no replica specs": Bad(at(SPECS, ...), SPECS),
    "empty replica specs": Bad(at(SPECS, {}), SPECS),
    "a type in small letters": Bad(at(f"{SPECS}.worker", {"template": template()}, workers=0), SPECS),
    "a type that is none": Bad(at(f"{SPECS}.Chief", {"template": template()}), SPECS),
    "two masters": Bad(at(f"{MASTER}.replicas", 2), SPECS),
    "no master of one": Bad(at(f"{MASTER}.replicas", 0), SPECS),
    "no workers": Bad(at(f"{WORKER}.replicas", 0), SPECS),
    "no containers": Bad(at(CONTAINERS, []), CONTAINERS),
    "containers left out": Bad(at(CONTAINERS, ...), CONTAINERS),
    "no pod spec": Bad(at(f"{MASTER}.template", {}), f"{MASTER}.template.spec"),
    "no template": Bad(at(f"{MASTER}.template", ...), f"{MASTER}.template"),
    "no image": Bad(at(f"{CONTAINERS}.0.image", ...), f"{CONTAINERS}[0].image"),
    "an empty image": Bad(at(f"{CONTAINERS}.0.image", ""), f"{CONTAINERS}[0].image"),
    "a container without a name": Bad(at(f"{CONTAINERS}.0.name", ...), f"{CONTAINERS}[0].name"),
    "a container with another name": Bad(at(f"{WORKER}.template", template(name="trainer")), SPECS),
    "two containers with other names": Bad(
        at(CONTAINERS, [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]), SPECS
    ),
    "elastic without workers": Bad(job("a", elasticPolicy={"minReplicas": 1}), "spec.elasticPolicy"),
    "elastic minimum above maximum": Bad(
        at("spec.elasticPolicy", {"minReplicas": 3, "maxReplicas": 2}), "spec.elasticPolicy"
    ),
    "both forms of nproc": Bad(job("a", workers=1, nprocPerNode="2", elasticPolicy={"nProcPerNode": 2}), "ProcPerNode"),
    "managed by a stranger": Bad(at("spec.runPolicy.managedBy", "example.com/mine"), "spec.runPolicy.managedBy"),
    # Wrong types.
    "spec a string": Bad(at("spec", "train"), "spec"),
    "spec a list": Bad(at("spec", []), "spec"),
    "replica specs a list": Bad(at(SPECS, [{"template": template()}]), SPECS),
    "master a string": Bad(at(MASTER, "one"), MASTER),
    "replicas a string": Bad(at(f"{WORKER}.replicas", "4"), f"{WORKER}.replicas"),
    "replicas a fraction": Bad(at(f"{WORKER}.replicas", 1.5), f"{WORKER}.replicas"),
    "replicas a boolean": Bad(at(f"{WORKER}.replicas", True), f"{WORKER}.replicas"),
    "replicas an object": Bad(at(f"{WORKER}.replicas", {}), f"{WORKER}.replicas"),
    "replicas below zero": Bad(at(f"{WORKER}.replicas", -1), f"{WORKER}.replicas"),
    "a thousand million replicas": Bad(at(f"{WORKER}.replicas", 10**9), f"{WORKER}.replicas"),
    "more replicas than an int32": Bad(at(f"{WORKER}.replicas", 2**31), f"{WORKER}.replicas"),
    "more replicas than an int64": Bad(at(f"{WORKER}.replicas", 2**64), f"{WORKER}.replicas"),
    "a thousand million elastic replicas": Bad(
        at("spec.elasticPolicy.maxReplicas", 10**9), "spec.elasticPolicy.maxReplicas"
    ),
    "a policy that is none": Bad(at(f"{MASTER}.restartPolicy", "Sometimes"), f"{MASTER}.restartPolicy"),
    "a policy that is a number": Bad(at(f"{MASTER}.restartPolicy", 1), f"{MASTER}.restartPolicy"),
    "a template that is a list": Bad(at(f"{MASTER}.template", []), f"{MASTER}.template"),
    "a pod spec that is a string": Bad(at(f"{MASTER}.template.spec", "x"), f"{MASTER}.template.spec"),
    "containers that are an object": Bad(at(CONTAINERS, {"name": "pytorch", "image": "i"}), CONTAINERS),
    "a container that is a string": Bad(at(f"{CONTAINERS}.0", "pytorch"), f"{CONTAINERS}[0]"),
    "a container's name that is a number": Bad(at(f"{CONTAINERS}.0.name", 7), f"{CONTAINERS}[0].name"),
    "a container's name of 64 letters": Bad(
        at(CONTAINERS, [*template()["spec"]["containers"], {"name": "c" * 64, "image": "i"}]), f"{CONTAINERS}[1].name"
    ),
    "33 containers": Bad(
        at(CONTAINERS, [{"name": "pytorch", "image": "i"}] + [{"name": f"c{n}", "image": "i"} for n in range(32)]),
        CONTAINERS,
    ),
    "nproc a number": Bad(at("spec.nprocPerNode", 4), "spec.nprocPerNode"),
    "nproc a word": Bad(at("spec.nprocPerNode", "many"), "spec.nprocPerNode"),
    "nproc nothing": Bad(at("spec.nprocPerNode", ""), "spec.nprocPerNode"),
    "nproc zero": Bad(at("spec.nprocPerNode", "0"), "spec.nprocPerNode"),
    "nproc with a line's end": Bad(at("spec.nprocPerNode", "4\n"), "spec.nprocPerNode"),
    "nproc of many digits": Bad(at("spec.nprocPerNode", "9" * 100), "spec.nprocPerNode"),
    "a clean-up that is none": Bad(at("spec.runPolicy.cleanPodPolicy", "Some"), "spec.runPolicy.cleanPodPolicy"),
    "a limit below zero": Bad(at("spec.runPolicy.backoffLimit", -1), "spec.runPolicy.backoffLimit"),
    "a limit that is a string": Bad(at("spec.runPolicy.backoffLimit", "3"), "spec.runPolicy.backoffLimit"),
    "a deadline below zero": Bad(at("spec.runPolicy.activeDeadlineSeconds", -1), "activeDeadlineSeconds"),
    "a deadline beyond an int64": Bad(at("spec.runPolicy.activeDeadlineSeconds", 2**63), "activeDeadlineSeconds"),
    "a time to live beyond an int32": Bad(at("spec.runPolicy.ttlSecondsAfterFinished", 2**31), "ttlSeconds"),
    "suspend a word": Bad(at("spec.runPolicy.suspend", "yes"), "spec.runPolicy.suspend"),
    "a run policy that is a list": Bad(at("spec.runPolicy", [1]), "spec.runPolicy"),
    "a rendezvous that is none": Bad(at("spec.elasticPolicy.rdzvBackend", "static"), "spec.elasticPolicy.rdzvBackend"),
    "port zero": Bad(at("spec.elasticPolicy.rdzvPort", 0), "spec.elasticPolicy.rdzvPort"),
    "a port too high": Bad(at("spec.elasticPolicy.rdzvPort", 65536), "spec.elasticPolicy.rdzvPort"),
    "metrics that are words": Bad(at("spec.elasticPolicy.metrics", ["cpu"]), "spec.elasticPolicy.metrics[0]"),
    "a minimum below zero": Bad(at("spec.runPolicy.schedulingPolicy.minAvailable", -1), "minAvailable"),
    "resources that are a list": Bad(at("spec.runPolicy.schedulingPolicy.minResources", ["cpu"]), "minResources"),
    "a resource that is an object": Bad(
        at("spec.runPolicy.schedulingPolicy.minResources", {"cpu": {}}), "minResources.cpu"
    ),
    # Fields that do not exist, at every level that is typed.
    **{
        f"unknown in {where or 'the job'}": Bad(at(f"{where}.extra".lstrip("."), 1), f"{where}.extra".lstrip("."))
        for where in ("", "spec", SPECS + ".Master", "spec.runPolicy", "spec.runPolicy.schedulingPolicy")
    },
    "unknown in metadata": Bad(at("metadata.extra", 1), "metadata.extra", types=False),
    "unknown in elasticPolicy": Bad(at("spec.elasticPolicy.extra", 1), "spec.elasticPolicy.extra"),
    "unknown in rdzvConf": Bad(at("spec.elasticPolicy.rdzvConf", [{"kee": "a"}]), "spec.elasticPolicy.rdzvConf[0].kee"),
    # Names that a Service, a pod or a label cannot have.
    "a name from a digit": Bad(named("1st-run"), "metadata.name"),
    "a name in capitals": Bad(named("Flowers"), "metadata.name"),
    "a name with a dot": Bad(named("a.b"), "metadata.name"),
    "a name with an underscore": Bad(named("a_b"), "metadata.name"),
    "a name to a dash": Bad(named("a-"), "metadata.name"),
    "a name with a line's end": Bad(named("a\n"), "metadata.name"),
    "a name with a NUL": Bad(named("a\x00b"), "metadata.name"),
    "a name in Greek": Bad(named("άνθη"), "metadata.name"),
    "a name with a variable": Bad(named("a-$(home)"), "metadata.name"),
    "a name that climbs": Bad(named("../a"), "metadata.name"),
    "a name of nothing": Bad(named(""), "name"),
    "a name that is a number": Bad(named(7), "name"),
    "a name of 55 letters": Bad(named("a" * 55), "metadata.name"),
    "a name of 54 letters with 12 workers": Bad(named("a" * 54, workers=12), "metadata.name"),
    "a name of 63 letters": Bad(named("a" * 63), "metadata.name"),
    "a name of 70 letters": Bad(named("a" * 70), "metadata.name"),
    "a name of 300 letters": Bad(named("a" * 300), "metadata.name"),
    # What is wrong with any object.
    "a label with a line's end": Bad(at("metadata.labels", {"a": "b\nc"}), "metadata.labels", types=False),
    "a label's key of blanks": Bad(at("metadata.labels", {"a b": "c"}), "metadata.labels", types=False),
    "a label that is a number": Bad(at("metadata.labels", {"a": 1}), "labels", types=False),
    "an annotation of a megabyte": Bad(
        at("metadata.annotations", {"a": "b" * 10**6}), "metadata.annotations", types=False
    ),
    "an annotation's key with a NUL": Bad(
        at("metadata.annotations", {"a\x00": "b"}), "metadata.annotations", types=False
    ),
}

HOSTILE = ("a\nb", "a\x00b", "$(VAR)", "$(TRAINSERVE_JOB)", "${IFS}", "`id`", "'; exit 1; '", "\u202eb", "x" * 10**6)


def with_env(value: str) -> Manifest:
    return at(f"{CONTAINERS}.0.env", [{"name": "A", "value": value}])


# Odd, and no reason to refuse a job: a pod may not come of it, which the controller says.
ODD: dict[str, Manifest] = {
    **{f"env {value[:20]!r}": with_env(value) for value in HOSTILE},
    **{
        f"template annotation {value[:20]!r}": at(f"{MASTER}.template.metadata", {"annotations": {"a": value}})
        for value in HOSTILE
    },
    "annotations": at("metadata.annotations", dict.fromkeys("abc", HOSTILE[0])),
    "replicas null": at(f"{WORKER}.replicas", None),
    "policy null": at(f"{WORKER}.restartPolicy", None),
    "run policy null": at("spec.runPolicy", None),
    "suspend null": at("spec.runPolicy.suspend", None),
    "a limit of 0": at("spec.runPolicy.backoffLimit", 0),
    "a status": {**job("a"), "status": {"restarts": 3}},
}

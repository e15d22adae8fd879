"""Gangs for the scheduler: the PodGroup of one generation, and what makes a pod a member of it.

One PodGroup a generation, never one a job: pods that are going still count as members, and a PodGroup that was placed
once stays so. Three schedulers know PodGroups, each its own:

    kubernetes          scheduling.k8s.io/v1beta1, Kubernetes' own (feature gate GenericWorkload)
    volcano             scheduling.volcano.sh/v1beta1, as the Training Operator v1.9 writes it
    scheduler-plugins   scheduling.x-k8s.io/v1alpha1, the same
    none                plain pods, placed one by one
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from trainserve.kube import names, quantity, replicas
from trainserve.kube.cluster import Manifest
from trainserve.kube.requests import PODS, pod_requests

Gang: TypeAlias = Literal["kubernetes", "volcano", "scheduler-plugins", "none"]

KINDS: Mapping[Gang, names.Kind] = {
    "kubernetes": names.POD_GROUP,
    "volcano": names.VOLCANO_POD_GROUP,
    "scheduler-plugins": names.SCHEDULER_PLUGINS_POD_GROUP,
}


def policy(job: Manifest) -> Manifest:
    """`spec.runPolicy.schedulingPolicy`, or {}."""
    found: Manifest = (job["spec"].get("runPolicy") or {}).get("schedulingPolicy") or {}
    return found


def minimum(job: Manifest) -> int:
    """Pods that are placed together or not at all; 0: each by itself. `job` is defaulted.

    All of them, or schedulingPolicy.minAvailable; an elastic job starts with minReplicas Workers.
    """
    total = replicas.total_replicas(job)
    given = policy(job).get("minAvailable")
    if given is None and replicas.is_elastic(job):
        workers = replicas.replica_counts(job)[names.REPLICA_WORKER]
        fewest = job["spec"]["elasticPolicy"].get("minReplicas") or workers
        given = total - workers + min(int(fewest), workers)
    return total if given is None else min(int(given), total)


def pod_group(job: Manifest, generation: int, gang: Gang) -> Manifest:
    """The whole PodGroup of gang `generation`; `gang` is not none."""
    kind, name = KINDS[gang], job["metadata"]["name"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": names.pod_group_name(name, generation),
            "namespace": job["metadata"]["namespace"],
            "labels": {**names.job_selector(name), names.LABEL_GENERATION: str(generation)},
            "ownerReferences": [replicas.owner_reference(job)],
        },
        "spec": _kubernetes(job) if gang == "kubernetes" else _with_members(job, gang),
    }


def join(pod: Manifest, job: Manifest, generation: int, gang: Gang) -> Manifest:
    """`pod`, changed to a member of that PodGroup; what its template says of schedulers and priorities stays."""
    metadata, spec = pod["metadata"], pod["spec"]
    group = names.pod_group_name(job["metadata"]["name"], generation)
    if gang == "kubernetes":
        spec["schedulingGroup"] = {"podGroupName": group}
    elif gang == "volcano":
        spec.setdefault("schedulerName", names.VOLCANO_SCHEDULER)
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            names.ANNOTATION_VOLCANO_GROUP: group,
            names.ANNOTATION_VOLCANO_TASK: metadata["labels"][names.LABEL_REPLICA_TYPE],
        }
    elif gang == "scheduler-plugins":
        spec.setdefault("schedulerName", names.SCHEDULER_PLUGINS_SCHEDULER)
        metadata["labels"][names.LABEL_SCHEDULER_PLUGINS_GROUP] = group
    if gang != "volcano" and policy(job).get("priorityClass"):  # volcano's PodGroup has it
        spec.setdefault("priorityClassName", policy(job)["priorityClass"])
    return pod


def gang_of_pod(pod: Manifest) -> Gang:
    """What a pod is a member of. A server without the feature drops Kubernetes' own field from a pod, silently."""
    metadata = pod["metadata"]
    if (pod.get("spec") or {}).get("schedulingGroup"):
        return "kubernetes"
    if names.ANNOTATION_VOLCANO_GROUP in (metadata.get("annotations") or {}):
        return "volcano"
    if names.LABEL_SCHEDULER_PLUGINS_GROUP in (metadata.get("labels") or {}):
        return "scheduler-plugins"
    return "none"


def _kubernetes(job: Manifest) -> Manifest:
    least = minimum(job)
    spec: Manifest = {"schedulingPolicy": {"gang": {"minCount": least}} if least else {"basic": {}}}
    if least and replicas.is_gang(job):
        # Without one of its pods a gang starts over: whoever is to make room takes all of them, or none.
        spec["disruptionMode"] = {"all": {}}
    leader = job["spec"]["pytorchReplicaSpecs"][replicas.leader(job)[0]]["template"]["spec"]
    priority = policy(job).get("priorityClass") or leader.get("priorityClassName")
    return {**spec, "priorityClassName": priority} if priority else spec


def _with_members(job: Manifest, gang: Gang) -> Manifest:
    given, least = policy(job), minimum(job)
    spec: Manifest = {"minMember": least}
    resources = given.get("minResources") or _least_resources(job, least)
    if resources:
        spec["minResources"] = resources
    if gang == "volcano":
        of_group = {"queue": given.get("queue"), "priorityClassName": given.get("priorityClass")}
        return {**spec, **{field: value for field, value in of_group.items() if value}}
    timeout_s = given.get("scheduleTimeoutSeconds")
    return spec if timeout_s is None else {**spec, "scheduleTimeoutSeconds": timeout_s}


def _least_resources(job: Manifest, least: int) -> Manifest:
    """What the first `least` pods ask for together, as the Training Operator fills it in."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    of_pods = [pod_requests(specs[kind]["template"]["spec"]) for kind, _ in replicas.replicas(job)[:least]]
    amounts = quantity.total(of_pods)
    return {name: quantity.written(amount) for name, amount in sorted(amounts.items()) if amount and name != PODS}

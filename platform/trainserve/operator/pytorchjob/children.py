"""Which pods and services there should be, against which there are."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from trainserve.errors import EXIT_SIGTERM
from trainserve.kube import names, replicas
from trainserve.kube.autoscaler import is_wanted
from trainserve.kube.podgroup import Gang, join, policy
from trainserve.kube.pods import replica_pod
from trainserve.kube.services import replica_service
from trainserve.operator.pytorchjob import autoscale, gang, pacing, placement
from trainserve.operator.pytorchjob.decision import Create, Delete, Update
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Observed, Pod


@dataclass(frozen=True)
class Changes:
    deletes: list[Delete]
    updates: list[Update]
    creates: list[Create]


def missing_and_surplus(draft: Draft, observed: Observed) -> Changes:
    """Services before pods, so that a pod's name resolves when it starts; then the PodGroup; the leader's pod first.

    No pod of a generation is created while one of another is left: two gangs never run at the same time. After
    restarts in a row there is a pause, too.
    """
    job, generation = draft.job, draft.generation
    wanted = {names.replica_name(draft.name, *replica): replica for replica in replicas.replicas(job)}
    services = {service.name for service in observed.services}
    current, old = observed.of_generation(generation), observed.not_of_generation(generation)
    broken = _broken(old) if replicas.is_gang(job) else set()
    deletes = [Delete(names.POD, pod.name, pod.uid, _grace_s(pod, broken)) for pod in old if not pod.deleting]
    deletes += [Delete(names.POD, pod.name, pod.uid) for pod in current if pod.name not in wanted and not pod.deleting]
    deletes += [
        Delete(names.SERVICE, service.name, service.uid)
        for service in observed.services
        if service.name not in wanted and not service.deleting
    ]
    creates = [
        Create(names.SERVICE, replica_service(job, *replica))
        for name, replica in wanted.items()
        if name not in services
    ]
    hold_s = pacing.hold_s(draft) if replicas.is_gang(job) and not current else 0.0
    if hold_s and not old:
        draft.look_again(hold_s)
    elif not old:
        there = {pod.name for pod in current}
        missing = [replica for name, replica in wanted.items() if name not in there]
        scheduler = gang.gang_of(draft, observed)
        if missing or not all(pod.placed for pod in current):
            creates += gang.missing(draft, observed, scheduler)
        creates += [
            Create(names.POD, join(replica_pod(job, *replica, generation), job, generation, scheduler))
            for replica in missing
        ]
        if not missing:
            draft.status["assembled"] = generation
            placement.follow(draft, observed)
    deletes += [*gang.surplus(draft, observed), *autoscale.surplus(draft, observed)]
    updates = [*gang.changed(draft, observed), *autoscale.changed(draft, observed)]
    return Changes(deletes, updates, [*creates, *autoscale.missing(draft, observed)])


def tell_what_is_not_done(draft: Draft, observed: Observed) -> None:
    """Fields of the job that have no effect in this cluster, said once instead of passed over."""
    spec, facilities = draft.job["spec"], observed.facilities
    if facilities.no_gang:
        draft.tell("Warning", names.REASON_NOT_SUPPORTED, facilities.no_gang)
    for field in sorted(policy(draft.job).keys() & _without_effect(facilities.gang)):
        draft.tell(
            "Warning",
            names.REASON_NOT_SUPPORTED,
            f"spec.runPolicy.schedulingPolicy.{field} has no effect: {_WHY_NOT[field]}",
        )
    if is_wanted(draft.job) and not facilities.autoscaling:
        draft.tell(
            "Warning",
            names.REASON_NOT_SUPPORTED,
            "spec.elasticPolicy.metrics has no effect: there are no autoscalers here",
        )
    if (spec.get("elasticPolicy") or {}).get("nProcPerNode") is not None:
        message = "spec.elasticPolicy.nProcPerNode is deprecated: say spec.nprocPerNode, a string"
        draft.tell("Warning", names.REASON_DEPRECATED, message)
    for replica_type, replica_spec in spec["pytorchReplicaSpecs"].items():
        if replica_spec["template"]["spec"].get("restartPolicy"):
            draft.tell(
                "Warning",
                names.REASON_RESTART_POLICY_OVERRIDDEN,
                f"spec.pytorchReplicaSpecs.{replica_type}.template.spec.restartPolicy has no effect: "
                f"the replica's restartPolicy {replica_spec['restartPolicy']} counts",
            )


_WHY_NOT = {
    "minAvailable": "pods are placed one by one, for no gang scheduler is in use",
    "minResources": "only Volcano and scheduler-plugins know it; the pods' own requests count",
    "queue": f"only Volcano knows it; Kueue's is the label {names.LABEL_KUEUE_QUEUE}",
}


def _without_effect(scheduler: Gang) -> set[str]:
    return {
        "none": {"minAvailable", "minResources", "queue"},
        "kubernetes": {"minResources", "queue"},
        "scheduler-plugins": {"queue"},
        "volcano": set(),
    }[scheduler]


def _broken(old: Sequence[Pod]) -> set[int]:
    """Generations of which a rank has ended otherwise than well or on request."""
    return {
        pod.generation
        for pod in old
        if pod.phase == "Failed" and (pod.main_end is None or pod.main_end.exit_code != EXIT_SIGTERM)
    }


def _grace_s(pod: Pod, broken: Set[int]) -> int | None:
    """The pod's own grace, unless its gang is broken."""
    own = pod.raw["spec"].get("terminationGracePeriodSeconds") or 0
    return names.BROKEN_GANG_GRACE_S if pod.generation in broken and own > names.BROKEN_GANG_GRACE_S else None

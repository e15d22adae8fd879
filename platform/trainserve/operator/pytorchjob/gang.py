"""The PodGroup of the present generation: there before its pods, gone after them.

What places a generation does not change while it is there: pods that were created plain stay so to the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.podgroup import KINDS, Gang, gang_of_pod, minimum, pod_group
from trainserve.operator.pytorchjob.decision import Create, Delete, Update
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Observed, PodGroup


def gang_of(draft: Draft, observed: Observed) -> Gang:
    """What the pods of the present generation are, or are to be, members of."""
    pods = observed.of_generation(draft.generation)
    gang = observed.facilities.gang
    return gang if not pods or any(gang_of_pod(pod.raw) == gang for pod in pods) else "none"


def missing(draft: Draft, observed: Observed, gang: Gang) -> list[Create]:
    """The PodGroup, where it is not there."""
    if gang == "none" or _current(draft, observed) is not None:
        return []
    return [Create(KINDS[gang], pod_group(draft.job, draft.generation, gang))]


def surplus(draft: Draft, observed: Observed) -> list[Delete]:
    """PodGroups of generations without pods, and one that the server does not know what to do with."""
    alive = {pod.generation for pod in observed.pods} | {draft.generation}
    gone = [group for group in observed.pod_groups if group.generation not in alive]
    current = _current(draft, observed)
    if current is not None and gang_of(draft, observed) == "none":
        gone.append(current)
        if observed.facilities.gang == "kubernetes":
            draft.tell(
                "Warning",
                names.REASON_NOT_SUPPORTED,
                "pods are placed one by one, not as a gang: the API server drops spec.schedulingGroup. hint: set the "
                "feature gate GenericWorkload on API server, scheduler and controller manager",
            )
    return _deletes(gone)


def changed(draft: Draft, observed: Observed) -> list[Update]:
    """The PodGroup, where the number of pods that are placed together has changed."""
    current, least = _current(draft, observed), minimum(draft.job)
    if current is None or current.deleting or _least(current.raw) in {None, least} or not least:
        return []
    kubernetes = "schedulingPolicy" in current.raw["spec"]
    spec: Manifest = {"schedulingPolicy": {"gang": {"minCount": least}}} if kubernetes else {"minMember": least}
    return [Update(_kind(current), current.name, current.uid, {"spec": spec})]


def all_of(observed: Observed) -> list[Delete]:
    """Every PodGroup: for jobs that have no pods any more, or none that still runs."""
    return _deletes(observed.pod_groups)


def _current(draft: Draft, observed: Observed) -> PodGroup | None:
    return next((group for group in observed.pod_groups if group.generation == draft.generation), None)


def _least(raw: Manifest) -> int | None:
    """Pods that are placed together; None: each by itself."""
    spec = raw["spec"]
    found = spec.get("minMember") or ((spec.get("schedulingPolicy") or {}).get("gang") or {}).get("minCount")
    return None if found is None else int(found)


def _deletes(groups: Iterable[PodGroup]) -> list[Delete]:
    return [Delete(_kind(group), group.name, group.uid) for group in groups if not group.deleting]


def _kind(group: PodGroup) -> names.Kind:
    return next(kind for kind in KINDS.values() if kind.api_version == group.raw["apiVersion"])

"""A job's children and what surrounds it, read from raw objects once."""

from __future__ import annotations

from collections.abc import Iterable

from trainserve.kube import moments, names
from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob.observed import Autoscaler, Ended, Observed, Pod, PodGroup, Service

_TYPES = {kind.lower(): kind for kind in (names.REPLICA_MASTER, names.REPLICA_WORKER)}

# Kubeflow's operator knows no generations: what it has made of a job is the first.
ADOPTED_GENERATION = "1"


def observe(
    job: Manifest,
    pods: Iterable[Manifest],
    services: Iterable[Manifest],
    progress: Manifest | None = None,
    *,
    pod_groups: Iterable[Manifest] = (),
    autoscalers: Iterable[Manifest] = (),
) -> Observed:
    """Keeps only children whose controller is `job` (by uid): what belongs to others is never looked at again."""
    uid = job["metadata"].get("uid")
    own_pods = [_pod(raw) for raw in pods if controller(raw).get("uid") == uid]
    own_services = [_service(raw) for raw in services if controller(raw).get("uid") == uid]
    return Observed(
        pods=tuple(sorted((pod for pod in own_pods if pod is not None), key=lambda pod: (pod.replica_type, pod.index))),
        services=tuple(sorted(own_services, key=lambda service: service.name)),
        progress=progress,
        pod_groups=tuple(_pod_group(raw) for raw in pod_groups if controller(raw).get("uid") == uid),
        autoscalers=tuple(_autoscaler(raw) for raw in autoscalers if controller(raw).get("uid") == uid),
    )


def controller(raw: Manifest) -> Manifest:
    """The owner whose controller looks after it; {} where there is none."""
    return next((owner for owner in raw["metadata"].get("ownerReferences") or [] if owner.get("controller")), {})


def _service(raw: Manifest) -> Service:
    metadata = raw["metadata"]
    return Service(metadata["name"], metadata["uid"], "deletionTimestamp" in metadata)


def _pod_group(raw: Manifest) -> PodGroup:
    metadata = raw["metadata"]
    generation = _number((metadata.get("labels") or {}).get(names.LABEL_GENERATION))
    return PodGroup(metadata["name"], metadata["uid"], generation, "deletionTimestamp" in metadata, raw)


def _autoscaler(raw: Manifest) -> Autoscaler:
    metadata = raw["metadata"]
    return Autoscaler(metadata["name"], metadata["uid"], "deletionTimestamp" in metadata, raw)


def _pod(raw: Manifest) -> Pod | None:
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    replica_type = _TYPES.get(labels.get(names.LABEL_REPLICA_TYPE, ""))
    if replica_type is None:
        return None  # ours by owner, yet no replica: nothing that this controller has made
    main = _find(status.get("containerStatuses"), names.CONTAINER)
    in_place = (raw.get("spec") or {}).get("restartPolicy") in {"OnFailure", "Always"}
    main_end = _ended(main)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        replica_type=replica_type,
        index=_number(labels.get(names.LABEL_REPLICA_INDEX)),
        generation=_number(labels.get(names.LABEL_GENERATION, ADOPTED_GENERATION)),
        phase=status.get("phase") or "Pending",
        raw=raw,
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        disruption=_disruption(status),
        started_at=moments.unix(status.get("startTime")),
        deletion_asked_at=_deletion_asked_at(metadata),
        restart_count=int(main.get("restartCount") or 0),
        main_end=main_end,
        last_end=_end_of((main.get("lastState") or {}).get("terminated")),
        init_end=_failed_init(status),
        restarting=in_place and _will_restart(main),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _find(statuses: Iterable[Manifest] | None, name: str) -> Manifest:
    return next((status for status in statuses or [] if status.get("name") == name), {})


def _ended(container: Manifest) -> Ended | None:
    terminated = (container.get("state") or {}).get("terminated")
    if terminated is None:
        # A container that waits for its restart in place tells its end there.
        terminated = (container.get("lastState") or {}).get("terminated")
        if terminated is None or (container.get("state") or {}).get("running") is not None:
            return None
    return _end_of(terminated)


def _end_of(terminated: Manifest | None) -> Ended | None:
    if terminated is None:
        return None
    code = terminated.get("exitCode")
    return Ended(
        exit_code=None if code is None else int(code),
        reason=terminated.get("reason") or "",
        message=terminated.get("message") or "",
        finished_at=moments.unix(terminated.get("finishedAt")),
    )


def _failed_init(status: Manifest) -> Ended | None:
    ends = [_ended(container) for container in status.get("initContainerStatuses") or []]
    return next((end for end in ends if end is not None and end.exit_code != 0), None)


def _will_restart(container: Manifest) -> bool:
    end = _ended(container)
    return end is not None and end.exit_code != 0


def _disruption(status: Manifest) -> str:
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return condition.get("message") or condition.get("reason") or "disrupted"
    return ""


def _deletion_asked_at(metadata: Manifest) -> float | None:
    """The deletionTimestamp lies a grace period after the request."""
    at = moments.unix(metadata.get("deletionTimestamp"))
    return None if at is None else at - float(metadata.get("deletionGracePeriodSeconds") or 0)

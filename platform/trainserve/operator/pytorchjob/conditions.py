"""Conditions of a job: upstream's rules. The last one is the job's state, so order matters."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339

# Running and Restarting take each other out of the list: they are two words for one place. Pending waits for pods to be
# created or placed: it leaves the list when that is over, so that the last condition is the job's state.
_EXCLUDES: dict[str, tuple[str, ...]] = {
    names.RUNNING: (names.RESTARTING, names.PENDING),
    names.RESTARTING: (names.RUNNING, names.PENDING),
    names.SUSPENDED: (names.PENDING,),
    names.SUCCEEDED: (names.PENDING,),
    names.FAILED: (names.PENDING,),
}
# What is over when one of these comes: it stays listed, as False.
_ENDS = (names.SUCCEEDED, names.FAILED, names.SUSPENDED)
_ENDED = (names.RUNNING, names.RESTARTING)


def is_true(status: Manifest, condition_type: str) -> bool:
    return any(
        condition["type"] == condition_type and condition["status"] == "True"
        for condition in status.get("conditions") or []
    )


def is_listed(status: Manifest, condition_type: str) -> bool:
    return any(condition["type"] == condition_type for condition in status.get("conditions") or [])


def find(status: Manifest, condition_type: str) -> Manifest | None:
    return next((each for each in status.get("conditions") or [] if each["type"] == condition_type), None)


def is_finished(status: Manifest) -> bool:
    return is_true(status, names.SUCCEEDED) or is_true(status, names.FAILED)


def finished_at(status: Manifest) -> str | None:
    """`completionTime`, or when the finishing condition came, should another controller have left the former out."""
    for condition in reversed(status.get("conditions") or []):
        if condition["type"] in {names.SUCCEEDED, names.FAILED} and condition["status"] == "True":
            moment: str | None = status.get("completionTime") or condition.get("lastTransitionTime")
            return moment
    return None


def set_condition(
    status: Manifest, condition_type: str, reason: str, message: str, now: float, *, value: str = "True"
) -> bool:
    """Write a condition into `status`, last in the list; whether anything changed. Nothing changes after the end."""
    if is_finished(status):
        return False
    conditions: list[Manifest] = status.setdefault("conditions", [])
    old = next((condition for condition in conditions if condition["type"] == condition_type), None)
    if old is not None and (old["status"], old["reason"], old["message"]) == (value, reason, message):
        return False
    moment = rfc3339(now)
    new = {
        "type": condition_type,
        "status": value,
        "reason": reason,
        "message": message,
        "lastUpdateTime": moment,
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and old["status"] == value else moment,
    }
    gone = {condition_type, *_EXCLUDES.get(condition_type, ())}
    conditions[:] = [condition for condition in conditions if condition["type"] not in gone]
    if condition_type in _ENDS and value == "True":
        end_running(status, reason, message, now)
    conditions.append(new)
    return True


def remove(status: Manifest, condition_type: str) -> None:
    """Take a condition out of the list, where it stands there."""
    if is_listed(status, condition_type):
        status["conditions"] = [each for each in status["conditions"] if each["type"] != condition_type]


def to_front(status: Manifest, condition_type: str) -> None:
    """Put a condition first in the list: it is no state of the job, whose state is the last one."""
    listed = status["conditions"]
    status["conditions"] = sorted(listed, key=lambda each: each["type"] != condition_type)


def end_running(status: Manifest, reason: str, message: str, now: float) -> None:
    """Running and Restarting become False where they are listed as True, and stay listed."""
    moment = rfc3339(now)
    for condition in status.get("conditions") or []:
        if condition["type"] in _ENDED and condition["status"] == "True":
            condition.update(
                status="False", reason=reason, message=message, lastUpdateTime=moment, lastTransitionTime=moment
            )


def resume(status: Manifest, reason: str, message: str, now: float) -> None:
    """Suspended becomes False and first in the list, and what ran before leaves it: the state is Created again."""
    set_condition(status, names.SUSPENDED, reason, message, now, value="False")
    conditions: list[Manifest] = status["conditions"]
    suspended = conditions.pop()
    conditions[:] = [suspended, *(condition for condition in conditions if condition["type"] not in _ENDED)]

"""Pods that no node has room for: the job is `Pending` and says what is missing.

Told once a change, and a change at most every half a minute: in a busy cluster the scheduler's sentence changes with
every pod that comes or goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainserve.kube import moments, names, replicas
from trainserve.kube.podgroup import gang_of_pod, minimum, policy
from trainserve.kube.room import Room, lacking
from trainserve.operator.pytorchjob import conditions, pacing
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Observed, Pod

PATIENCE_S = 5.0  # a scheduler that has just been given the pods may be about to place them
UNSEEN_S = 60.0  # so long no scheduler has said anything: none is called as the pods ask for
TELL_EVERY_S = 30.0
_LONGEST_SENTENCE = 400  # letters of the scheduler's


def wants_room(observed: Observed, generation: int, now: float) -> bool:
    """Whether to look what the nodes have free: a look at every pod of the cluster."""
    waiting = _waiting(observed.of_generation(generation))
    return bool(waiting) and _waited_s(waiting, now) >= PATIENCE_S and any(_refusal(pod)[0] for pod in waiting)


def follow(draft: Draft, observed: Observed) -> None:
    """Set or lift `Pending`; every pod of the generation exists."""
    pods = observed.of_generation(draft.generation)
    waiting = _waiting(pods)
    if not waiting or (replicas.is_elastic(draft.job) and len(pods) - len(waiting) >= minimum(draft.job)):
        conditions.remove(draft.status, names.PENDING)
        return
    told = conditions.find(draft.status, names.PENDING)
    if told is not None and told["reason"] != names.REASON_UNSCHEDULABLE:
        conditions.remove(draft.status, names.PENDING)  # of pods that were refused, and now exist
        told = None
    why = _why(draft, observed, waiting)
    if why is None:
        return
    start = names.MESSAGE_UNSCHEDULABLE.format(job=draft.name, placed=len(pods) - len(waiting), count=len(pods))
    message = f"{start} {why}"
    if told is not None and told["message"] != message:
        left_s = (moments.unix(told["lastUpdateTime"]) or 0.0) + TELL_EVERY_S - draft.now
        if left_s > 0:
            draft.look_again(left_s)
            return
    draft.condition(names.PENDING, names.REASON_UNSCHEDULABLE, message, "Warning")


def is_overdue(draft: Draft, pods: Sequence[Pod]) -> bool:
    """Whether a part of the gang has waited scheduleTimeoutSeconds for the rest; if not yet, asks to be looked at then.

    The scheduler of scheduler-plugins does that itself. A gang of which no pod has a node holds nothing, and waits.
    """
    timeout_s = policy(draft.job).get("scheduleTimeoutSeconds")
    waiting = _waiting(pods)
    placed = len(pods) - len(waiting)
    if timeout_s is None or not waiting or not 0 < placed < minimum(draft.job):
        return False
    if any(gang_of_pod(pod.raw) == "scheduler-plugins" for pod in waiting):
        return False
    left_s = float(timeout_s) - _waited_s(waiting, draft.now)
    if left_s > 0:
        draft.look_again(left_s)
    return left_s <= 0


def give_back(draft: Draft, pods: Sequence[Pod]) -> None:
    """A new generation, free of charge and after a pause: what a part of the gang holds may let another one run."""
    placed = len(pods) - len(_waiting(pods))
    seconds = policy(draft.job)["scheduleTimeoutSeconds"]
    message = names.MESSAGE_SCHEDULE_TIMEOUT.format(job=draft.name, seconds=seconds, placed=placed, count=len(pods))
    pacing.record(draft, message, "Unplaced", free=True)
    draft.next_generation()
    draft.condition(names.RESTARTING, names.REASON_SCHEDULE_TIMEOUT, message, "Warning")


def _waiting(pods: Sequence[Pod]) -> list[Pod]:
    return [pod for pod in pods if not pod.placed and not pod.deleting]


def _waited_s(waiting: Sequence[Pod], now: float) -> float:
    """Seconds since the newest of them was created."""
    return now - max(moments.unix(pod.raw["metadata"].get("creationTimestamp")) or now for pod in waiting)


def _why(draft: Draft, observed: Observed, waiting: Sequence[Pod]) -> str | None:
    """What is missing and what the scheduler says; None: it is too early to say."""
    waited_s = _waited_s(waiting, draft.now)
    said = _scheduler_says(draft, observed, waiting)
    patience_s = PATIENCE_S if said else UNSEEN_S
    if waited_s < patience_s:
        draft.look_again(patience_s - waited_s)
        return None
    if not said:
        scheduler = waiting[0].raw["spec"].get("schedulerName", "")
        return f"No scheduler has looked at the others: is there one called {scheduler!r} in this cluster?"
    short = _lacking(observed.facilities.room, waiting)
    return f"{short[0].upper()}{short[1:]}. The scheduler: {said}" if short else f"The scheduler: {said}"


def _lacking(room: Room | None, waiting: Sequence[Pod]) -> str | None:
    specs = [pod.raw["spec"] for pod in waiting if not pod.raw["spec"].get("schedulingGates")]
    return lacking(room, specs) if room is not None and specs else None


def _scheduler_says(draft: Draft, observed: Observed, waiting: Sequence[Pod]) -> str:
    """Of the PodGroup, then of the first pod that it has spoken of."""
    sentences = [
        condition.get("message") or condition.get("reason") or ""
        for group in observed.pod_groups
        if group.generation == draft.generation
        for condition in (group.raw.get("status") or {}).get("conditions") or []
        if condition["type"] == names.CONDITION_GROUP_PLACED and condition["status"] == "False"
    ]
    refusals = [sentence for pod in waiting if (sentence := _refusal(pod)[1])]
    # What Kubernetes says of the pods of a group repeats what it says of the group.
    sentences += [sentence for sentence in refusals[:1] if not any(said in sentence for said in sentences)]
    said = "; ".join(" ".join(sentence.split()) for sentence in sentences if sentence)
    return said if len(said) <= _LONGEST_SENTENCE else f"{said[: _LONGEST_SENTENCE - 1]}…"


def _refusal(pod: Pod) -> tuple[bool, str]:
    """Whether the scheduler has found no node, and its sentence."""
    for condition in (pod.raw.get("status") or {}).get("conditions") or []:
        if condition["type"] == names.CONDITION_POD_SCHEDULED and condition["status"] == "False":
            said = condition.get("message") or condition.get("reason") or ""
            return condition.get("reason") == names.REASON_UNSCHEDULABLE, said
    return False, ""
